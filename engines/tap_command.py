"""``engines tap``: a classifier as a feature engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from engines.console import stderr, stdout
from engines.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("tap")(tap_command)


def tap_command(
    model: Annotated[Path, typer.Argument(help="ONNX model with its manifest beside it", metavar="MODEL")],
    out: Annotated[Path | None, typer.Option(help="ONNX file to write")] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="stage to tap, as --list names it; repeatable: rows are joined")
    ] = None,
    power: Annotated[float, typer.Option(help="generalised mean over the picture; 1 is the plain mean")] = 1.0,
    show: Annotated[bool, typer.Option("--list", help="show the stages and write nothing")] = False,
) -> None:
    """Cut MODEL at its pooled layer, or at the stages named, and write it as a feature engine with its manifest."""
    from engines.onnx_graph import read_graph, write_model
    from engines.onnx_tap import stages, tap

    graph, spec = read_graph(model)
    if show:
        table = Table(title=spec.name, title_justify="left")
        for heading in ("--at", "made by", "features", "from a map of"):
            table.add_column(heading, justify="right" if heading == "features" else "left", overflow="fold")
        for stage in stages(graph):
            side = "pooled: the default" if stage.side is None else "x".join(map(str, stage.side))
            table.add_row(stage.tensor, stage.operator, str(stage.size), side)
        stdout.print(table)
        return
    if out is None:
        raise UsageError("--out names the ONNX file to write; --list shows the stages")
    if out.resolve() == model.resolve():
        raise UsageError(f"{out}: is MODEL itself, which stays; name another --out")
    written = write_model(out, *tap(graph, spec, at or [], power), new_origin=True)
    stderr.print(f"{out}: {written.output.size} features, {written.source}", soft_wrap=True)
