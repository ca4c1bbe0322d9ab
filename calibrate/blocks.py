"""Sums over many feature rows, a block at a time: memory grows with D x D, not with the rows.

Few rows are taken whole, in float64, as scikit-learn takes them. Many stay in float32 where they are; every sum over
them is float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from calibrate.samples import Float64, Floats

BLOCK = 2**22  # numbers taken at a time: 32 MiB in float64


def fits_whole(x: Floats) -> bool:
    """Whether rows (n, D) are few enough to be copied and decomposed whole: no more than a block, or than D of them."""
    return x.size <= BLOCK or len(x) <= x.shape[1]


def blocks(x: Floats) -> Iterator[slice]:
    """Slices of the rows of (n, D), each at most ``BLOCK`` numbers; at least one, be it empty."""
    step = max(1, BLOCK // max(1, x.shape[1]))
    for start in range(0, max(1, len(x)), step):
        yield slice(start, start + step)


@dataclass(frozen=True, slots=True)
class Moments:
    """Of n rows: ``mean`` (D,), ``covariance`` (D, D) divided by n, ``fourth`` the mean of |x - mean|^4."""

    count: int
    mean: Float64
    covariance: Float64
    fourth: float

    def shrinkage(self) -> float:
        """Ledoit and Wolf's weight in [0, 1], as scikit-learn's ``ledoit_wolf_shrinkage`` gives it.

        sum_ij sum_n x_ni^2 x_nj^2, for which scikit-learn multiplies D x D blocks, is sum_n |x_n|^4.
        """
        size = len(self.mean)
        mu = float(np.trace(self.covariance)) / size
        squared = float(np.square(self.covariance).sum())
        beta = (self.fourth - squared) / (size * self.count)
        delta = squared / size - mu * mu
        beta = min(beta, delta)
        return beta / delta if beta > 0.0 else 0.0


def moments(x: Floats) -> Moments:
    """The moments of rows (n, D), in two passes: the mean is known before anything is squared."""
    n, size = x.shape
    mean = np.zeros(size)
    for rows in blocks(x):
        mean += x[rows].sum(axis=0, dtype=np.float64)
    mean /= n
    covariance, fourth = np.zeros((size, size)), 0.0
    for rows in blocks(x):
        centred = x[rows] - mean
        covariance += centred.T @ centred
        fourth += float(np.square(np.vecdot(centred, centred)).sum())
    return Moments(n, mean, covariance / n, fourth / n)


def principal_axes(covariance: Float64, count: int | None = None) -> tuple[Float64, Float64]:
    """The ``count`` largest eigenvalues (r,) of ``covariance`` (D, D), largest first, and their axes (r, D)."""
    size = len(covariance)
    values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(size - (count or size), size - 1))
    return np.maximum(values[::-1], 0.0), np.ascontiguousarray(vectors.T[::-1])
