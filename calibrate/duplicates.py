"""Pictures that are nearly the same: features that point the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from calibrate.samples import Floats

ALIKE = 0.97  # cosine from which on two pictures count as near-duplicates (gate.md 2.14)
BLOCK = 2048  # rows compared with as many others at a time
DIRECTIONS = 96  # of a quick look that rules most pairs out
SLACK = 1e-4  # what float32 may take from a cosine
MOST_PAIRS = 2_000_000  # kept before they are reduced to their groups: a still camera's pictures are all alike

Rows = npt.NDArray[np.intp]
Float32 = npt.NDArray[np.float32]


def near_duplicates(features: Floats, alike: float = ALIKE) -> list[Rows]:
    """Groups of at least two rows of (n, D) linked by a cosine of at least ``alike``, in the order of their first row.

    Exact, block by block: memory beyond ``features`` is that of two blocks and of a tenth of the rows, whatever n is
    and however many are alike.
    """
    left, right = _pairs(_Unit(features), alike)
    group = _groups(left, right, len(features))
    members: dict[int, list[int]] = {}
    for row in np.unique(np.concatenate((left, right))).tolist():
        members.setdefault(int(group[row]), []).append(row)
    return [np.asarray(rows, dtype=np.intp) for rows in members.values()]


class _Unit:
    """Rows (n, D) on the unit sphere, made as they are asked for."""

    def __init__(self, features: Floats) -> None:
        self._features = features

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, rows: slice | Rows) -> Float32:
        x = self._features[rows].astype(np.float32)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))
        return x


def _pairs(x: _Unit, alike: float) -> tuple[Rows, Rows]:
    """Enough pairs (i < j) of rows alike to link every group of them."""
    left, right = np.empty(0, np.intp), np.empty(0, np.intp)
    bound = _bounds(x) if len(x) > BLOCK else None
    for a in range(0, len(x), BLOCK):
        for b in range(a, len(x), BLOCK):
            i, j = _pairs_between(x, bound, a, b, alike)
            left, right = np.append(left, i), np.append(right, j)
            if len(left) > MOST_PAIRS:
                left, right = _spanning(left, right, len(x))
    return left, right


def _bounds(x: _Unit) -> Float32:
    """(n, k + 1) whose products are never below a pair's cosine.

    With orthonormal directions Q, x.y = Qx.Qy + the rests' product, which is at most |rest of x| |rest of y|.
    """
    sample = x[np.unique(np.linspace(0, len(x) - 1, BLOCK).round().astype(np.intp))]
    _, vectors = np.linalg.eigh(sample.T @ sample)
    directions = np.ascontiguousarray(vectors[:, -DIRECTIONS:])
    inside = np.concatenate([x[start : start + BLOCK] @ directions for start in range(0, len(x), BLOCK)])
    rest = np.sqrt(np.maximum(1.0 - np.square(inside).sum(axis=1, keepdims=True), 0.0))
    return np.concatenate((inside, rest), axis=1)


def _pairs_between(x: _Unit, bound: Float32 | None, a: int, b: int, alike: float) -> tuple[Rows, Rows]:
    """The pairs of the block at ``a`` with that at ``b`` that are alike."""
    if bound is not None:
        i, j = np.nonzero(bound[a : a + BLOCK] @ bound[b : b + BLOCK].T >= alike - SLACK)
        i, j = i + a, j + b
        i, j = i[i < j], j[i < j]
        if len(i) <= BLOCK:
            same = np.vecdot(x[i], x[j]) >= alike
            return i[same], j[same]
    i, j = np.nonzero(x[a : a + BLOCK] @ x[b : b + BLOCK].T >= alike)
    i, j = i + a, j + b
    return i[i < j], j[i < j]


def _groups(left: Rows, right: Rows, n: int) -> npt.NDArray[np.int32]:
    graph = coo_array((np.ones(len(left), dtype=np.bool_), (left, right)), shape=(n, n))
    group: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return group


def _spanning(left: Rows, right: Rows, n: int) -> tuple[Rows, Rows]:
    """At most n - 1 pairs that link the same groups: each row with the first of its group."""
    group = _groups(left, right, n)
    _, first, index = np.unique(group, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[index] != np.arange(n))
    return first[index][rows].astype(np.intp), rows
