"""``calibrate extract``: features of pictures, videos and archives, kept in the cache."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer

from calibrate.distributed import extract_on_cluster
from calibrate.extract import Extracted, extract, parse_views
from calibrate.feature_cache import default_folder
from calibrate.folders import pictures_in
from calibrate.options import Cache, DeviceOption, Model, NoCache, Threads, chosen_cache
from calibrate.unpack import unpacked
from engines import UsageError, open_engine
from engines.base import Device
from engines.console import stderr

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("extract")(extract_command)


def extract_command(
    paths: Annotated[
        list[Path], typer.Argument(help="pictures, folders, archives (.zip, .tar), videos", metavar="PATH…")
    ],
    model: Model,
    out: Annotated[Path | None, typer.Option(help=".npz to write: paths, digests, one array a view")] = None,
    views: Annotated[str, typer.Option(help="of full, hflip, centre, as full,hflip")] = "full",
    every: Annotated[float, typer.Option(min=0.001, help="seconds between a video's frames")] = 1.0,
    backend: Annotated[str, typer.Option(help="threads, or dask: a cluster that shares these folders")] = "threads",
    scheduler: Annotated[str, typer.Option(help="address of the Dask scheduler")] = "tcp://127.0.0.1:8786",
    device: DeviceOption = "auto",
    threads: Threads = None,
    cache: Cache = None,
    no_cache: NoCache = False,
) -> None:
    """Compute the features of pictures and keep them, so that the other commands find them; go on where it stopped."""
    chosen = parse_views(views)
    if backend not in ("threads", "dask"):
        raise UsageError(f"--backend must be threads or dask, not {backend!r}")
    if no_cache and out is None:
        raise UsageError("--no-cache without --out would keep nothing; leave one of them out")
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(model, cast(Device, device), threads=threads))
        named = [item for path in paths for item in _pictures(stack.enter_context(unpacked(path, every)), path)]
        pictures = [picture for picture, _ in named]
        if backend == "dask":
            folder = None if no_cache else cache or default_folder()
            found = extract_on_cluster(engine, model, pictures, chosen, folder, scheduler)
        else:
            found = extract(engine, pictures, chosen, chosen_cache(cache, no_cache, engine))
    for index, reason in found.unreadable.items():
        log.warning("%s: %s", named[index][1], reason)
    if out is not None:
        _write(out, [name for _, name in named], found)
    stderr.print(f"{len(found.rows)} pictures, {len(chosen)} views; {len(found.unreadable)} unreadable")


def _pictures(folder: Path, asked: Path) -> list[tuple[Path, str]]:
    """Each picture with the name that the user knows it by: an archive's or a video's own, then what is inside."""
    if not folder.is_dir():
        return [(folder, str(asked))]
    return [(picture, str(asked / picture.relative_to(folder))) for picture in pictures_in(folder)]


def _write(out: Path, names: list[str], found: Extracted) -> None:
    kept = np.asarray([names[i] for i in found.rows], dtype=np.str_)
    try:
        with out.open("wb") as file:
            np.savez(file, paths=kept, digests=np.asarray(found.digests, dtype=np.str_), **found.views)  # type: ignore[arg-type]  # numpy's stub takes the views for allow_pickle
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from error
