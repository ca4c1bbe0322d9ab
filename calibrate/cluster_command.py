"""``calibrate cluster``: pictures alike, sorted into folders of links."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, cast

import typer

from calibrate.cluster import ClusterOptions, check_count
from calibrate.cluster import cluster as find_clusters
from calibrate.cluster_output import Clustered, check_empty, write_clusters
from calibrate.fingerprints import Fingerprints, fingerprint, fuse
from calibrate.folders import pictures_in
from calibrate.options import Cache, DeviceOption, NoCache, Threads, chosen_cache
from engines import UsageError, open_engine
from engines.base import Device
from engines.console import stderr

log = logging.getLogger(__name__)

Models = Annotated[list[Path], typer.Option("--model", help="feature model; repeat it to fuse several")]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(cluster)


def cluster(
    folders: Annotated[list[Path], typer.Argument(help="pictures, or folders of them", metavar="FOLDER…")],
    model: Models,
    out: Annotated[Path, typer.Option(help="new folder for the links, contact.jpg and clusters.json")],
    similarity: Annotated[float, typer.Option(help="mean cosine similarity from which on pictures belong together")] = (
        0.8
    ),
    crops: Annotated[bool, typer.Option("--crops", help="beside the whole picture, its central part")] = False,
    time_weight: Annotated[float, typer.Option(help="similarity that pictures far apart in time lose")] = 0.0,
    time_scale: Annotated[float, typer.Option(help="seconds that count as far apart")] = 3600.0,
    min_size: Annotated[int, typer.Option(help="pictures that make a cluster")] = 2,
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Sort pictures that look alike into folders of links, with a contact sheet and a JSON."""
    options = ClusterOptions(similarity, time_weight, time_scale, min_size)
    views = ("full", "centre") if crops else ("full",)
    paths = _pictures(folders)
    check_count(len(paths))
    check_empty(out)
    with ExitStack() as stack:
        engines = [stack.enter_context(open_engine(path, cast(Device, device), threads=threads)) for path in model]
        found = fingerprint(engines, paths, views, [chosen_cache(cache, no_cache, engine) for engine in engines])
        models = [f"{engine.spec.name} sha256:{engine.spec.sha256}" for engine in engines]
    clustered = _clustered(paths, found, options, models, views)
    write_clusters(out, clustered)
    _say(out, clustered)


def _pictures(folders: Sequence[Path]) -> list[Path]:
    for folder in folders:
        if not folder.exists():
            raise UsageError(f"{folder}: no such file or folder")
    paths = list(dict.fromkeys(path for folder in folders for path in pictures_in(folder)))
    if not paths:
        raise UsageError(f"{', '.join(map(str, folders))}: no picture found")
    return paths


def _clustered(
    paths: Sequence[Path], found: Fingerprints, options: ClusterOptions, models: Sequence[str], views: Sequence[str]
) -> Clustered:
    unreadable = {str(paths[i]): reason for i, reason in found.unreadable.items()}
    for name, reason in unreadable.items():
        log.warning("%s: %s", name, reason)
    fused = fuse([part for view in views for part in found.features[view]])
    clusters = find_clusters(fused, found.times, options)
    return Clustered([paths[i] for i in found.rows], found.digests, clusters, options, models, views, unreadable)


def _say(out: Path, clustered: Clustered) -> None:
    inside = len(clustered.paths) - len(clustered.rest())
    stderr.print(
        f"{out}: {len(clustered.clusters)} clusters with {inside} of {len(clustered.paths)} pictures; "
        f"look at {out / 'contact.jpg'}",
        soft_wrap=True,
    )
