"""Folds that keep a folder and near-duplicates together, so that what is in training does not flatter the figures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibrate.duplicates import ALIKE, Rows, near_duplicates
from calibrate.fold_units import Joined, fold_units
from calibrate.samples import Samples

log = logging.getLogger(__name__)

FOLDS = 5
# A positive kind stays whole up to half of the positives, since a gate must recall kinds it never saw. A family of
# negatives is spread from a quarter on: the gate in use knows it, and a member fitted without so much of the evidence
# would say little about that gate.
LARGEST = {True: 0.5, False: 0.25}
Folds = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """``fold`` (n,) in [0, count) and a sentence that says what was kept together."""

    fold: Folds
    count: int
    description: str


def split(samples: Samples, seed: int, folds: int = FOLDS, alike: float | None = ALIKE) -> Split:
    """Positives grouped by their family, negatives by theirs; each fold gets its share of both.

    Pictures whose features have a cosine of at least ``alike`` stay in one fold whatever their folders and labels
    (:func:`fold_units`); None looks for no such pictures. Folders stay whole up to ``LARGEST``; the pictures of a
    larger one are spread.
    """
    count = max(2, min(folds, samples.positives))
    groups = [] if alike is None else near_duplicates(samples.features, alike)
    joined = fold_units(samples, groups, LARGEST)
    _warn(samples, joined, groups)
    placing = _Placing(samples, joined, count)
    rng = np.random.default_rng(seed)
    sentences = [
        f"{name} {placing.place(label, rng)}"
        for label, name in ((True, "positives"), (False, "negatives"))
        if (samples.positive == label).any()
    ]
    if joined.kept and any(len(set(placing.fold[rows])) == 1 for rows in _sides(samples) if len(rows) > 1):
        log.warning("kept together, near-duplicates would leave a fold without one class: they are not kept together")
        return split(samples, seed, folds, None)
    if joined.kept:
        sentences.append(f"{joined.pictures} near-duplicates kept together in {joined.kept} groups")
    return Split(placing.fold, count, f"{count} folds: " + "; ".join(sentences))


def _sides(samples: Samples) -> list[Rows]:
    return [np.flatnonzero(samples.positive == label) for label in (True, False)]


def _warn(samples: Samples, joined: Joined, groups: Sequence[Rows]) -> None:
    if joined.too_large:
        log.warning(
            "%d pictures are near-duplicates of more than half of their class under these features; they are spread "
            "over the folds, which flatters the held-out figures: give more different pictures, or a better model",
            joined.too_large,
        )
    torn = sum(0 < int(samples.positive[rows].sum()) < len(rows) for rows in groups)
    if torn:
        log.warning("%d groups of near-duplicates hold positives and negatives; the report names them", torn)


class _Placing:
    """Units put into folds, whole folders first, the largest into the emptiest."""

    def __init__(self, samples: Samples, joined: Joined, count: int) -> None:
        self.fold: Folds = np.full(len(samples.positive), -1, dtype=np.intp)
        self._samples, self._unit, self._count = samples, joined.unit, count
        self._load = {True: np.zeros(count), False: np.zeros(count)}
        order = np.argsort(joined.unit, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(joined.unit[order])) + 1)
        self._rows: dict[int, Rows] = {int(joined.unit[rows[0]]): rows for rows in parts if len(rows)}

    def place(self, label: bool, rng: np.random.Generator) -> str:
        """Give every row of ``label`` a fold; returns a sentence about it."""
        positive, family = self._samples.positive, self._samples.family
        mine = np.flatnonzero(positive == label)
        sizes = Counter(map(str, family[mine]))
        spread = [name for name, size in sizes.items() if size > max(1.0, LARGEST[label] * len(mine))]
        whole = mine[~np.isin(family[mine], spread)]
        names: dict[int, str] = {}
        for row in whole[self.fold[whole] < 0].tolist():
            unit, name = int(self._unit[row]), str(family[row])
            names[unit] = min(names.get(unit, name), name)
        for unit in sorted(names, key=lambda unit: (-self._size(unit, label), names[unit])):
            self._put(unit, self._emptiest(unit, label))
        for name in spread:
            self._spread(mine[family[mine] == name], label, rng)
        return _describe(len(sizes) - len(spread), spread)

    def _spread(self, rows: Rows, label: bool, rng: np.random.Generator) -> None:
        free = rows[self.fold[rows] < 0]
        units = self._unit[free[np.sort(np.unique(self._unit[free], return_index=True)[1])]].tolist()
        turn = rng.permutation(len(units)).tolist()
        single = len(units) == len(rows)
        load = np.zeros(self._count)  # of single pictures every fold gets its share, whatever it holds already
        for _, _, unit in sorted(zip([-self._size(u, label) for u in units], turn, units, strict=True)):
            target = int(np.argmin(load)) if single else self._emptiest(unit, label)
            load[target] += 1.0
            self._put(unit, target)

    def _emptiest(self, unit: int, label: bool) -> int:
        """The fold with the least of ``label`` that does not come to hold most of the other label."""
        other = self._load[not label]
        most = 0.5 * int((self._samples.positive != label).sum())
        room = other + self._size(unit, not label) <= most
        return int(np.argmin(np.where(room, self._load[label], np.inf) if room.any() else self._load[label]))

    def _put(self, unit: int, target: int) -> None:
        self.fold[self._rows[unit]] = target
        for label, load in self._load.items():
            load[target] += self._size(unit, label)

    def _size(self, unit: int, label: bool) -> int:
        return int((self._samples.positive[self._rows[unit]] == label).sum())


def _describe(whole: int, spread: list[str]) -> str:
    if not whole and len(spread) == 1:
        return f"in one folder ({spread[0]}), so plain folds: pictures alike may flatter the figures"
    together = f"grouped by folder ({whole} kept whole)"
    return f"{together}, {' and '.join(spread)} spread plainly for their size" if spread else together
