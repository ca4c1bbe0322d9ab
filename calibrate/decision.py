"""Where a gate draws its line: from what is wanted of it, on held-out values of what decides."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import numpy as np

from calibrate.chooser import Rules, Use, choose, proof_of_precision, proof_of_promise
from calibrate.curves import steps
from calibrate.samples import Booleans, Float64
from calibrate.thresholds import abstain_band
from edge.gate_manifest import Decision
from engines import UsageError

log = logging.getLogger(__name__)

By = Literal["probability", "p_value"]
Aim = Literal["value", "recall", "promise", "precision", "false_a_day", "cost"]
DEFAULT: dict[By, float] = {"probability": 0.5, "p_value": 0.05}
_SHARES = ("value", "recall", "promise", "precision")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a threshold: a ``value`` for itself, or an ``amount`` of one of the rules of
    :func:`calibrate.chooser.choose`, where the gate will be used as ``use`` says."""

    aim: Aim
    amount: float
    use: Use = field(default_factory=Use)

    def __str__(self) -> str:
        if self.aim == "value":
            return f"{self.amount:g}"
        told = f"{self.aim}:{self.amount:g}"
        return told if self.aim in ("recall", "promise") else f"{told} where {self.use.prior:g} of frames are positive"

    def threshold(self, decisive: Float64, positive: Booleans) -> float:
        """The threshold that held-out ``decisive`` values (n,) of pictures that are ``positive`` (n,) or not give.

        It lies midway between two pictures, so that the last bit of a number decides nothing.

        Raises:
            UsageError: no threshold keeps what is wanted, or it takes negatives and there are none.
        """
        if self.aim == "value":
            return self.amount
        if self.aim not in ("recall", "promise") and positive.all():
            raise UsageError(f"--threshold {self.aim}: says something about negatives, and there are none")
        rules = Rules(**{_RULE[self.aim]: self.amount})
        ladder = steps(decisive, positive, DEFAULT["probability"])
        found = choose(ladder, rules, self.use)[self.aim]
        # The lowest step of a ladder accepts everything: as an answer it says that nothing else would do.
        if found is None or found <= ladder[0].threshold:
            raise UsageError(f"no threshold gives {self}{self._why(decisive, positive, rules)}")
        return found

    def _why(self, decisive: Float64, positive: Booleans, rules: Rules) -> str:
        if self.aim == "promise":
            return f". {proof_of_promise(int(positive.sum()), rules)}"
        if self.aim == "precision":
            return f". {proof_of_precision(int((~positive).sum()), self.use, rules)}"
        return f" on these {len(decisive)} pictures: ask for less, or give more pictures"


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

    Raises:
        UsageError: what is wanted cannot be had of these pictures, or the band does not hold the threshold.
    """
    threshold = DEFAULT[by] if wish is None else wish.threshold(decisive, positive)
    band = None if alpha is None else _band(alpha, decisive, positive)
    if band is not None and not band[0] <= threshold <= band[1]:
        raise UsageError(
            f"--abstain {alpha:g} gives the band {band[0]:.4g} to {band[1]:.4g}, which does not hold the threshold "
            f"{threshold:.4g}; choose a --threshold inside, or a smaller share for a wider band"
        )
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
