"""Folders of pictures: who is positive, which family a negative belongs to, what must stay together in a fold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from engines import UsageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@dataclass(frozen=True, slots=True)
class Picture:
    """One file. ``source`` is the name of the folder given on the command line, ``family`` the kind inside it.

    ``family`` is ``source/sub folder`` where the source holds folders, else ``source`` alone.
    """

    path: Path
    positive: bool
    source: str
    family: str


def find_pictures(positives: Path, negatives: Sequence[Path]) -> list[Picture]:
    """Every picture below the folders, in a stable order.

    Raises:
        UsageError: a folder is missing, holds no picture, or the same folder is given twice.
    """
    folders = [positives, *negatives]
    resolved = [folder.resolve() for folder in folders]
    for folder, whole in zip(folders, resolved, strict=True):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; give a folder of pictures{_meant(folder)}")
        if resolved.count(whole) > 1:
            raise UsageError(f"{folder}: given twice; a folder is either positive or one source of negatives")
    names = _source_names(resolved)
    return [
        picture
        for folder, name in zip(folders, names, strict=True)
        for picture in _pictures_below(folder, name, positive=folder is positives)
    ]


def pictures_in(path: Path) -> Iterator[Path]:
    """``path`` itself when it is a file, else every picture below it, in a stable order."""
    if not path.is_dir():
        yield path
        return
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(folder, name)


def _pictures_below(folder: Path, source: str, *, positive: bool) -> list[Picture]:
    found = []
    for path in pictures_in(folder):
        inside = path.relative_to(folder).parts
        found.append(Picture(path, positive, source, f"{source}/{inside[0]}" if len(inside) > 1 else source))
    if not found:
        raise UsageError(f"{folder}: no picture found; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return found


def _meant(folder: Path) -> str:
    """A hint at the folder beside it whose name is most like the one given."""
    try:
        beside = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    close = get_close_matches(folder.name, beside, n=1, cutoff=0.75)
    return f"; did you mean {folder.parent / close[0]}?" if close else ""


def _source_names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, made different by their parents' names, then by a number, where they are equal."""
    names = [folder.name or "pictures" for folder in folders]
    names = [f"{f.parent.name}-{n}" if names.count(n) > 1 else n for f, n in zip(folders, names, strict=True)]
    return [f"{n}-{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]
