"""``calibrate parity``: prove that a quantised variant decides as its float model does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table

from calibrate.options import Cache, DeviceOption, Model, NoCache, Threads
from calibrate.parity import MAX_AUROC_LOSS, MAX_FLIPPED, Limits, Pictures, measure_parity, write_parity
from edge.parity import GateParity
from engines import ParrotgateError, load_spec
from engines.base import Device
from engines.console import stderr, stdout


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("parity")(parity)


def parity(
    gate: Annotated[Path, typer.Option(help="gate file, fitted on MODEL")],
    model: Model,
    variant: Annotated[Path, typer.Option(help="the quantised model, as `engines quantize` wrote it")],
    positives: Annotated[Path, typer.Option(help="folder of pictures to accept; best ones the gate never saw")],
    negatives: Annotated[list[Path] | None, typer.Option(help="folder of pictures to refuse; repeatable")] = None,
    max_auroc_loss: Annotated[float, typer.Option(help="what the variant may lose")] = MAX_AUROC_LOSS,
    max_flipped: Annotated[float, typer.Option(help="share of decisions that may change")] = MAX_FLIPPED,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")] = False,
) -> None:
    """Judge pictures through the float model and its quantised variant, and write the report beside the variant.

    The worker takes a quantised variant only with such a report for its gate. A variant that moves the gate is
    reported as such and the command ends with 1.
    """
    pictures = Pictures(positives, negatives or [], cache, no_cache)
    limits = Limits(max_auroc_loss, max_flipped)
    entry = measure_parity(gate, model, variant, pictures, limits, cast(Device, device), threads)
    path = write_parity(variant, load_spec(variant).origin, entry)
    if as_json:
        typer.echo(entry.model_dump_json(indent=2))
    else:
        stdout.print(parity_table(entry))
        stderr.print(f"{path}", soft_wrap=True)
    if not entry.passed:
        raise ParrotgateError(f"{variant}: moves the gate, do not use it: {entry.verdict}")


def parity_table(entry: GateParity) -> Table:
    """The comparison for a terminal."""
    pictures = f"{entry.positives} positives, {entry.negatives} negatives"
    seen = "; the gate was fitted on these very pictures, which flatters both" if entry.seen else ""
    table = Table(title=f"{pictures}{seen}", title_justify="left")
    for heading in ("", "float", "quantised"):
        table.add_column(heading, justify="right" if heading else "left")
    before, after = entry.before, entry.after
    table.add_row("AUROC", _number(before.auroc), _number(after.auroc))
    table.add_row("recall", _share(before.recall), _share(after.recall))
    table.add_row("false accepts", _share(before.false_accepts), _share(after.false_accepts))
    changed = f"{entry.flipped} of {entry.positives + entry.negatives} (+{entry.gained} −{entry.lost})"
    table.add_row("decisions changed", "", changed)
    table.add_row("cosine of features", "", f"{entry.cosine:.4f} (worst {entry.worst_cosine:.4f})")
    table.add_row("[bold]passed" if entry.passed else "[bold]refused", "", entry.verdict)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
