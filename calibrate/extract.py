"""Features of pictures: decoded on threads (joblib), inferred in batches, one array per view, kept in a cache.

On a cluster (``calibrate.distributed``) whole chunks are tasks, decoded and inferred where they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed

from calibrate.feature_cache import FeatureCache
from calibrate.views import view_of
from edge.gate_manifest import VIEWS
from engines import Engine, ImageError, InputSpec, UsageError, decode_image, prepare_input
from engines.console import track

Float32 = npt.NDArray[np.float32]

BATCH = 16


@dataclass(frozen=True, slots=True)
class Extracted:
    """Features of the readable pictures.

    ``rows`` (n,) are indices into the paths that were asked for, ``views`` maps a view to (n, D) float32, ``digests``
    holds n SHA-256 of the files' bytes, ``unreadable`` maps the index of each other path to the reason.
    """

    rows: npt.NDArray[np.intp]
    views: dict[str, Float32]
    digests: tuple[str, ...]
    unreadable: dict[int, str]


@dataclass(frozen=True, slots=True)
class _Prepared:
    digest: str
    row: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Known:
    """A picture's SHA-256 and its features (D,), one row a view."""

    digest: str
    rows: tuple[Float32, ...]


def parse_views(text: str) -> tuple[str, ...]:
    """``full,hflip`` as a tuple; raises :class:`UsageError` for an unknown or repeated view."""
    views = tuple(part.strip() for part in text.split(",") if part.strip())
    if not views or len(set(views)) != len(views) or any(view not in VIEWS for view in views):
        raise UsageError(f"--views takes distinct names out of {', '.join(VIEWS)}, separated by commas; found {text!r}")
    return views


def extract(
    engine: Engine, paths: Sequence[Path], views: Sequence[str] = ("full",), cache: FeatureCache | None = None
) -> Extracted:
    """Features of ``paths`` under every view. A picture that cannot be read is listed, never fatal.

    What ``cache`` holds is read from it, and what it does not hold is put there as soon as it is known.
    """
    chunks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    with Parallel(n_jobs=cpu_count(), backend="threading") as parallel:
        found = (
            item
            for chunk in track(chunks, f"batches of {BATCH} pictures")
            for item in features_of(engine, chunk, views, cache, parallel)
        )
        return collect(found, len(paths), views, engine.spec.output.size)


def features_of(
    engine: Engine, paths: Sequence[Path], views: Sequence[str], cache: FeatureCache | None, parallel: Parallel
) -> list[Known | str]:
    """Features of one chunk, or the reason why there are none, in the order of ``paths``; decoded by ``parallel``."""
    tasks = (delayed(_prepare)(path, engine.spec.input, views, cache) for path in paths)
    looked_up: list[_Prepared | Known | str] = parallel(tasks)
    missing = [item for item in looked_up if isinstance(item, _Prepared)]
    computed = iter(_infer(engine, missing, views, cache))
    return [next(computed) if isinstance(item, _Prepared) else item for item in looked_up]


def collect(found: Iterable[Known | str], count: int, views: Sequence[str], size: int) -> Extracted:
    """Rows ``size`` wide and reasons of ``count`` paths, in their order, as arrays that are filled as they come."""
    arrays = {view: np.empty((count, size), np.float32) for view in views}
    rows: list[int] = []
    digests: list[str] = []
    reasons: dict[int, str] = {}
    for index, item in enumerate(found):
        if isinstance(item, str):
            reasons[index] = item
            continue
        for array, row in zip(arrays.values(), item.rows, strict=True):
            array[len(rows)] = row
        rows.append(index)
        digests.append(item.digest)
    kept = {view: array[: len(rows)] for view, array in arrays.items()}
    return Extracted(np.asarray(rows, dtype=np.intp), kept, tuple(digests), reasons)


def _infer(
    engine: Engine, prepared: Sequence[_Prepared], views: Sequence[str], cache: FeatureCache | None
) -> list[Known]:
    if not prepared:
        return []
    batch = np.stack([item.row for item in prepared])
    per_view = [engine.infer(view_of(batch, view, engine.spec.input)) for view in views]
    known = [Known(item.digest, rows) for item, rows in zip(prepared, zip(*per_view, strict=True), strict=True)]
    if cache is not None:
        for item in known:
            for view, row in zip(views, item.rows, strict=True):
                cache.put(item.digest, view, row)
    return known


def _prepare(path: Path, spec: InputSpec, views: Sequence[str], cache: FeatureCache | None) -> _Prepared | Known | str:
    try:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        rows = cache.get(digest, views) if cache is not None else None
        if rows is not None:
            return Known(digest, rows)
        pixels = decode_image(data, minimum=(spec.height, spec.width)).pixels
        return _Prepared(digest, prepare_input(pixels, spec))
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or "cannot be read"
