"""The formulas of a gate, in numpy alone.

Every member maps features x (n, D) to a score (n,), larger for the gate's own animal. Notation as in the literature:
c centre, W projection, y = (x - c) W + b.

- ``mixture``: log sum_k w_k N(y; mu_k, S_k), scikit-learn's ``GaussianMixture.score_samples`` after a scaler and a
  whitened PCA that are folded into W and b.
- ``gaussian``: log N(x; c, S) for S = V diag(a) V' + s2 (I - V V'), with a_i >= s2. What lies outside the kept
  subspace counts: D2 = |x - c|^2 / s2 - |W'(x - c)|^2, column i of W being v_i sqrt(1/s2 - 1/a_i).
- ``linear``: (x - c) . w + b, the log odds of a discriminative member.

The centre is subtracted before the product, so that a float32 product loses nothing to a large common mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.errors import GateError

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]

_CACHE_LINE = 64  # bytes


class MemberScore(Protocol):
    """A member ready to score; ``size`` is D."""

    @property
    def size(self) -> int: ...

    def score(self, x: Floats) -> Float64:
        """Scores (n,) float64 of features (n, D) in the member's own precision."""
        ...


def log_sum_exp(terms: Floats) -> Float64:
    """log sum_k exp(terms[:, k]) without overflow: (n, k) -> (n,) float64."""
    return np.asarray(np.logaddexp.reduce(terms, axis=1, dtype=np.float64))


