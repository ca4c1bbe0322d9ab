"""``calibrate``: make a gate from folders of pictures, score pictures with it, measure it."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from calibrate import (
    ablation_command,
    bench_fit_command,
    benchmark_command,
    cluster_command,
    compare_command,
    convert_command,
    extract_command,
    parity_command,
    report_command,
    review_command,
    species_command,
)
from calibrate.bench_gate import bench_gate, timings_table
from calibrate.extract import parse_views
from calibrate.families import merge_families, parse_groups
from calibrate.figures import figures_table
from calibrate.fit import FitOptions, fit_gate
from calibrate.gather import gather
from calibrate.options import (
    Cache,
    DeviceOption,
    FramesADay,
    Model,
    NoCache,
    Prior,
    Threads,
    Threshold,
    Together,
    chosen_cache,
    chosen_wish,
)
from calibrate.recipes import make_recipe
from calibrate.report import write_report
from calibrate.score import score_pictures
from calibrate.study import held_out_study, paths_by_digest
from calibrate.view_choice import CANDIDATES, CHEAPEST, choose_views
from calibrate.view_cost import view_cost
from edge.gate_file import load_gate, save_gate
from edge.gate_manifest import GateManifest
from engines import UsageError, open_engine
from engines.base import Device
from engines.console import run_app, stderr, stdout

log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="From folders of pictures to a gate file.")


@app.command()
def fit(
    model: Model,
    positives: Annotated[Path, typer.Option(help="folder of pictures to accept; sub folders are kinds")],
    out: Annotated[Path, typer.Option(help="gate file to write")],
    negatives: Annotated[
        list[Path] | None, typer.Option(help="folder of pictures to refuse; repeatable; sub folders are families")
    ] = None,
    recipe: Annotated[str, typer.Option(help="robust or seed")] = "robust",
    report: Annotated[
        Path | None,
        typer.Option(help="folder for report.html, report.json and gate.json: what was fitted and how well"),
    ] = None,
    views: Annotated[
        str,
        typer.Option(
            help="full; full,centre or full,hflip averaged, which costs the box twice the inference; auto: a second "
            "view only where held-out pictures prove a gain"
        ),
    ] = "full",
    components: Annotated[int | None, typer.Option(help="PCA components (seed, or robust with ppca)")] = None,
    covariance: Annotated[
        str | None,
        typer.Option(help="robust: ledoit-wolf (default) or ppca; seed: spherical (default), diag, tied or full"),
    ] = None,
    threshold: Threshold = None,
    prior: Prior = 0.02,
    frames_a_day: FramesADay = 10_000.0,
    abstain: Annotated[
        float | None,
        typer.Option(help="share of positives and of negatives beyond a band of uncertain verdicts; default: no band"),
    ] = None,
    seed: Annotated[int, typer.Option(help="same pictures and seed, same file")] = 0,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    together: Together = None,
) -> None:
    """Fit a gate on pictures and write it, with what it achieves on pictures it was not fitted on."""
    groups = parse_groups(together or [])
    chosen = make_recipe(recipe, components, covariance, seed)
    wish = chosen_wish(threshold, prior, frames_a_day)
    options = FitOptions(CHEAPEST if views == "auto" else parse_views(views), wish, seed, abstain)
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder for the gate file; make it first")
    with open_engine(model, cast(Device, device), threads=threads) as engine:
        kept = chosen_cache(cache, no_cache, engine)
        look = partial(gather, engine, positives, negatives or [], normalise=chosen.normalise, cache=kept)
        if views == "auto":
            tried = {shown: merge_families(look(shown), groups) for shown in CANDIDATES}
            options = replace(options, views=choose_views(tried, chosen, seed))
        samples = merge_families(look(options.views), groups)
        fitted = fit_gate(samples, engine.spec, chosen, options)
        save_gate(out, fitted.manifest, fitted.arrays)
        gate = load_gate(out, features=engine.spec)
        cost = view_cost(engine, gate.views) if report is not None else None
    stderr.print(figures_table(gate.manifest))
    stderr.print(f"{out}: {gate.name}, {out.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    if report is not None:
        _write_manifest(report, gate.manifest, gate.name)
        paths = paths_by_digest(positives, negatives or [])
        stderr.print(f"{write_report(report, held_out_study(gate.name, fitted, paths), cost=cost)}", soft_wrap=True)


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(help="pictures, or folders of them", metavar="PATH…")],
    gate: Annotated[Path, typer.Option(help="gate file")],
    model: Model,
    device: DeviceOption = "auto",
    threads: Threads = None,
) -> None:
    """Score pictures: CSV on stdout with path, score, probability, accepted."""
    with open_engine(model, cast(Device, device), threads=threads) as engine:
        loaded = load_gate(gate, features=engine.spec)
        for path, reason in score_pictures(loaded, engine, paths, sys.stdout).items():
            log.warning("%s: %s", path, reason)


@app.command("bench-gate")
def bench_gate_command(
    batch: Annotated[str, typer.Option(help="batch sizes, separated by commas")] = "1,8,64",
    rounds: Annotated[int, typer.Option(min=1, help="calls of each side for each batch size, in turns")] = 300,
    seed: Annotated[int, typer.Option(help="of the random features")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list on stdout")] = False,
) -> None:
    """Time the numpy gate against the scikit-learn chain it replaces, in turns."""
    try:
        batches = [int(part) for part in batch.split(",")]
    except ValueError as error:
        raise UsageError(f"--batch wants whole numbers separated by commas, as 1,8,64, not {batch!r}") from error
    if min(batches) < 1:
        raise UsageError(f"--batch wants sizes of at least 1, not {batch!r}")
    timings = bench_gate(batches, rounds, seed)
    if as_json:
        typer.echo(json.dumps([{**asdict(timing), "ratio": timing.ratio} for timing in timings], indent=2))
    else:
        stdout.print(timings_table(timings))


def _write_manifest(folder: Path, manifest: GateManifest, name: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"gate": name, **manifest.model_dump(mode="json")}, indent=2, sort_keys=True)
        (folder / "gate.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: the report cannot be written ({error.strerror})") from error


for _module in (
    extract_command,
    compare_command,
    ablation_command,
    report_command,
    benchmark_command,
    cluster_command,
    species_command,
    review_command,
    convert_command,
    bench_fit_command,
    parity_command,
):
    _module.register(app)


def main() -> None:
    """Entry point of the ``calibrate`` command."""
    logging.basicConfig(level=logging.INFO, format="calibrate: %(message)s")
    logging.getLogger("engines").setLevel(logging.WARNING)  # which engine was opened is for a worker's log
    run_app(app, "calibrate")


if __name__ == "__main__":
    main()
