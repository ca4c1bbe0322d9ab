"""The gate: is this our animal at all? Features in, decisions out; numpy alone, no I/O, no state.

In float32 (the default) only the large products are single precision. Rows for which that could matter are scored
again in float64: those whose probability would move by more than ``PROBABILITY_TOLERANCE``, or whose decision would
change, within the error that the gate's own golden rows show. So both precisions give the same decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge.errors import GateError
from edge.gate_calibration import build_calibrator, build_join, knots
from edge.gate_manifest import GateManifest
from edge.gate_math import Arrays, Float64, Floats, MemberScore, build_member, row_dot
from edge.gate_row import knots_curve, row_score

Precision = Literal["float32", "float64"]
Booleans = npt.NDArray[np.bool_]

SCORE_TOLERANCE = 1e-3
PROBABILITY_TOLERANCE = 1e-5
# Isotonic plateaus often lie exactly on a threshold, and the pictures it was fitted on exactly on a plateau's end:
# there the last bit of a score would decide, differently on each machine.
_DECIMALS = 9
_ROUNDING = 10.0**_DECIMALS
_ERROR_SAFETY = 4.0  # the golden rows are sixteen; other rows may err more


@dataclass(frozen=True, slots=True)
class GateScores:
    """What the gate says about n rows, in their order.

    ``score`` (n,) float64, larger is more typical. ``probability`` (n,) in [0, 1], None when the gate was fitted
    without negatives. ``held_out`` are the scores of the held-out positives, ascending. ``finite`` (n,) is False
    where features or score are not finite numbers: such a row is never accepted, and its other numbers mean nothing.
    """

    score: Float64
    probability: Float64 | None
    accepted: Booleans
    finite: Booleans
    held_out: Float64

    @property
    def p_value(self) -> Float64:
        """Conformal p-values (n,) in (0, 1]: (1 + #{held-out positives with at most this score}) / (1 + #)."""
        return conformal(self.score, self.held_out)

    @property
    def decisive(self) -> Float64:
        """The number (n,) that was compared with the threshold: probability where there is one, else p-value."""
        return self.p_value if self.probability is None else self.probability


@dataclass(frozen=True, slots=True)
class _Scorer:
    members: tuple[MemberScore, ...]
    dtype: type[np.floating[Any]]


class Gate:
    """A gate ready to judge; build it with :func:`edge.gate_file.load_gate`.

    ``manifest`` and ``arrays`` are a gate file's content, ``sha256`` the file's hash (None when not from a file).
    Raises :class:`GateError` when the arrays do not fit the manifest or one another. Safe to share between threads.
    """

    def __init__(
        self, manifest: GateManifest, arrays: Arrays, *, sha256: str | None = None, precision: Precision = "float32"
    ) -> None:
        self.manifest = manifest
        self.sha256 = sha256
        self.precision = precision
        self.threshold = manifest.decision.threshold
        self.abstain = manifest.decision.abstain
        _check_finite(arrays)
        self._join = build_join(manifest.join, arrays, len(manifest.members))
        self._calibrate = build_calibrator(manifest.calibration, arrays)
        self._held_out = _held_out_scores(arrays)
        self._exact = _scorer(manifest, arrays, np.float64)
        self._fast = self._exact if precision == "float64" else _scorer(manifest, arrays, np.float32)
        self._row_score = None if precision == "float64" or manifest.normalise else row_score(self._fast.members)
        self._curve = knots_curve(*knots(arrays)) if manifest.calibration == "isotonic" else None
        self._relative_error = 0.0 if precision == "float64" else self._measure_error(arrays)

    @property
    def name(self) -> str:
        """``sha256:<hex>`` of the file, or the manifest's name for a gate that was never saved."""
        return f"sha256:{self.sha256}" if self.sha256 else self.manifest.name

    @property
    def views(self) -> tuple[str, ...]:
        """The views of a frame whose features are joined (:meth:`join_views`) before they are judged."""
        return self.manifest.views

    def with_threshold(self, threshold: float) -> Gate:
        """The same gate with another threshold in [0, 1] on probability (or p-value); shares all arrays."""
        if not 0.0 <= threshold <= 1.0:
            raise GateError(f"a gate's threshold must lie in [0, 1]; found {threshold}")
        other = object.__new__(Gate)
        other.__dict__.update(self.__dict__)
        other.threshold = float(threshold)
        return other

    def join_views(self, views: Sequence[Floats]) -> npt.NDArray[np.float32]:
        """One feature row per frame from one (n, D) array per view, in the order of :attr:`views`: (n, D) float32.

        Rows are put on the unit sphere before they are averaged where the gate normalises.
        """
        if len(views) != len(self.views):
            raise GateError(f"this gate joins the views {', '.join(self.views)}; found {len(views)} arrays")
        return join_views(views, normalise=self.manifest.normalise)

    def judge(self, features: Floats) -> GateScores:
        """Judge features (n, D), any float dtype; raises :class:`GateError` for another shape."""
        self._check_shape(features)
        score = self._fast_score(features)
        decisive, unsure = self._decide(score)
        if unsure:
            score[unsure] = self._score(self._exact, features[unsure])
            decisive[unsure] = self._decisive(score[unsure])
        finite = np.isfinite(score)
        accepted = (decisive >= self.threshold) & finite
        probability = None if self._calibrate is None else decisive
        return GateScores(score, probability, accepted, finite, self._held_out)

    def member_scores(self, features: Floats) -> dict[str, Float64]:
        """Each member's own score (n,) in float64, by name; what the joined score is made of."""
        self._check_shape(features)
        x = self._inputs(self._exact, features)
        names = [member.name for member in self.manifest.members]
        return {name: member.score(x) for name, member in zip(names, self._exact.members, strict=True)}

    def _check_shape(self, features: Floats) -> None:
        size = self.manifest.features.size
        if features.ndim != 2 or features.shape[1] != size:
            raise GateError(f"features must have shape (n, {size}); found {features.shape}")

    def _inputs(self, scorer: _Scorer, rows: Floats) -> Floats:
        x = rows.astype(scorer.dtype, copy=False)
        return unit_rows(x) if self.manifest.normalise else x

    def _score(self, scorer: _Scorer, rows: Floats) -> Float64:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            x = self._inputs(scorer, rows)
            return self._join([member.score(x) for member in scorer.members])

    def _fast_score(self, features: Floats) -> Float64:
        if self._row_score is not None and len(features) == 1:
            return np.array([self._row_score(features)])
        return self._score(self._fast, features)

    def _decide(self, score: Float64) -> tuple[Float64, list[int]]:
        """What decides (n,), and the rows for which float32 leaves it or the decision open."""
        if not self._relative_error:
            return self._decisive(score), []
        # Plain numbers: for the few rows of a batch a dozen numpy calls would cost more than the row itself.
        scores = score.tolist()
        margins = [self._relative_error * (1.0 + abs(s)) for s in scores]
        around = [s + sign * m for sign in (0.0, -1.0, 1.0) for s, m in zip(scores, margins, strict=True)]
        if self._curve is not None and len(scores) == 1:
            decisive = [round(self._curve(s) * _ROUNDING) / _ROUNDING for s in around]
        else:
            decisive = self._decisive(np.array(around)).tolist()
        n = len(scores)
        bounds = zip(decisive[n : 2 * n], decisive[2 * n :], margins, strict=True)
        unsure = [row for row, (low, high, margin) in enumerate(bounds) if not self._is_sure(low, high, margin)]
        return np.array(decisive[:n]), unsure

    def _is_sure(self, low: float, high: float, margin: float) -> bool:
        same_side = (low >= self.threshold) == (high >= self.threshold)
        return same_side and high - low <= PROBABILITY_TOLERANCE and margin <= SCORE_TOLERANCE

    def _decisive(self, score: Float64) -> Float64:
        if self._calibrate is None:
            return conformal(score, self._held_out)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._calibrate(score).round(_DECIMALS)

    def _measure_error(self, arrays: Arrays) -> float:
        golden = arrays.get("golden.features")
        if golden is None:
            raise GateError("a gate without golden rows cannot run in float32; fit it again")
        self._check_shape(golden)
        exact = self._score(self._exact, golden)
        alone = np.concatenate([self._fast_score(row[None]) for row in golden])
        with np.errstate(invalid="ignore"):
            error = np.abs([self._score(self._fast, golden) - exact, alone - exact]) / (1.0 + np.abs(exact))
        if not np.isfinite(error).all():
            raise GateError("the golden rows' scores are not finite numbers; fit the gate again")
        return max(_ERROR_SAFETY * float(error.max()), 1e-9)


def conformal(score: Float64, held_out: Float64) -> Float64:
    """p-values (n,) in (0, 1] of ``score`` (n,) among the ascending ``held_out`` scores (m,) of positives."""
    at_most = np.searchsorted(held_out, score, side="right").astype(np.float64)
    return np.asarray((1.0 + at_most) / (1.0 + len(held_out)))


def unit_rows(x: Floats) -> Floats:
    """Rows of (n, D) divided by their length, in x's own dtype; a zero row becomes NaN."""
    wide = x.astype(np.float64, copy=False)
    return np.asarray(wide / np.sqrt(row_dot(wide))[:, None], dtype=x.dtype)


def join_views(views: Sequence[Floats], *, normalise: bool) -> npt.NDArray[np.float32]:
    """The mean of one (n, D) array per view, each row on the unit sphere first where ``normalise``: float32."""
    if len(views) == 1:
        return views[0].astype(np.float32, copy=False)
    parts = [unit_rows(view.astype(np.float64)) if normalise else view.astype(np.float64) for view in views]
    joined: npt.NDArray[np.float32] = np.mean(parts, axis=0).astype(np.float32)
    return joined


def _scorer(manifest: GateManifest, arrays: Arrays, dtype: type[np.floating[Any]]) -> _Scorer:
    members = []
    for member in manifest.members:
        prefix = f"{member.name}."
        own = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        built = build_member(member.kind, member.covariance, own, dtype)
        if built.size != manifest.features.size:
            raise GateError(
                f"member {member.name!r} takes {built.size} features, the manifest says {manifest.features.size}"
            )
        members.append(built)
    return _Scorer(tuple(members), dtype)


def _held_out_scores(arrays: Arrays) -> Float64:
    scores = arrays.get("conformal.scores")
    if scores is None or scores.dtype != np.float64 or scores.ndim != 1 or not len(scores):
        raise GateError("array 'conformal.scores' must hold the held-out positives' scores (float64, one axis)")
    return np.sort(scores)


def _check_finite(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise GateError(f"array {name!r} holds numbers that are not finite; fit the gate again")
