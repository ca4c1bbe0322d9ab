"""Pictures that are nearly the same: features that point the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from calibrate.samples import Floats

ALIKE = 0.97  # cosine from which on two pictures count as near-duplicates (gate.md 2.14)
BLOCK = 2048

Rows = npt.NDArray[np.intp]


def near_duplicates(features: Floats, alike: float = ALIKE) -> list[Rows]:
    """Groups of at least two rows of (n, D) linked by a cosine of at least ``alike``, in the order of their first row.

    Compares block by block: memory is that of the features in float32 and of two blocks, whatever n is.
    """
    x = features.astype(np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
    left, right = _pairs(x, alike)
    graph = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(len(x), len(x)))
    _, group = connected_components(graph, directed=False)
    touched = np.unique(np.concatenate((left, right)))
    members: dict[int, list[int]] = {}
    for row in touched.tolist():
        members.setdefault(int(group[row]), []).append(row)
    return [np.asarray(rows, dtype=np.intp) for rows in members.values()]


def _pairs(x: npt.NDArray[np.float32], alike: float) -> tuple[Rows, Rows]:
    left, right = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for a in range(0, len(x), BLOCK):
        for b in range(a, len(x), BLOCK):
            i, j = np.nonzero(x[a : a + BLOCK] @ x[b : b + BLOCK].T >= alike)
            later = i + a < j + b
            left.append(i[later] + a)
            right.append(j[later] + b)
    return np.concatenate(left), np.concatenate(right)
