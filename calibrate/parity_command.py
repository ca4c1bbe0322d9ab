"""``calibrate parity``: prove that a quantised variant answers as its float model does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table

from calibrate.options import Cache, DeviceOption, NoCache, Threads
from calibrate.parity import MAX_AUROC_LOSS, MAX_FLIPPED, Limits, Pictures, measure_parity, write_parity
from calibrate.species_parity import MAX_CONFIDENT_FLIPPED, MIN_AGREEMENT, SpeciesLimits, measure_species_parity
from edge.parity import GateParity, SpeciesParity
from engines import ParrotgateError, UsageError, load_spec
from engines.base import Device
from engines.console import stderr, stdout

ParityModel = Annotated[Path, typer.Option("--model", help="float model, feature or species")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("parity")(parity)


def parity(
    model: ParityModel,
    variant: Annotated[Path, typer.Option(help="the quantised model, as `engines quantize` wrote it")],
    gate: Annotated[Path | None, typer.Option(help="gate file, fitted on MODEL")] = None,
    positives: Annotated[
        Path | None, typer.Option(help="folder of pictures to accept; best ones the gate never saw")
    ] = None,
    negatives: Annotated[list[Path] | None, typer.Option(help="folder of pictures to refuse; repeatable")] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Option(help="for a species model: folder of pictures of the animals it is to name; repeatable"),
    ] = None,
    max_auroc_loss: Annotated[float, typer.Option(help="what a variant of a feature model may lose")] = MAX_AUROC_LOSS,
    max_flipped: Annotated[float, typer.Option(help="share of decisions that may change")] = MAX_FLIPPED,
    min_agreement: Annotated[
        float, typer.Option(help="species: share of pictures whose best class must stay, with a confidence of 95 %")
    ] = MIN_AGREEMENT,
    max_confident_flipped: Annotated[
        float, typer.Option(help="species: share that may change where the float model is sure (p >= 0.5)")
    ] = MAX_CONFIDENT_FLIPPED,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")] = False,
) -> None:
    """Judge pictures through the float model and its quantised variant, and write the report beside the variant.

    A feature model is compared with --gate, --positives and --negatives, a species model with --pictures. The worker
    takes a quantised variant only with such a report. A variant that moves the gate, or names other species, is
    reported as such and the command ends with 1.
    """
    place = cast(Device, device)
    entry: GateParity | SpeciesParity
    if load_spec(model).task == "classifier":
        if gate is not None or positives is not None or negatives or not pictures:
            raise UsageError(f"{model} is a species model: compare it with --pictures alone, not with a gate")
        named = SpeciesLimits(min_agreement, max_confident_flipped)
        entry = measure_species_parity(model, variant, pictures, named, place, threads)
    else:
        if gate is None or positives is None or pictures:
            raise UsageError(f"{model} is a feature model: compare it with --gate, --positives and --negatives")
        judged = Pictures(positives, negatives or [], cache, no_cache)
        limits = Limits(max_auroc_loss, max_flipped)
        entry = measure_parity(gate, model, variant, judged, limits, place, threads)
    path = write_parity(variant, load_spec(variant).origin, entry)
    if as_json:
        typer.echo(entry.model_dump_json(indent=2))
    else:
        stdout.print(species_table(entry) if isinstance(entry, SpeciesParity) else parity_table(entry))
        stderr.print(f"{path}", soft_wrap=True)
    if not entry.passed:
        harm = "names other species" if isinstance(entry, SpeciesParity) else "moves the gate"
        raise ParrotgateError(f"{variant}: {harm}, do not use it: {entry.verdict}")


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


def species_table(entry: SpeciesParity) -> Table:
    """The comparison of two classifiers for a terminal."""
    table = Table(title=f"{entry.pictures} pictures", title_justify="left", show_header=False)
    proven = f"{entry.agreed / entry.pictures:.2%} (at least {entry.agreement_low:.2%} with 95 % confidence)"
    table.add_row("same best class", proven)
    table.add_row("changed where p >= 0.5", f"{entry.confident_flipped} of {entry.confident}")
    table.add_row("best probability moves by", f"{entry.moved:.4f}")
    table.add_row("cosine of probabilities", f"{entry.cosine:.4f} (worst {entry.worst_cosine:.4f})")
    table.add_row("[bold]passed" if entry.passed else "[bold]refused", entry.verdict)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
