"""Features of pictures from several engines and under several views, each picture read and decoded once."""

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
from edge.gate import unit_rows
from engines import Engine, ImageError, ModelError, decode_image, prepare_input
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
    digest: str
    time: float
    inputs: dict[str, list[npt.NDArray[Any]]]


def fuse(parts: Sequence[Floats]) -> Float32:
    """Join arrays (n, D_i) float into unit rows (n, sum of D_i) float32.

    Each part is L2-normalised by itself, so that no engine outweighs another by the scale of its features; the dot
    product of two fused rows is then the mean of the parts' cosine similarities.
    """
    joined = np.concatenate([unit_rows(part.astype(np.float64)) for part in parts], axis=1)
    result: Float32 = (joined / np.sqrt(len(parts))).astype(np.float32)
    return result


def fingerprint(engines: Sequence[Engine], paths: Sequence[Path], views: Sequence[str] = ("full",)) -> Fingerprints:
    """Features of ``paths``; a picture that cannot be read, or has no finite features, is listed and left out.

    Raises:
        ModelError: an engine's task is not ``features``.
    """
    for engine in engines:
        if engine.spec.task != "features":
            raise ModelError(f"{engine.spec.name}: task is {engine.spec.task!r}; give a model whose task is 'features'")
    unreadable: dict[int, str] = {}
    rows: list[int] = []
    read: list[tuple[str, float]] = []
    parts: dict[str, list[list[Float32]]] = {
        view: [[np.empty((0, engine.spec.output.size), np.float32)] for engine in engines] for view in views
    }
    for start, chunk in _chunks(engines, paths, views):
        unreadable.update({start + i: item for i, item in enumerate(chunk) if isinstance(item, str)})
        good = [(start + i, item) for i, item in enumerate(chunk) if isinstance(item, _Read)]
        rows += [index for index, _ in good]
        read += [(item.digest, item.time) for _, item in good]
        for view in views if good else ():
            for number, engine in enumerate(engines):
                batch = np.stack([item.inputs[view][number] for _, item in good])
                parts[view][number].append(engine.infer(batch))
    features = {view: tuple(np.concatenate(part) for part in found) for view, found in parts.items()}
    return _usable(np.asarray(rows, dtype=np.intp), features, read, unreadable)


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
    engines: Sequence[Engine], paths: Sequence[Path], views: Sequence[str]
) -> Iterator[tuple[int, list[_Read | str]]]:
    with Parallel(n_jobs=cpu_count(), backend="threading") as parallel:
        for start in track(range(0, len(paths), BATCH), "batches of pictures"):
            yield start, parallel(delayed(_read)(engines, path, views) for path in paths[start : start + BATCH])


def _read(engines: Sequence[Engine], path: Path, views: Sequence[str]) -> _Read | str:
    specs = [engine.spec.input for engine in engines]
    largest = (max(spec.height for spec in specs), max(spec.width for spec in specs))
    try:
        data = path.read_bytes()
        pixels = decode_image(data, minimum=largest).pixels
        shown = {view: VIEWS[view](pixels) for view in views}
        inputs = {view: [prepare_input(seen, spec) for spec in specs] for view, seen in shown.items()}
        time = captured_at(data)
        return _Read(hashlib.sha256(data).hexdigest(), path.stat().st_mtime if time is None else time, inputs)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return error.strerror or "cannot be read"
