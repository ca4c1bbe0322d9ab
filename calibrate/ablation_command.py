"""``calibrate ablate``: how far each idea of the default recipe carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from calibrate.ablation import IDEAS, Outcome, ablate, ablation_tables
from calibrate.extract import parse_views
from calibrate.families import merge_families, parse_groups
from calibrate.gather import gather
from calibrate.options import Cache, DeviceOption, Model, NoCache, Threads, Together, chosen_cache
from engines import open_engine
from engines.base import Device
from engines.console import stdout

VIEWS = {idea.views: parse_views(idea.views) for idea in IDEAS}


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("ablate")(ablate_command)


def ablate_command(
    model: Model,
    positives: Annotated[Path, typer.Option(help="folder of pictures to accept; sub folders are kinds")],
    negatives: Annotated[list[Path], typer.Option(help="folder of pictures to refuse; repeatable")],
    together: Together = None,
    seeds: Annotated[int, typer.Option(min=1, help="how often, with other folds")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON list on stdout")] = False,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """What each idea of the default recipe brings on your pictures: one left out or put in at a time.

    density alone: no member learns from negatives. one border: all negatives alike, no neighbourhood. deviations
    summed: members are added up, no probabilities multiplied. plain folds: calibrated on kinds that the members knew.
    kinds apart: related kinds are not held out together, which flatters. A second view (flips, centre) costs the box
    twice the inference; take it (fit --views full,centre) where its gain's interval lies above nought.
    """
    groups = parse_groups(together or [])
    with open_engine(model, cast(Device, device), threads=threads) as engine:
        kept = chosen_cache(cache, no_cache, engine)
        found = {
            name: gather(engine, positives, negatives, views, normalise=True, cache=kept)
            for name, views in VIEWS.items()
        }
    merged = {name: merge_families(samples, groups) for name, samples in found.items()}
    outcomes = ablate(merged, found["full"], range(seeds))
    if as_json:
        typer.echo(json.dumps([_as_json(one) for one in outcomes], indent=2))
    else:
        for table in ablation_tables(outcomes):
            stdout.print(table)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    gain, low, high = outcome.gain
    return {
        "idea": outcome.idea.name,
        "log_loss_gain": {"value": round(gain, 6), "ci95": [round(low, 6), round(high, 6)]},
        "seeds": list(outcome.figures),
    }
