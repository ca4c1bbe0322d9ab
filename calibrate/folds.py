"""Folds that keep a folder together, so that the kinds in training do not flatter the threshold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibrate.samples import Samples, Strings

FOLDS = 5
Folds = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """``fold`` (n,) in [0, count) and a sentence that says what was kept together."""

    fold: Folds
    count: int
    description: str


def split(samples: Samples, seed: int, folds: int = FOLDS) -> Split:
    """Positives grouped by their family, negatives by theirs; each fold gets its share of both.

    A positive kind stays whole up to half of the positives, since a gate must recall kinds it never saw. A family of
    negatives is spread from a quarter on: the gate in use knows it, and a member fitted without so much of the
    evidence would say little about that gate.
    """
    count = max(2, min(folds, samples.positives))
    rng = np.random.default_rng(seed)
    fold = np.empty(len(samples.positive), dtype=np.intp)
    sentences = []
    for label, name, largest in ((True, "positives", 0.5), (False, "negatives", 0.25)):
        rows = samples.positive == label
        if rows.any():
            fold[rows], sentence = grouped_folds(samples.family[rows], count, largest, rng)
            sentences.append(f"{name} {sentence}")
    return Split(fold, count, f"{count} folds: " + "; ".join(sentences))


def grouped_folds(groups: Strings, count: int, largest: float, rng: np.random.Generator) -> tuple[Folds, str]:
    """A fold (n,) for each row and a sentence about it.

    Groups stay whole, large ones first, each into the emptiest fold. A group with more than the share ``largest`` of
    all rows is spread over the folds instead.
    """
    sizes = Counter(map(str, groups))
    spread = [group for group, size in sizes.items() if size > largest * len(groups)]
    whole = sorted((group for group in sizes if group not in spread), key=lambda group: (-sizes[group], group))
    fold = np.empty(len(groups), dtype=np.intp)
    load = np.zeros(count)
    for group in spread:
        rows = np.flatnonzero(groups == group)
        fold[rows] = rng.permutation(len(rows)) % count
        load += len(rows) / count
    for group in whole:
        emptiest = int(np.argmin(load))
        fold[groups == group] = emptiest
        load[emptiest] += sizes[group]
    return fold, _describe(len(whole), spread)


def _describe(whole: int, spread: list[str]) -> str:
    if not whole and len(spread) == 1:
        return f"in one folder ({spread[0]}), so plain folds: pictures alike may flatter the figures"
    together = f"grouped by folder ({whole} kept whole)"
    return f"{together}, {' and '.join(spread)} spread plainly for their size" if spread else together
