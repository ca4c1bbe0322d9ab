"""``engines``: look into models, measure, build and fetch them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from engines import export_command, fuse_command, quantize_command, tap_command
from engines.base import Device, available_threads, open_engine
from engines.bench import bench, bench_report, bench_table
from engines.bench_models import bench_models, models_table
from engines.build_command import build
from engines.console import run_app, stdout
from engines.errors import UsageError
from engines.info import describe, info_table
from engines.pull import pull

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into models, measure, build and fetch them.")

Model = Annotated[Path, typer.Argument(help="model file with its manifest beside it", metavar="MODEL")]
Models = Annotated[list[Path], typer.Argument(help="model files with manifests beside them", metavar="MODEL…")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]


@app.command()
def info(model: Model, as_json: AsJson = False) -> None:
    """Verify MODEL and tell what it is: manifest, graph, inputs and outputs."""
    facts = describe(model)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        stdout.print(info_table(facts))


app.command()(build)


@app.command("bench")
def bench_command(
    models: Models,
    batch: Annotated[str, typer.Option(help="batch sizes, separated by commas")] = "1,4,8",
    threads: Annotated[int | None, typer.Option(help="threads inside one inference; default: every core")] = None,
    seconds: Annotated[float, typer.Option(help="measuring time for each batch size")] = 5.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    in_flight: Annotated[int, typer.Option(help="batches kept submitted; 2 lets a GPU copy while it computes")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure MODEL with several batch sizes in turns: images per second, latency, peak memory.

    Several MODELs stand side by side at the first batch size, in turns, with the CPU time of preparing their input.
    """
    sizes = _sizes(batch)
    if len(models) > 1:
        if in_flight != 1:
            raise UsageError("--in-flight goes with one MODEL; measure them one after the other")
        found = bench_models(models, sizes[0], seconds, cast(Device, device), threads)
        _print(found, models_table, as_json)
        return
    (model,) = models
    with open_engine(model, cast(Device, device), threads=threads) as engine:
        rows = bench(engine, sizes, seconds, in_flight)
        report = bench_report(engine, threads or available_threads(), rows)
    _print(report, bench_table, as_json)


def _print(report: dict[str, Any], as_table: Callable[[dict[str, Any]], Table], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        stdout.print(as_table(report))


app.command()(pull)


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--batch wants whole numbers separated by commas, as 1,4,8, not {text!r}") from error


for _module in (export_command, quantize_command, fuse_command, tap_command):
    _module.register(app)


def main() -> None:
    """Entry point of the ``engines`` command."""
    run_app(app, "engines")


if __name__ == "__main__":
    main()
