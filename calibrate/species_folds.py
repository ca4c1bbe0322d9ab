"""Stratified folds that keep groups whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines import UsageError

Indices = npt.NDArray[np.intp]


def stratified_folds(label: Indices, group: Indices, count: int, rng: np.random.Generator) -> Indices:
    """A fold in [0, count) for each of n rows: groups whole, every class spread over the folds as evenly as they allow.

    Large groups first, each into the fold with the fewest of its class, then the fewest of all. A class with at least
    two groups is in the training part of every fold.
    """
    if count < 2:
        raise UsageError(f"--folds must be at least 2, not {count}")
    fold = np.empty(len(label), dtype=np.intp)
    total = np.zeros(count)
    for one in np.unique(label):
        rows = np.flatnonzero(label == one)
        names, sizes = np.unique(group[rows], return_counts=True)
        shuffled = rng.permutation(len(names))
        own, ties = np.zeros(count), rng.permutation(count)
        for name, size in sorted(zip(names[shuffled], sizes[shuffled], strict=True), key=lambda item: -int(item[1])):
            target = np.lexsort((ties, total, own))[0]
            fold[rows[group[rows] == name]] = target
            own[target] += size
            total[target] += size
    return fold


def groups_per_class(label: Indices, group: Indices) -> Indices:
    """How many groups each class (K,) has."""
    return np.array([len(np.unique(group[label == one])) for one in range(int(label.max()) + 1)], dtype=np.intp)
