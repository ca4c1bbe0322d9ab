"""``calibrate compare``: recipes and members on the same held-out pictures, in one table."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

import typer

from calibrate.comparison import PLAIN, compare
from calibrate.comparison_tables import ALL_IN_ONE, comparison_tables
from calibrate.extract import parse_views
from calibrate.families import merge_families, parse_groups
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
from engines import open_engine
from engines.base import Device
from engines.console import stdout


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("compare")(compare_command)


def compare_command(
    model: Model,
    positives: Annotated[Path, typer.Option(help="folder of pictures to accept; sub folders are kinds")],
    negatives: Annotated[list[Path], typer.Option(help="folder of pictures to refuse; repeatable")],
    together: Together = None,
    views: Annotated[str, typer.Option(help="views to average, as full,centre: of full, hflip, centre")] = "full",
    threshold: Threshold = None,
    prior: Prior = 0.02,
    frames_a_day: FramesADay = 10_000.0,
    seed: Annotated[int, typer.Option(help="of folds and of members that draw at random")] = 0,
    only: Annotated[
        list[str] | None, typer.Option(help="a recipe or member to compare, by its name in the table; repeatable")
    ] = None,
    all_families: Annotated[
        bool, typer.Option("--all-families", help="show every family, not the worst alone")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON on stdout")] = False,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Compare recipes and members on pictures, kinds and families that they were not fitted on."""
    chosen, groups = parse_views(views), parse_groups(together or [])
    wish = chosen_wish(threshold, prior, frames_a_day) or PLAIN
    with open_engine(model, cast(Device, device), threads=threads) as engine:
        kept = chosen_cache(cache, no_cache, engine)
        samples = gather(engine, positives, negatives, chosen, normalise=True, cache=kept)
    found = compare(merge_families(samples, groups), seed, only or [], wish)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, allow_nan=False))
        return
    width = stdout.width if stdout.is_terminal else max(stdout.width, ALL_IN_ONE)
    for table in comparison_tables(found, width, all_families=all_families):
        stdout.print(table, width=width)
        stdout.print()
