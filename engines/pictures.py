"""Pictures from folders as rows of a batch, for what needs real pictures beside a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engines.base import Batch
from engines.errors import ImageError, UsageError
from engines.image import decode_image
from engines.prepare import prepare_input
from engines.spec import InputSpec

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Every picture below the folders, in a stable order; raises :class:`UsageError` where there is none."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; give a folder of pictures")
        found += list(_below(folder))
    if not found:
        raise UsageError(
            f"{', '.join(map(str, folders))}: no picture found; expected files ending in {', '.join(sorted(SUFFIXES))}"
        )
    return found


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of ``paths``, evenly spread over them; the same ones every time."""
    if len(paths) <= count:
        return list(paths)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).round().astype(int)]


def batches(paths: Sequence[Path], spec: InputSpec, size: int) -> Iterator[Batch]:
    """Prepared inputs (n, *spec.shape), n <= ``size``; pictures that cannot be read are left out."""
    rows = []
    for path in paths:
        row = _row(path, spec)
        if row is None:
            continue
        rows.append(row)
        if len(rows) == size:
            yield np.stack(rows)
            rows = []
    if rows:
        yield np.stack(rows)


def readable(paths: Sequence[Path], spec: InputSpec) -> list[Path]:
    """Those of ``paths`` that :func:`batches` does not leave out."""
    return [path for path in paths if _row(path, spec) is not None]


def _row(path: Path, spec: InputSpec) -> Batch | None:
    try:
        pixels = decode_image(path.read_bytes(), minimum=(spec.height, spec.width)).pixels
        return prepare_input(pixels, spec)
    except (ImageError, OSError):
        return None


def _below(folder: Path) -> Iterator[Path]:
    for place, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)
