"""One row through the classic recipe, in plain numbers once the large product is done.

Beside a product of 50 microseconds every numpy call counts: on one row, float arithmetic over a mixture's few terms and
a bisection among an isotonic's knots take a third of what their array forms do (``calibrate bench-gate``). The score
is a float32 one, so the gate checks it like any other.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from edge.gate_math import Float64, Floats, IsotropicMixture, MemberScore

RowScore = Callable[[Floats], float]
Curve = Callable[[float], float]


def row_score(members: Sequence[MemberScore]) -> RowScore | None:
    """The score of one row (1, D) where the only member is a spherical mixture, else None; NaN if not finite."""
    member = members[0]
    if len(members) > 1 or not isinstance(member, IsotropicMixture) or not member.spherical:
        return None
    centre, projection = member.centre, member.projection
    linear = member.table[:-2].astype(projection.dtype)
    halves: list[float] = member.table[-2].tolist()
    constants: list[float] = member.table[-1].tolist()
    by_component = list(zip(halves, constants, strict=True))

    def score(x: Floats) -> float:
        z = (x[0].astype(centre.dtype, copy=False) - centre).dot(projection)
        square = float(z.dot(z))
        products: list[float] = z.dot(linear).tolist()
        terms = [p + square * half + constant for p, (half, constant) in zip(products, by_component, strict=True)]
        top = max(terms)
        if not math.isfinite(top):
            return math.nan
        return top + math.log(sum([math.exp(term - top) for term in terms]))

    return score


def knots_curve(x: Float64, y: Float64) -> Curve:
    """``numpy.interp(s, x, y)`` for one number: linear between rising knots (n,), constant outside them."""
    at: list[float] = x.tolist()
    values: list[float] = y.tolist()
    last = len(at)

    def interpolate(s: float) -> float:
        i = bisect_right(at, s)
        if i in (0, last):
            return values[0] if i == 0 else values[-1]
        left, low = at[i - 1], values[i - 1]
        return low + (s - left) * ((values[i] - low) / (at[i] - left))

    return interpolate
