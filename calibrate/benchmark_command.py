"""``calibrate benchmark``: one-vs-rest over the classes of a train/test folder tree."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer

from calibrate.benchmark import benchmark, find_tree, fuse, tables
from calibrate.extract import extract
from calibrate.options import Cache, DeviceOption, Model, NoCache, Threads, chosen_cache
from calibrate.unpack import unpacked
from calibrate.views import ALL_VIEWS, MIRRORED, ZOOMED_OUT
from edge.gate import join_views
from engines import UsageError, open_engine
from engines.base import Device
from engines.console import stdout

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("benchmark")(benchmark_command)


def benchmark_command(
    dataset: Annotated[Path, typer.Option(help="folder or archive (.zip, .tar) with train/CLASS and test/CLASS")],
    model: Model,
    seed: Annotated[int, typer.Option(help="of the members that draw at random")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print a JSON object on stdout")] = False,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """AUROC of every class against the rest, per member, beside published figures.

    Nothing is chosen on a test picture. One class: fixed views (whole, at 0.8 and at half its size, each with its
    flip), settled beforehand on photographs of other things, shrunk to 32 pixels; six inferences a picture. Outlier
    exposure: views and penalty by inner folds of the training pictures.
    """
    with unpacked(dataset) as folder, open_engine(model, cast(Device, device), threads=threads) as engine:
        if not folder.is_dir():
            raise UsageError(f"{dataset}: give a folder or an archive with train/CLASS and test/CLASS")
        tree = find_tree(folder)
        found = extract(engine, [*tree.train, *tree.test], ALL_VIEWS, chosen_cache(cache, no_cache, engine))
    if found.unreadable:
        log.warning("%d pictures cannot be read and are left out", len(found.unreadable))
    features = join_views([found.views["full"], found.views["hflip"]], normalise=True)
    zoomed = [join_views([found.views[name], found.views[name + MIRRORED]], normalise=True) for name in ZOOMED_OUT]
    wide = fuse([features, *zoomed])
    classes = np.concatenate((tree.train_class, tree.test_class))[found.rows]
    train = found.rows < len(tree.train)
    result = benchmark(
        features[train], classes[train], features[~train], classes[~train], seed, (wide[train], wide[~train])
    )
    if as_json:
        typer.echo(json.dumps(result.as_json(), indent=2))
    else:
        for table in tables(result):
            stdout.print(table)
