"""What must not be torn apart by a fold: folders, and pictures that are nearly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibrate.duplicates import Rows
from calibrate.samples import Booleans, Samples

Units = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Joined:
    """``unit`` (n,) of every row; how many groups of near-duplicates were ``kept`` together, of how many ``pictures``,
    and how many pictures lie in groups ``too_large`` for that."""

    unit: Units
    kept: int
    pictures: int
    too_large: int


def fold_units(samples: Samples, groups: Sequence[Rows], largest: Mapping[bool, float]) -> Joined:
    """One unit for each folder that stays whole, one for each other row, joined by ``groups`` of near-duplicates.

    ``largest`` is the share of the positives (True) and the negatives (False) that a unit may hold. Folders linked by
    a group become one unit as long as they are no larger; where they would be, the group alone goes to the folder that
    holds most of it. A group of more than half of the positives or of the negatives is not kept together.
    """
    limits = {label: largest[label] * int((samples.positive == label).sum()) for label in (True, False)}
    unit = _folders(samples, limits)
    union = _Union(unit, samples.positive)
    kept = pictures = too_large = 0
    for rows in groups:
        if union.holds_most(rows):
            too_large += len(rows)
            continue
        kept, pictures = kept + 1, pictures + len(rows)
        if union.fits(rows, limits):
            union.join(rows)
        else:
            union.move(rows)
    return Joined(union.units(), kept, pictures, too_large)


def _folders(samples: Samples, limits: Mapping[bool, float]) -> Units:
    """A number for each folder of a label that is no larger than its limit, and one for each other row."""
    unit = np.arange(len(samples.positive))
    for label, limit in limits.items():
        rows = np.flatnonzero(samples.positive == label)
        _, number, sizes = np.unique(samples.family[rows], return_inverse=True, return_counts=True)
        first = np.full(len(sizes), len(unit))
        np.minimum.at(first, number, rows)
        whole = sizes[number] <= limit
        unit[rows[whole]] = first[number[whole]]
    return unit


class _Union:
    """Units that are joined; a unit is named by a row, and counts its rows of either label."""

    def __init__(self, unit: Units, positive: Booleans) -> None:
        self._unit, self._positive = unit.copy(), positive
        self._parent = np.arange(len(unit))
        self._sizes = {label: np.bincount(unit[positive == label], minlength=len(unit)) for label in (True, False)}

    def holds_most(self, rows: Rows) -> bool:
        """Whether ``rows`` are more than half of all positives, or of all negatives."""
        return any(
            2 * int((self._positive[rows] == label).sum()) > max(2, int(size.sum()))
            for label, size in self._sizes.items()
        )

    def fits(self, rows: Rows, limits: Mapping[bool, float]) -> bool:
        """Whether the units of ``rows`` together stay within ``limits``."""
        roots = self._roots(rows)
        return len(roots) == 1 or all(
            sum(int(size[root]) for root in roots) <= max(1.0, limits[label]) for label, size in self._sizes.items()
        )

    def join(self, rows: Rows) -> None:
        """Make one unit of those of ``rows``."""
        first, *others = self._roots(rows)
        for root in others:
            self._parent[root] = first
            for size in self._sizes.values():
                size[first] += size[root]

    def move(self, rows: Rows) -> None:
        """Put ``rows`` into the unit that holds most of them."""
        roots = np.array([self._root(int(self._unit[row])) for row in rows])
        found, counts = np.unique(roots, return_counts=True)
        home = int(found[np.argmax(counts)])
        for row, root in zip(rows.tolist(), roots.tolist(), strict=True):
            size = self._sizes[bool(self._positive[row])]
            size[root] -= 1
            size[home] += 1
        self._unit[rows] = home

    def units(self) -> Units:
        """The unit (n,) of every row."""
        return np.array([self._root(unit) for unit in self._unit.tolist()], dtype=np.intp)

    def _roots(self, rows: Rows) -> list[int]:
        return sorted({self._root(int(self._unit[row])) for row in rows})

    def _root(self, unit: int) -> int:
        while self._parent[unit] != unit:
            self._parent[unit] = self._parent[self._parent[unit]]
            unit = int(self._parent[unit])
        return unit
