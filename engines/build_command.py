"""``engines build``: an ONNX model to a TensorRT plan for the GPU of this machine."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast, get_args

import typer
from pydantic import ValidationError
from rich.table import Table

from engines import build as builder
from engines.console import progress_bar, stderr, stdout
from engines.errors import UsageError
from engines.fuse_command import write_fused
from engines.plan_manifest import HardwareLevel, Profile, gpu_text

_LAYERS_SHOWN = 200


def build(
    model: Annotated[Path, typer.Argument(help="ONNX file with its manifest beside it", metavar="MODEL")],
    precision: Annotated[
        str, typer.Option(help="auto, fp32, fp16, bf16 or int8; auto: int8 with Q/DQ nodes, else fp16")
    ] = "auto",
    batch: Annotated[str, typer.Option(help="smallest, best and largest batch", metavar="MIN,OPT,MAX")] = "1,8,16",
    workspace: Annotated[
        int, typer.Option(help="most scratch memory in MiB", min=1, max=1 << 20)
    ] = builder.DEFAULT_WORKSPACE_MIB,
    dla: Annotated[
        int | None, typer.Option(help="DLA core to run on, what it cannot on the GPU", min=0, max=15)
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="also for later versions of TensorRT; may be slower")
    ] = False,
    hardware_compatible: Annotated[
        str, typer.Option(help="none, ampere-plus or same-compute-capability: for other GPUs too; may be slower")
    ] = "none",
    out: Annotated[Path | None, typer.Option(help="where the plan goes; default: MODEL with .plan")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="folder that keeps plans and timings; default: in the user's cache")
    ] = None,
    picture: Annotated[
        str,
        typer.Option(
            "--input",
            help="as-is, or uint8: write MODEL.uint8.onnx (with --out PLAN: PLAN with .onnx), which takes pixels, and "
            "build that; a file there that is not MODEL's own uint8 form is refused",
        ),
    ] = "as-is",
    layers: Annotated[bool, typer.Option("--layers", help="show every layer with its precision")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")] = False,
) -> None:
    """Build a TensorRT plan of MODEL for this machine's GPU, or take it from the cache."""
    wanted = builder.Wanted(
        profile=_profile(batch),
        precision=_one_of("--precision", precision, get_args(builder.WantedPrecision)),
        workspace_mib=workspace,
        dla=dla,
        version_compatible=version_compatible,
        hardware_compatible=_one_of("--hardware-compatible", hardware_compatible, get_args(HardwareLevel)),
    )
    began = time.perf_counter()
    fused = _one_of("--input", picture, ("as-is", "uint8")) == "uint8"
    machine = builder.this_machine()  # before anything is written
    if fused:
        model = write_fused(model, out)
    source = builder.read_source(model)
    section = builder.plan_section(source, wanted, machine)
    with progress_bar(f"building {source.spec.name} {section.precision}") as show, _stopped_by_ctrl_c() as is_stopped:
        plan = builder.build(
            source,
            section,
            cache or builder.default_cache(),
            lambda fraction, phase: show(fraction, phase) and not is_stopped(),
            detailed=layers,
        )
    target = out or model.with_suffix(".plan")
    builder.place(plan, target)
    report = _report(plan, target, time.perf_counter() - began)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    stdout.print(_table(report))
    if layers:
        stdout.print(_layer_table(report["layers"]))
    if plan.cached:
        stderr.print("nothing was built: the cache held this plan")


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is remembered instead of raised, as no exception may pass through TensorRT; a second one ends the
    process."""
    asked: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def _profile(text: str) -> Profile:
    try:
        least, best, most = (int(part) for part in text.split(","))
        return Profile(min=least, opt=best, max=most)
    except (ValueError, ValidationError) as error:
        raise UsageError(f"--batch wants three rising numbers MIN,OPT,MAX, as 1,8,16, not {text!r}") from error


def _one_of(option: str, word: str, words: tuple[str, ...]) -> Any:
    if word not in words:
        raise UsageError(f"{option} should be one of {', '.join(words)}, not {word!r}")
    return cast(Any, word)


def _report(plan: builder.Plan, target: Path, seconds: float) -> dict[str, Any]:
    return {
        "plan": str(target),
        "bytes": target.stat().st_size,
        "cached": plan.cached,
        "seconds": round(seconds, 3),
        "cache": str(plan.path),
        **plan.section.model_dump(mode="json"),
        "layers": plan.layers(),
    }


def _table(report: dict[str, Any]) -> Table:
    profile = report["profile"]
    rows = {
        "plan": f"{report['plan']} ({report['bytes'] / 1e6:.1f} MB)",
        "from": "the cache" if report["cached"] else f"{report['onnx']}, built in {report['seconds']:.1f} s",
        "for": f"{gpu_text(report)}, TensorRT {report['tensorrt']}",
        "precision": report["precision"],
        "batch": f"{profile['min']} to {profile['max']}, best {profile['opt']}",
        "workspace": f"{report['workspace_mib']} MiB",
        "layers": str(len(report["layers"]) or "not told"),
    }
    table = Table(show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _layer_table(layers: list[dict[str, Any]]) -> Table:
    """Each layer as the engine inspector tells it; what runs on a DLA is named by it."""
    table = Table("layer", "type", "output")
    for layer in layers[:_LAYERS_SHOWN]:
        formats = {str(output.get("Format/Datatype", "")) for output in layer.get("Outputs", [])}
        table.add_row(str(layer.get("Name", "")), str(layer.get("LayerType", "")), "; ".join(sorted(formats)))
    if len(layers) > _LAYERS_SHOWN:
        table.add_row(f"… and {len(layers) - _LAYERS_SHOWN} more: --json tells them all", "", "")
    return table
