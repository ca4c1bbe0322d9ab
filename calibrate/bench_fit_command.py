"""``calibrate bench-fit``: what a fit costs at any number of pictures, without pictures."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from calibrate.bench_fit import bench_fit, fit_timings_table
from calibrate.recipes import make_recipe
from engines.console import stdout


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("bench-fit")(bench_fit_command)


def bench_fit_command(
    rows: Annotated[int, typer.Option(min=1000, help="pictures, 40 % of them positive, in 25 families")] = 10_000,
    size: Annotated[int, typer.Option(min=16, help="features of a picture")] = 2048,
    recipe: Annotated[str, typer.Option(help="robust or seed")] = "robust",
    seed: Annotated[int, typer.Option(help="of the drawn features and of the fit")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object on stdout")] = False,
) -> None:
    """Fit a gate on drawn features; print the seconds of each phase and the process's peak memory.

    100000 rows of 2048 features take minutes and stay under 4 GiB.
    """
    timing = bench_fit(rows, size, make_recipe(recipe, None, None, seed), seed)
    if as_json:
        typer.echo(json.dumps({**asdict(timing), "seconds": timing.total}, indent=2))
    else:
        stdout.print(fit_timings_table(timing))
