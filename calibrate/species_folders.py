"""Labelled folders: one sub folder per species, whose own sub folders (a burst, a video, a bird) stay together."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

from calibrate.folders import pictures_in
from engines import UsageError

log = logging.getLogger(__name__)

MIN_PICTURES = 2  # of a class: one to learn from, one to test on
_ALIKE = 0.9  # share of matching letters from which on two names look like one, mistyped


@dataclass(frozen=True, slots=True)
class Labelled:
    """One picture: ``label`` is an index into the labels, ``group`` names what must stay in one fold."""

    path: Path
    label: int
    group: str


def find_labelled(folder: Path) -> tuple[list[Labelled], tuple[str, ...]]:
    """The pictures below ``folder`` and the labels, its sub folders' names in alphabetical order.

    ``folder/species/picture`` is a group of its own; ``folder/species/group/picture`` belongs to that group.

    Raises:
        UsageError: fewer than two classes, a class with too few pictures, or names that differ only in spelling.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a folder with one sub folder of pictures per class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    labels = tuple(path.name for path in classes)
    _check_names(folder, labels)
    pictures = [picture for number, path in enumerate(classes) for picture in _pictures(path, number)]
    loose = sum(path.parent == folder for path in pictures_in(folder))
    if loose:
        log.warning("%s: %d pictures lie beside the class folders and belong to no class; left out", folder, loose)
    check_sizes([picture.label for picture in pictures], labels)
    return pictures, labels


def check_sizes(found: Sequence[int], labels: Sequence[str]) -> None:
    """Raise :class:`UsageError` unless each class has ``MIN_PICTURES`` among the labels ``found``."""
    small = [name for number, name in enumerate(labels) if found.count(number) < MIN_PICTURES]
    if small:
        raise UsageError(
            f"too few readable pictures in {', '.join(small[:10])}: a class needs at least {MIN_PICTURES}, better 20; "
            "add some or take the folder away"
        )


def _pictures(folder: Path, label: int) -> list[Labelled]:
    found = []
    for path in pictures_in(folder):
        inside = path.relative_to(folder).parts
        group = inside[0] if len(inside) > 1 else path.relative_to(folder).as_posix()
        found.append(Labelled(path, label, f"{folder.name}/{group}"))
    return found


def _check_names(folder: Path, labels: Sequence[str]) -> None:
    if len(labels) < 2:
        raise UsageError(f"{folder}: {len(labels)} class folders; a classifier needs at least two")
    same: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        if label != label.strip() or not label.isprintable():
            raise UsageError(f"{folder}: the class folder {label!r} has blanks at an end or control characters")
        same[re.sub(r"[\W_]+", "", label.casefold())].append(label)
    for names in same.values():
        if len(names) > 1:
            raise UsageError(f"{folder}: {' and '.join(names)} differ only in spelling; make one class folder of them")
    for a, b in combinations(labels, 2) if len(labels) <= 300 else ():
        matcher = SequenceMatcher(None, a, b)
        if matcher.real_quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE:
            log.warning("the class folders %s and %s have nearly the same name; are they two classes?", a, b)
