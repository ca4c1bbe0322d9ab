"""Average-linkage clustering of fused fingerprints, with an optional term for the time between two pictures.

UPGMA (Sokal & Michener 1958): two clusters merge at the mean distance over all pairs between them. The distance of
two pictures is 1 - cosine similarity, plus ``weight * min(|t_i - t_j| / scale, 1)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from engines import UsageError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

MAX_PICTURES = 20_000
_BLOCK = 512
_PAIR_BYTES = 16  # scipy works on a second copy of the distances, eight bytes each


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """``similarity`` in (0, 1]: the mean cosine similarity from which on clusters merge, less the time term.

    ``time_weight`` is what two pictures lose in similarity when ``time_scale`` seconds or more lie between them.
    Clusters smaller than ``min_size`` are dissolved.
    """

    similarity: float = 0.8
    time_weight: float = 0.0
    time_scale: float = 3600.0
    min_size: int = 2

    def __post_init__(self) -> None:
        if not 0.0 < self.similarity <= 1.0:
            raise UsageError(f"--similarity must lie above 0 and at most at 1, not {self.similarity:g}")
        if not (0.0 <= self.time_weight <= 2.0 and self.time_scale > 0.0):
            raise UsageError("--time-weight must lie in 0 to 2 and --time-scale be positive seconds")
        if self.min_size < 1:
            raise UsageError(f"--min-size must be at least 1, not {self.min_size}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """``rows`` are indices of pictures, the most central one first, the others by falling similarity to all.

    ``similarity`` is the mean cosine similarity over the cluster's pairs, 1 for a single picture.
    """

    rows: Indices
    similarity: float


def check_count(pictures: int) -> None:
    """Raise :class:`UsageError` for more pictures than their distances leave memory for."""
    if pictures > MAX_PICTURES:
        needed = _PAIR_BYTES * pictures * (pictures - 1) / 2 / 1e9
        raise UsageError(
            f"{pictures} pictures: the distances between every two of them would take {needed:.0f} GB; at most "
            f"{MAX_PICTURES} pictures can be clustered at once; give one folder after the other, or a sample"
        )


def cluster(fused: Float32, times: Float64, options: ClusterOptions) -> list[Cluster]:
    """Clusters of unit rows ``fused`` (n, D) taken at ``times`` (n,) seconds, large ones first.

    Pictures in none of them belong to no cluster of ``min_size``. Equal input gives equal clusters.

    Raises:
        UsageError: more than ``MAX_PICTURES`` rows.
    """
    check_count(len(fused))
    labels = _labels(fused, times, options)
    found = [_cluster(fused, np.flatnonzero(labels == label)) for label in np.unique(labels)]
    kept = [one for one in found if len(one.rows) >= options.min_size]
    return sorted(kept, key=lambda one: (-len(one.rows), int(one.rows.min())))


def distances(fused: Float32, times: Float64, options: ClusterOptions) -> Float64:
    """Distances (n (n - 1) / 2,) in scipy's condensed order; a block of rows at a time, never n x n."""
    n = len(fused)
    condensed = np.empty(n * (n - 1) // 2)
    at = 0
    for start in range(0, n - 1, _BLOCK):
        similar = fused[start : start + _BLOCK] @ fused[start:].T
        for i, row in enumerate(similar[: n - 1 - start]):
            part = condensed[at : at + n - 1 - start - i]
            np.subtract(1.0, row[i + 1 :], out=part)
            np.maximum(part, 0.0, out=part)
            if options.time_weight:
                gap = np.abs(times[start + i + 1 :] - times[start + i]) / options.time_scale
                part += options.time_weight * np.minimum(gap, 1.0)
            at += len(part)
    return condensed


def _labels(fused: Float32, times: Float64, options: ClusterOptions) -> npt.NDArray[np.int32]:
    if len(fused) < 2:
        return np.zeros(len(fused), dtype=np.int32)
    tree = linkage(distances(fused, times, options), method="average")
    # Rounding in float32 must not part exact copies at similarity 1.
    labels: npt.NDArray[np.int32] = fcluster(tree, 1.0 - options.similarity + 1e-6, criterion="distance")
    return labels


def _cluster(fused: Float32, rows: Indices) -> Cluster:
    members = fused[rows].astype(np.float64)
    total = members.sum(axis=0)
    central = members @ total
    n = len(rows)
    similarity = 1.0 if n == 1 else float((total @ total - n) / (n * (n - 1)))
    return Cluster(rows[np.argsort(-central, kind="stable")], min(1.0, similarity))
