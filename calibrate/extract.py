"""Features of pictures: decoded on threads (joblib), inferred in batches, one array per view."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed

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


def parse_views(text: str) -> tuple[str, ...]:
    """``full,hflip`` as a tuple; raises :class:`UsageError` for an unknown or repeated view."""
    views = tuple(part.strip() for part in text.split(",") if part.strip())
    if not views or len(set(views)) != len(views) or any(view not in VIEWS for view in views):
        raise UsageError(f"--views takes distinct names out of {', '.join(VIEWS)}, separated by commas; found {text!r}")
    return views


def extract(engine: Engine, paths: Sequence[Path], views: Sequence[str] = ("full",)) -> Extracted:
    """Features of ``paths`` under every view. A picture that cannot be read is listed, never fatal."""
    unreadable: dict[int, str] = {}
    digests: list[str] = []
    rows: list[int] = []
    parts: dict[str, list[Float32]] = {view: [np.empty((0, engine.spec.output.size), np.float32)] for view in views}
    for start, chunk in _prepared_chunks(paths, engine.spec.input):
        good = [(start + i, item) for i, item in enumerate(chunk) if isinstance(item, _Prepared)]
        unreadable.update({start + i: item for i, item in enumerate(chunk) if isinstance(item, str)})
        if not good:
            continue
        rows += [index for index, _ in good]
        digests += [item.digest for _, item in good]
        batch = np.stack([item.row for _, item in good])
        for view in views:
            parts[view].append(engine.infer(view_of(batch, view, engine.spec.input)))
    joined = {view: np.concatenate(part) for view, part in parts.items()}
    return Extracted(np.asarray(rows, dtype=np.intp), joined, tuple(digests), unreadable)


def view_of(batch: npt.NDArray[Any], view: str, spec: InputSpec) -> npt.NDArray[Any]:
    """``batch`` of prepared inputs as ``view`` shows it: ``full`` as it is, ``hflip`` mirrored left to right."""
    if view == "full":
        return batch
    return np.ascontiguousarray(np.flip(batch, axis=3 if spec.layout == "NCHW" else 2))


def _prepared_chunks(paths: Sequence[Path], spec: InputSpec) -> Iterator[tuple[int, list[_Prepared | str]]]:
    starts = range(0, len(paths), BATCH)
    with Parallel(n_jobs=cpu_count(), backend="threading") as parallel:
        for path_index, _ in enumerate(track(paths, "pictures")):
            if path_index in starts:
                chunk = parallel(delayed(_prepare)(path, spec) for path in paths[path_index : path_index + BATCH])
                yield path_index, chunk


def _prepare(path: Path, spec: InputSpec) -> _Prepared | str:
    try:
        data = path.read_bytes()
        pixels = decode_image(data, minimum=(spec.height, spec.width)).pixels
        return _Prepared(hashlib.sha256(data).hexdigest(), prepare_input(pixels, spec))
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or "cannot be read"
