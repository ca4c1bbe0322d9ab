"""``calibrate report``: one self-contained page about a gate, and its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from calibrate.chooser import Rules, Use
from calibrate.deployed_prior import use_from_pictures
from calibrate.feature_cache import FeatureCache
from calibrate.gather import gather
from calibrate.options import Cache, DeviceOption, FramesADay, Model, NoCache, Prior, Threads, chosen_cache
from calibrate.report import write_report
from calibrate.study import Study, fresh_study, held_out_study, paths_by_digest, refit_on_the_same
from calibrate.view_cost import view_cost
from edge.gate import Gate
from edge.gate_file import load_gate
from engines import Engine, UsageError, open_engine
from engines.base import Device
from engines.console import stderr


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(report)


def report(
    gate: Annotated[Path, typer.Option(help="gate file")],
    model: Model,
    positives: Annotated[Path, typer.Option(help="folder of pictures to accept; sub folders are kinds")],
    out: Annotated[Path, typer.Option(help="folder for report.html and report.json")],
    negatives: Annotated[
        list[Path] | None, typer.Option(help="folder of pictures to refuse; repeatable; sub folders are families")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="these pictures had no part in fitting: show the gate's own scores")
    ] = False,
    prior: Prior = 0.02,
    prior_from: Annotated[
        Path | None, typer.Option(help="folder of unlabelled frames as cameras give them: estimates --prior")
    ] = None,
    frames_a_day: FramesADay = 10_000.0,
    recall: Annotated[float, typer.Option(help="recall to choose a threshold for")] = 0.95,
    precision: Annotated[float, typer.Option(help="precision to choose a threshold for, at --prior")] = 0.9,
    false_a_day: Annotated[float, typer.Option(help="false alarms a day to choose a threshold for")] = 10.0,
    cost_ratio: Annotated[float, typer.Option(help="what a missed picture costs, in false alarms")] = 5.0,
    cache: Cache = None,
    no_cache: NoCache = False,
    device: DeviceOption = "auto",
    threads: Threads = None,
) -> None:
    """Write a page that shows how good a gate is, on scores of pictures that it was not fitted on."""
    use, rules = Use(prior, frames_a_day), Rules(recall, precision, false_a_day, cost_ratio)
    check_use(use, rules)
    with open_engine(model, cast(Device, device), threads=threads) as engine:
        loaded = load_gate(gate, features=engine.spec)
        kept = chosen_cache(cache, no_cache, engine)
        study = study_folders(loaded, engine, positives, negatives or [], kept, fresh=fresh)
        if prior_from is not None:
            use = use_from_pictures(loaded, engine, prior_from, study, use.frames, kept)
        cost = view_cost(engine, loaded.views)
    stderr.print(f"{write_report(out, study, use, rules, cost)}", soft_wrap=True)


def study_folders(
    gate: Gate, engine: Engine, positives: Path, negatives: list[Path], cache: FeatureCache | None, *, fresh: bool
) -> Study:
    """The pictures below the folders under ``gate``: held out by fitting it again, or judged as fresh ones."""
    samples = gather(engine, positives, negatives, gate.views, normalise=gate.manifest.normalise, cache=cache)
    paths = paths_by_digest(positives, negatives)
    if fresh:
        return fresh_study(gate, samples, paths)
    return held_out_study(gate.name, refit_on_the_same(gate, samples, engine.spec), paths)


def check_use(use: Use, rules: Rules) -> None:
    """Raise :class:`UsageError` for shares outside (0, 1) and numbers that are not positive."""
    for option, share in (("--prior", use.prior), ("--recall", rules.recall), ("--precision", rules.precision)):
        if not 0.0 < share < 1.0:
            raise UsageError(f"{option} is a share and must lie between 0 and 1, not {share:g}")
    amounts = {"--frames-a-day": use.frames, "--false-a-day": rules.false_a_day, "--cost-ratio": rules.cost_ratio}
    for option, number in amounts.items():
        if not 0.0 < number < 1e12:
            raise UsageError(f"{option} must be a positive number, not {number:g}")
