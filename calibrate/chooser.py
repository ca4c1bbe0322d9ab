"""Which threshold to take, by intention, and what it implies in use; what a sample of this size can prove."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from calibrate.curves import Step
from calibrate.metrics import clopper_pearson
from calibrate.thresholds import positives_needed, rejected_with_confidence

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Use:
    """Where the gate will be used: the share of frames that show the animal, and frames a day.

    ``estimate`` says how the share was estimated, JSON-able; None where it was stated.
    """

    prior: float = 0.02
    frames: float = 10_000.0
    estimate: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What is wanted of a threshold; ``cost_ratio`` is what a missed picture costs in false alarms."""

    recall: float = 0.95
    precision: float = 0.9
    false_a_day: float = 10.0
    cost_ratio: float = 5.0


def implied(step: Step, use: Use) -> dict[str, Any]:
    """Numbers a day at ``use``, and the precision; intervals combine the worse ends of recall's and false accepts'."""
    positives, negatives = use.prior * use.frames, (1.0 - use.prior) * use.frames
    numbers: dict[str, Any] = {"true_a_day": positives * step.recall, "missed_a_day": positives * (1.0 - step.recall)}
    if step.false_accepts is None or step.false_ci95 is None:
        return numbers
    false = negatives * step.false_accepts
    low, high = (negatives * end for end in step.false_ci95)
    return numbers | {
        "false_a_day": false,
        "false_a_day_ci95": (low, high),
        "accepted_a_day": numbers["true_a_day"] + false,
        "precision": _precision(numbers["true_a_day"], false),
        "precision_ci95": (
            _precision(positives * step.recall_ci95[0], high),
            _precision(positives * step.recall_ci95[1], low),
        ),
    }


def choose(steps: Sequence[Step], rules: Rules, use: Use) -> dict[str, float | None]:
    """The threshold for each rule, None where no threshold keeps it.

    ``recall``: the highest threshold with that recall here. ``promise``: the highest that promises it for fresh
    positives with confidence 0.95, whatever their scores' distribution (an order statistic). ``precision`` and
    ``false_a_day``: the lowest that keeps it. ``cost``: the one with the smallest cost of misses and false alarms.
    """
    chosen: dict[str, float | None] = {
        "recall": _last(steps, lambda step: step.recall >= rules.recall),
        "promise": _promised(steps, rules.recall),
    }
    if steps[0].false_accepts is None:
        return chosen
    chosen["precision"] = _first(steps, lambda step: (implied(step, use)["precision"] or 0.0) >= rules.precision)
    chosen["false_a_day"] = _first(steps, lambda step: implied(step, use)["false_a_day"] <= rules.false_a_day)
    chosen["cost"] = min(steps, key=lambda step: _cost(implied(step, use), rules)).threshold
    return chosen


def negatives_needed(prior: float, recall: float, precision: float, confidence: float = CONFIDENCE) -> int:
    """Negatives that must all be refused to prove, one-sided, that ``precision`` holds at ``prior`` and ``recall``."""
    most = most_false_accepts(prior, recall, precision)
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-most))


def most_false_accepts(prior: float, recall: float, precision: float) -> float:
    """The share of negatives that may be accepted: recall * prior * (1 - q) / (q * (1 - prior)), below 1."""
    return min(recall * prior * (1.0 - precision) / (precision * (1.0 - prior)), 1.0 - 1e-9)


def proof_of_recall(hits: int, n: int, kinds: int) -> str:
    """What ``hits`` of ``n`` held-out positives in ``kinds`` folders say."""
    low, high = clopper_pearson(hits, n)
    words = f"{hits} of {n} held-out positives are accepted: the recall lies between {low:.1%} and {high:.1%} (95 %)"
    if kinds > 1:
        return f"{words}, for kinds such as these {kinds}; a kind that is unlike all of them may fare worse."
    return f"{words}. They lie in one folder, so nothing is known about kinds that it does not hold."


def proof_of_promise(n: int, rules: Rules) -> str:
    """Whether ``n`` held-out positives can promise the recall that is wanted."""
    may_miss = rejected_with_confidence(n, 1.0 - rules.recall, CONFIDENCE) - 1
    words = f"Recall {rules.recall:.0%} with confidence {CONFIDENCE:.0%}"
    if may_miss < 0:
        return f"{words} cannot be promised from {n} positives: at least {positives_needed(rules.recall)} are needed."
    return f"{words} is promised by a threshold that misses at most {may_miss} of these {n} positives."


def proof_of_refusal(name: str, hits: int, n: int) -> str:
    """What ``hits`` false accepts among ``n`` negatives of ``name`` say, and what none would have said."""
    low, high = clopper_pearson(hits, n)
    best = clopper_pearson(0, n)[1]
    words = f"{name}: {hits} of {n} accepted, so the share lies between {low:.2%} and {high:.2%} (95 %)."
    return f"{words} Had none of {n} been accepted, that would have proven less than {best:.2%}." if hits else words


def proof_of_precision(n: int, use: Use, rules: Rules) -> str:
    """How many negatives a stated precision takes, against the ``n`` there are."""
    needed = negatives_needed(use.prior, rules.recall, rules.precision)
    most = most_false_accepts(use.prior, rules.recall, rules.precision)
    verdict = "there are enough, if none is accepted" if n >= needed else f"these {n} cannot prove it"
    return (
        f"Precision {rules.precision:.0%} where {use.prior:.2%} of frames are positive, at recall {rules.recall:.0%}, "
        f"needs at most {most:.3%} false accepts: {needed:,} negatives without one error; {verdict}."
    )


def _promised(steps: Sequence[Step], recall: float) -> float | None:
    """Accepting from the k-th smallest score on misses k - 1 of those here; k from :mod:`calibrate.thresholds`."""
    n = round(steps[0].true_accepts / steps[0].recall) if steps[0].recall else 0
    k = rejected_with_confidence(n, 1.0 - recall, CONFIDENCE)
    return _last(steps, lambda step: step.true_accepts > n - k)


def _precision(true: float, false: float) -> float | None:
    return true / (true + false) if true + false > 0 else None


def _cost(numbers: dict[str, Any], rules: Rules) -> float:
    return float(rules.cost_ratio * numbers["missed_a_day"] + numbers["false_a_day"])


def _first(steps: Sequence[Step], holds: Callable[[Step], bool]) -> float | None:
    return next((step.threshold for step in steps if holds(step)), None)


def _last(steps: Sequence[Step], holds: Callable[[Step], bool]) -> float | None:
    return next((step.threshold for step in reversed(steps) if holds(step)), None)
