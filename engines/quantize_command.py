"""``engines quantize``: an INT8 form of a float ONNX model, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engines.console import stderr, stdout
from engines.errors import UsageError

_TARGETS = {"cpu": ("cpu",), "tensorrt": ("tensorrt",), "both": ("cpu", "tensorrt")}
_METHODS = ("percentile", "entropy", "minmax")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("quantize")(quantize_command)


def quantize_command(
    model: Annotated[Path, typer.Argument(help="float ONNX model with its manifest beside it", metavar="MODEL")],
    pictures: Annotated[
        list[Path], typer.Option(help="folder of pictures like those of your cameras, to calibrate on; repeatable")
    ],
    target: Annotated[str, typer.Option("--for", help="cpu (U8S8), tensorrt (S8S8) or both")] = "cpu",
    method: Annotated[str, typer.Option(help="percentile, entropy or minmax")] = "percentile",
    count: Annotated[int, typer.Option(min=1, help="calibrate on at most this many pictures, evenly spread")] = 128,
    out: Annotated[Path | None, typer.Option(help="folder for the models; default: beside MODEL")] = None,
    seven_bit: Annotated[
        bool, typer.Option("--seven-bit", help="7-bit weights, for x86 CPUs without VNNI, which saturate with 8")
    ] = False,
    picture: Annotated[
        str, typer.Option("--input", help="float32, or uint8: the new models take plain pixels")
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")] = False,
) -> None:
    """Make INT8 models of MODEL, calibrated on pictures, and compare them with it on pictures not calibrated on.

    The new models still need `calibrate parity`, a feature model for each gate: without that report the worker refuses
    them.
    """
    from engines.quantize import QuantizeOptions, quantize_model

    if target not in _TARGETS or method not in _METHODS:
        raise UsageError(f"--for takes cpu, tensorrt or both, --method {', '.join(_METHODS)}; got {target}, {method}")
    if picture not in ("float32", "uint8"):
        raise UsageError(f"--input takes float32 or uint8, not {picture!r}")
    options = QuantizeOptions(_TARGETS[target], method, count, seven_bit, picture == "uint8")  # type: ignore[arg-type]  # checked above
    reports = quantize_model(model, pictures, out or model.parent, options)
    if as_json:
        typer.echo(json.dumps(reports, indent=2))
        return
    for report in reports:
        stdout.print(report_table(report))
    stderr.print(f"how fast: engines bench {model} {' '.join(report['file'] for report in reports)}", soft_wrap=True)
    is_gated = reports[0]["task"] == "features"
    command = f"calibrate parity {'--gate GATE ' if is_gated else ''}--model {model} --variant {reports[0]['file']} "
    shown = "--positives DIR --negatives DIR" if is_gated else "--pictures DIR"
    stderr.print(f"before a worker may use it: {command}{shown}", soft_wrap=True)


def report_table(report: dict[str, Any]) -> Table:
    """A report for a terminal."""
    sizes = f"{report['bytes_before'] / 1e6:.1f} -> {report['bytes'] / 1e6:.1f} MB"
    calibrated = f"{report['method']} on {report['calibrated_on']} pictures, compared on {report['compared_on']} others"
    title = f"{report['file']} for {report['target']}: {sizes}; {calibrated}"
    table = Table(title=title, title_justify="left")
    for heading in ("layers", "tensors", "cosine", "worst", "of"):
        table.add_column(heading, justify="left" if heading in ("layers", "of") else "right")
    for row in report["families"]:
        table.add_row(
            row["family"], str(row["tensors"]), f"{row['cosine']:.4f}", f"{row['worst']:.4f}", row["worst_tensor"]
        )
    cosine = report["cosine"]
    table.add_row("[bold]output", "", f"{cosine['mean']:.4f}", f"{cosine['worst']:.4f}", "")
    if report["top1_agreement"] is not None:
        table.add_row("[bold]same best class", "", f"{report['top1_agreement']:.1%}", "", "")
    return table
