"""Features of pictures from several engines and under several views, each picture read and decoded at most once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed

from calibrate.capture_time import captured_at
from calibrate.feature_cache import FeatureCache
from edge.gate import unit_rows
from engines import Engine, ImageError, InputSpec, ModelError, decode_image, prepare_input
from engines.console import track

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]
UInt8 = npt.NDArray[np.uint8]

BATCH = 16
CENTRE = 0.75  # of each side


def _centre(pixels: UInt8) -> UInt8:
    height, width = pixels.shape[:2]
    rows, columns = max(1, round(CENTRE * height)), max(1, round(CENTRE * width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def _hflip(pixels: UInt8) -> UInt8:
    return np.ascontiguousarray(pixels[:, ::-1])


VIEWS: Mapping[str, Callable[[UInt8], UInt8]] = {
    "full": lambda pixels: pixels,
    "hflip": _hflip,
    "centre": _centre,
    "centre_hflip": lambda pixels: _hflip(_centre(pixels)),
}
"""Views of upright pixels uint8 (h, w, 3): the whole, its mirror image, its central three quarters, their mirror."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Features of the n readable pictures.

    ``rows`` (n,) are indices into the paths that were asked for; ``features`` maps a view to one (n, D) float32 array
    per engine; ``digests`` holds n SHA-256 of the files' bytes; ``times`` (n,) is when each was taken, in seconds
    (EXIF, else the file's time); ``unreadable`` maps the index of every other path to the reason.
    """

    rows: npt.NDArray[np.intp]
    features: dict[str, tuple[Float32, ...]]
    digests: tuple[str, ...]
    times: npt.NDArray[np.float64]
    unreadable: dict[int, str]

    def fused(self, view: str) -> Float32:
        """The view's features of all engines in one unit row each, (n, sum of D): see :func:`fuse`."""
        return fuse(self.features[view])


@dataclass(frozen=True, slots=True)
class _Read:
    """A picture: for each engine the rows (D,) of its views if they are known already, else its inputs for them."""

    digest: str
    time: float
    known: dict[int, tuple[Float32, ...]]
    inputs: dict[int, list[npt.NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class _Source:
    """One engine, its cache, and the names that the cache has for the views."""

    engine: Engine
    cache: FeatureCache | None
    names: tuple[str, ...]

    def rows(self, number: int, read: Sequence[_Read]) -> list[tuple[Float32, ...]]:
        """Rows (D,) of every view for every picture: what is known, and the others in one batch a view."""
        missing = [item for item in read if number not in item.known]
        if missing:
            batches = zip(*(item.inputs[number] for item in missing), strict=True)
            found = list(zip(*(self.engine.infer(np.stack(batch)) for batch in batches), strict=True))
            for item, rows in zip(missing, found, strict=True):
                item.known[number] = rows
                if self.cache is not None:
                    for name, row in zip(self.names, rows, strict=True):
                        self.cache.put(item.digest, name, row)
        return [item.known[number] for item in read]


def fuse(parts: Sequence[Floats]) -> Float32:
    """Join arrays (n, D_i) float into unit rows (n, sum of D_i) float32.

    Each part is L2-normalised by itself, so that no engine outweighs another by the scale of its features; the dot
    product of two fused rows is then the mean of the parts' cosine similarities.
    """
    joined = np.concatenate([unit_rows(part.astype(np.float64)) for part in parts], axis=1)
    result: Float32 = (joined / np.sqrt(len(parts))).astype(np.float32)
    return result


def fingerprint(
    engines: Sequence[Engine],
    paths: Sequence[Path],
    views: Sequence[str] = ("full",),
    caches: Sequence[FeatureCache | None] | None = None,
) -> Fingerprints:
    """Features of ``paths``; a picture that cannot be read, or has no finite features, is listed and left out.

    ``caches``, one for each engine: what they hold is read from them, and what they do not hold is put there.

    Raises:
        ModelError: an engine's task is not ``features``.
        UsageError: a cache cannot be written.
    """
    for engine in engines:
        if engine.spec.task != "features":
            raise ModelError(f"{engine.spec.name}: task is {engine.spec.task!r}; give a model whose task is 'features'")
    sources = _sources(engines, views, caches or [None] * len(engines))
    unreadable: dict[int, str] = {}
    rows: list[int] = []
    read: list[tuple[str, float]] = []
    found: list[list[tuple[Float32, ...]]] = [[] for _ in engines]
    for start, chunk in _chunks(sources, paths, views):
        unreadable.update({start + i: item for i, item in enumerate(chunk) if isinstance(item, str)})
        good = [(start + i, item) for i, item in enumerate(chunk) if isinstance(item, _Read)]
        rows += [index for index, _ in good]
        read += [(item.digest, item.time) for _, item in good]
        for number, source in enumerate(sources):
            found[number] += source.rows(number, [item for _, item in good])
    features = {
        view: tuple(
            np.stack([row[i] for row in own]) if own else np.empty((0, engine.spec.output.size), np.float32)
            for own, engine in zip(found, engines, strict=True)
        )
        for i, view in enumerate(views)
    }
    return _usable(np.asarray(rows, dtype=np.intp), features, read, unreadable)


def _sources(
    engines: Sequence[Engine], views: Sequence[str], caches: Sequence[FeatureCache | None]
) -> tuple[_Source, ...]:
    largest = _largest(engines)

    def name(view: str, spec: InputSpec) -> str:
        # The whole picture, decoded for this engine alone, is what ``calibrate.extract`` keeps under the same name.
        # The other views are cut from the pixels here and from the engine's input there: alike, not equal.
        alone = view == "full" and largest == (spec.height, spec.width)
        return view if alone else f"{view} of pixels for {largest[0]}x{largest[1]}"

    return tuple(
        _Source(engine, cache, tuple(name(view, engine.spec.input) for view in views))
        for engine, cache in zip(engines, caches, strict=True)
    )


def _largest(engines: Sequence[Engine]) -> tuple[int, int]:
    """Height and width that a reduced-scale decode must leave for all engines."""
    specs = [engine.spec.input for engine in engines]
    return max(spec.height for spec in specs), max(spec.width for spec in specs)


def _usable(
    rows: npt.NDArray[np.intp],
    features: dict[str, tuple[Float32, ...]],
    read: list[tuple[str, float]],
    unreadable: dict[int, str],
) -> Fingerprints:
    good = np.ones(len(rows), dtype=np.bool_)
    for part in (part for parts in features.values() for part in parts):
        good &= np.isfinite(part).all(axis=1) & part.any(axis=1)
    unreadable |= {int(row): "has no finite features" for row in rows[~good]}
    kept = {view: tuple(part[good] for part in parts) for view, parts in features.items()}
    digests = tuple(read[i][0] for i in np.flatnonzero(good))
    times = np.array([time for _, time in read], dtype=np.float64)[good]
    return Fingerprints(rows[good], kept, digests, times, dict(sorted(unreadable.items())))


def _chunks(
    sources: Sequence[_Source], paths: Sequence[Path], views: Sequence[str]
) -> Iterator[tuple[int, list[_Read | str]]]:
    with Parallel(n_jobs=cpu_count(), backend="threading") as parallel:
        for start in track(range(0, len(paths), BATCH), "batches of pictures"):
            yield start, parallel(delayed(_read)(sources, path, views) for path in paths[start : start + BATCH])


def _read(sources: Sequence[_Source], path: Path, views: Sequence[str]) -> _Read | str:
    try:
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        looked_up = {number: s.cache.get(digest, s.names) for number, s in enumerate(sources) if s.cache is not None}
        known = {number: rows for number, rows in looked_up.items() if rows is not None}
        missing = {number: source.engine.spec.input for number, source in enumerate(sources) if number not in known}
        inputs: dict[int, list[npt.NDArray[Any]]] = {}
        if missing:
            pixels = decode_image(data, minimum=_largest([source.engine for source in sources])).pixels
            shown = [VIEWS[view](pixels) for view in views]
            inputs = {number: [prepare_input(seen, spec) for seen in shown] for number, spec in missing.items()}
        time = captured_at(data)
        return _Read(digest, path.stat().st_mtime if time is None else time, known, inputs)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or "cannot be read"