def row_dot(a: Floats) -> Float64:
    """Squared length of each row: (n, d) -> (n,) float64."""
    return np.asarray(np.vecdot(a, a, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Gaussian:
    """``gaussian``: centre (D,), basis (D, r), residual variance s2 > 0, log normaliser."""

    size: int
    centre: Floats
    basis: Floats
    residual_variance: float
    log_norm: float

    def score(self, x: Floats) -> Float64:
        offset = x - self.centre
        inside = row_dot(offset @ self.basis)
        return self.log_norm - 0.5 * (row_dot(offset) / self.residual_variance - inside)


@dataclass(frozen=True, slots=True)
class Linear:
    """``linear``: centre (D,), weights (D,), intercept."""

    size: int
    centre: Floats
    weights: Floats
    intercept: float

    def score(self, x: Floats) -> Float64:
        return ((x - self.centre) @ self.weights).astype(np.float64) + self.intercept


@dataclass(frozen=True, slots=True)
class IsotropicMixture:
    """``mixture`` with ``spherical`` or ``diag`` covariance, expanded into one product per row.

    With z = (x - c) W and p_k = 1 / variance: log w_k N(z + b; mu_k, diag(1/p_k)) =
    z . (mu_k - b) p_k - z^2 . p_k / 2 + const_k, which is [z, z^2, 1] times ``table`` (2 d + 1, k); where all p_k
    of a component are one number, |z|^2 stands for z^2 and the table is (d + 2, k). The table is float64.
    """

    size: int
    centre: Floats
    projection: Floats
    table: Float64
    spherical: bool

    def score(self, x: Floats) -> Float64:
        z = (x - self.centre) @ self.projection
        d = z.shape[1]
        terms = np.empty((len(z), len(self.table)))
        linear, squares = terms[:, :d], terms[:, d:-1]
        linear[...] = z
        if self.spherical:
            squares[:, 0] = row_dot(linear)
        else:
            np.square(linear, out=squares)
        terms[:, -1] = 1.0
        return log_sum_exp(terms @ self.table)


@dataclass(frozen=True, slots=True)
class CorrelatedMixture:
    """``mixture`` with ``tied`` or ``full`` covariance: |y P_k - mu_k P_k|^2, P_k the precision's Cholesky factor."""

    size: int
    centre: Floats
    projection: Floats
    offset: Floats
    factors: Floats
    means_factors: Floats
    constants: Floats

    def score(self, x: Floats) -> Float64:
        y = (x - self.centre) @ self.projection + self.offset
        terms = np.empty((len(y), len(self.constants)))
        whitened = y @ self.factors[0]
        for k, constant in enumerate(self.constants):
            if k and len(self.factors) > 1:
                whitened = y @ self.factors[k]
            terms[:, k] = constant - 0.5 * row_dot(whitened - self.means_factors[k])
        return log_sum_exp(terms)


def build_member(kind: str, covariance: str | None, arrays: Arrays, dtype: type[np.floating[Any]]) -> MemberScore:
    """The member of ``kind`` from its arrays (float64, checked here for shape), its large products in ``dtype``.

    Raises :class:`GateError` when an array is missing or does not fit the others.
    """
    if kind == "gaussian":
        return _gaussian(_Shapes(arrays), dtype)
    if kind == "linear":
        return _linear(_Shapes(arrays), dtype)
    if covariance in ("spherical", "diag"):
        return _isotropic(_Shapes(arrays), covariance, dtype)
    return _correlated(_Shapes(arrays), covariance == "tied", dtype)


class _Shapes:
    """Hands out arrays by name and checks shapes; a letter stands for one size throughout the member."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.sizes: dict[str, int] = {}

    def take(self, name: str, axes: str) -> Float64:
        array = self._arrays.get(name)
        if array is None or array.dtype != np.float64 or array.ndim != len(axes):
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise GateError(f"array {name!r} must be float64 with {len(axes)} axes; found {found}")
        for axis, size in zip(axes, array.shape, strict=True):
            if (size < 1 and axis != "r") or self.sizes.setdefault(axis, size) != size:
                raise GateError(f"array {name!r} has shape {array.shape}, which does not fit the member's other arrays")
        return array

    def positive(self, name: str, axes: str) -> Float64:
        array = self.take(name, axes)
        if not (array > 0).all():
            raise GateError(f"array {name!r} must be positive throughout")
        return array


def _gaussian(shapes: _Shapes, dtype: type[np.floating[Any]]) -> Gaussian:
    centre, basis = shapes.take("centre", "D"), shapes.take("basis", "Dr")
    variance, log_norm = shapes.positive("residual_variance", ""), shapes.take("log_norm", "")
    return Gaussian(len(centre), centre.astype(dtype), basis.astype(dtype), float(variance), float(log_norm))


def _linear(shapes: _Shapes, dtype: type[np.floating[Any]]) -> Linear:
    centre, weights = shapes.take("centre", "D"), shapes.take("weights", "D")
    intercept = float(shapes.take("intercept", ""))
    return Linear(len(centre), centre.astype(dtype), weights.astype(dtype), intercept)


def aligned(array: Floats, dtype: type[np.floating[Any]]) -> Floats:
    """A contiguous copy in ``dtype`` that begins on a cache line.

    numpy promises 16 bytes; vector loads that straddle two lines make a product with one row a tenth slower.
    """
    item = np.dtype(dtype).itemsize
    room = np.empty(array.size + _CACHE_LINE // item, dtype)
    start = -room.ctypes.data % _CACHE_LINE // item
    copy = room[start : start + array.size].reshape(array.shape)
    copy[...] = array
    return copy


def _projection(shapes: _Shapes, dtype: type[np.floating[Any]]) -> tuple[int, Floats, Floats, Float64]:
    centre, offset = shapes.take("centre", "D"), shapes.take("offset", "d")
    projection = shapes.take("projection", "Dd")
    rounded = centre.astype(dtype)
    shift = offset + (rounded.astype(np.float64) - centre) @ projection
    return len(centre), rounded, aligned(projection, dtype), shift  # a float64 offset makes a sum float64


def _isotropic(shapes: _Shapes, covariance: str, dtype: type[np.floating[Any]]) -> IsotropicMixture:
    size, centre, projection, offset = _projection(shapes, dtype)
    weights, means = shapes.positive("weights", "k"), shapes.take("means", "kd")
    variances = shapes.positive("variances", "k" if covariance == "spherical" else "kd")
    spherical = covariance == "spherical"
    precisions = 1.0 / (np.broadcast_to(variances[:, None], means.shape) if spherical else variances)
    moved = means - offset
    densities = np.square(moved) * precisions - np.log(precisions / (2.0 * np.pi))
    constants = np.log(weights) - 0.5 * densities.sum(axis=1)
    half = 0.5 * (precisions[:, :1] if spherical else precisions)
    table = np.hstack([moved * precisions, -half, constants[:, None]]).T
    return IsotropicMixture(size, centre, projection, np.ascontiguousarray(table), spherical)


def _correlated(shapes: _Shapes, tied: bool, dtype: type[np.floating[Any]]) -> CorrelatedMixture:
    size, centre, projection, offset = _projection(shapes, dtype)
    weights, means = shapes.positive("weights", "k"), shapes.take("means", "kd")
    factors = shapes.take("precision_factors", "dd")[None] if tied else shapes.take("precision_factors", "kdd")
    diagonals = np.diagonal(factors, axis1=1, axis2=2)
    if not (diagonals > 0).all():
        raise GateError("array 'precision_factors' must have positive diagonals")
    per_component = np.broadcast_to(factors, (len(means), *factors.shape[1:]))
    constants = np.log(weights) + np.log(diagonals).sum(axis=1) - 0.5 * means.shape[1] * np.log(2.0 * np.pi)
    means_factors = np.einsum("kd,kde->ke", means, per_component)
    return CorrelatedMixture(size, centre, projection, offset, factors, means_factors, constants)
