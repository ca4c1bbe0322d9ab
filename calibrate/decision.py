"""Where a gate draws its line: from what is wanted of it, on held-out values of what decides."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Literal, cast, get_args

import numpy as np

from calibrate.chooser import Rules, Use, choose, proof_of_precision, proof_of_promise
from calibrate.curves import Step, steps
from calibrate.samples import Booleans, Float64
from calibrate.thresholds import abstain_band
from edge.gate_manifest import Decision
from engines import UsageError

log = logging.getLogger(__name__)

By = Literal["probability", "p_value"]
Aim = Literal["value", "recall", "promise", "precision", "false_a_day", "cost"]
DEFAULT: dict[By, float] = {"probability": 0.5, "p_value": 0.05}
STEPS = 4000  # thresholds looked at; what one of them decides is a fraction of a per mille then
_SHARES = ("value", "recall", "promise", "precision")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a threshold: a ``value`` for itself, or an ``amount`` of one of the rules of
    :func:`calibrate.chooser.choose`, where the gate will be used as ``use`` says."""

    aim: Aim
    amount: float
    use: Use = field(default_factory=Use)

    def __str__(self) -> str:
        if self.aim in ("value", "recall", "promise"):
            return self.text
        return f"{self.text} where {self.use.prior:g} of frames are positive"

    @property
    def text(self) -> str:
        """As :func:`parse_wish` reads it."""
        return repr(self.amount) if self.aim == "value" else f"{self.aim}:{self.amount!r}".removesuffix(".0")

    def threshold(self, decisive: Float64, positive: Booleans) -> float:
        """The threshold that held-out ``decisive`` values (n,) of pictures that are ``positive`` (n,) or not give.

        One false accept more than was seen is counted at each, so that a few negatives prove nothing.

        Raises:
            UsageError: no threshold keeps what is wanted, or it takes negatives and there are none.
        """
        if self.aim == "value":
            return self.amount
        if self.aim not in ("recall", "promise") and positive.all():
            raise UsageError(f"--threshold {self.aim}: says something about negatives, and there are none")
        rules = Rules(**{_RULE[self.aim]: self.amount})
        ladder = [_careful(step, int((~positive).sum())) for step in steps(decisive, positive, None, STEPS)]
        found = choose(ladder, rules, self.use)[self.aim]
        if found is None:
            raise UsageError(f"no threshold gives {self}{self._why(decisive, positive, rules)}")
        if found <= ladder[0].threshold:
            log.warning("%s: the threshold for it, %g, accepts every picture here", self, found)
        return found

    def _why(self, decisive: Float64, positive: Booleans, rules: Rules) -> str:
        if self.aim == "promise":
            return f". {proof_of_promise(int(positive.sum()), rules)}"
        if self.aim == "precision":
            every = replace(rules, recall=1.0)  # the easiest case
            return f". {proof_of_precision(int((~positive).sum()), self.use, every)}"
        return f" on these {len(decisive)} pictures: ask for less, or give more pictures"


def _careful(step: Step, negatives: int) -> Step:
    if not negatives:
        return step
    return replace(step, false_accepts=min(step.false_count + 1, negatives) / negatives)


_RULE: dict[Aim, str] = {
    "recall": "recall",
    "promise": "recall",
    "precision": "precision",
    "false_a_day": "false_a_day",
    "cost": "cost_ratio",
}


def parse_wish(text: str, use: Use) -> Wish:
    """``0.7``, or a rule and its amount as ``promise:0.95``, ``precision:0.9``, ``false_a_day:10`` or ``cost:5``.

    Raises :class:`UsageError` for anything else, and for shares outside (0, 1).
    """
    aim, colon, amount = text.partition(":") if ":" in text else ("value", "", text)
    try:
        number = float(amount)
    except ValueError:
        number = np.nan
    if aim not in get_args(Aim) or (aim == "value") == bool(colon) or not number > 0.0 or not np.isfinite(number):
        rules = ", ".join(f"{name}:AMOUNT" for name in _RULE)
        raise UsageError(f"--threshold wants a number between 0 and 1, or one of {rules}, not {text!r}")
    if aim in _SHARES and not number < 1.0:
        raise UsageError(f"--threshold {text} must lie between 0 and 1")
    if not 0.0 < use.prior < 1.0:
        raise UsageError(f"--prior is a share and must lie between 0 and 1, not {use.prior:g}")
    if not 0.0 < use.frames < 1e12:
        raise UsageError(f"--frames-a-day must be a positive number, not {use.frames:g}")
    return Wish(cast(Aim, aim), number, use)


def decide(by: By, wish: Wish | None, alpha: float | None, decisive: Float64, positive: Booleans) -> Decision:
    """The decision on held-out ``decisive`` values (n,) of pictures that are ``positive`` (n,) or not.

    ``alpha`` asks for a band of uncertain verdicts: below it lie at most that share of fresh positives, above it at
    most that share of fresh negatives (conformal, on average over draws of the held-out pictures).

    A threshold outside makes the band reach to it.

    Raises:
        UsageError: what is wanted cannot be had of these pictures.
    """
    threshold = DEFAULT[by] if wish is None else wish.threshold(decisive, positive)
    band = None if alpha is None else _band(alpha, decisive, positive)
    if band is not None:
        band = min(band[0], threshold), max(band[1], threshold)
    return Decision(by=by, threshold=threshold, abstain=band)


def _band(alpha: float, decisive: Float64, positive: Booleans) -> tuple[float, float] | None:
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"--abstain is a share and must lie between 0 and 1, not {alpha:g}")
    if positive.all():
        raise UsageError("--abstain takes negatives: the band reaches up to where they end")
    low, high = abstain_band(decisive[positive], decisive[~positive], alpha)
    if low >= high:
        log.warning("--abstain %g: positives and negatives overlap less than that, so there is no band", alpha)
        return None
    return low, min(high, 1.0)
