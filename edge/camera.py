"""What the worker remembers of one camera, for the status page and the metrics."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from edge.meters import Rate, Tally
from edge.records import Outcome, Verdict

TRUTHS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Truth:
    """What a frame truly shows, where that is known (simulated cameras)."""

    text: str
    positive: bool


@dataclass(slots=True)
class CameraLog:
    """Counters, the last verdict and the serials of the pictures that stand for it.

    ``picture`` is the last frame; ``pinned`` the one that the last snapshot named, kept so that a page which
    asks for it a moment later gets the picture that belongs to the verdict it shows.
    """

    camera: str
    rate: Rate
    received: int = 0
    received_bytes: int = 0
    verdicts: dict[str, int] = field(default_factory=lambda: {outcome.value: 0 for outcome in Outcome})
    dropped: Tally = field(default_factory=lambda: Tally(8))
    deadletters: int = 0
    reused: int = 0
    right: int = 0
    wrong: int = 0
    last: Verdict | None = None
    last_s: float = 0.0
    picture: int | None = None
    pinned: int | None = None
    shown_truth: Truth | None = None
    truths: OrderedDict[str, Truth] = field(default_factory=OrderedDict)

    def expect(self, truth: Truth, frame_id: str | None) -> None:
        """Remember what the frame ``frame_id`` shows; without an id, what the next verdict's frame shows."""
        self.truths[frame_id or ""] = truth
        while len(self.truths) > TRUTHS_KEPT:
            self.truths.popitem(last=False)

    def judge(self, verdict: Verdict, now: float) -> None:
        """Take over a verdict and compare it with the truth, where one is known."""
        self.rate.add(now)
        self.verdicts[verdict.verdict.value] += 1
        self.reused += verdict.reused
        self.last, self.last_s = verdict, now
        self.shown_truth = self.truths.pop(verdict.frame_id or "", None) or self.truths.pop("", None)
        right = self.is_right()
        self.right += right is True
        self.wrong += right is False

    def is_right(self) -> bool | None:
        """Whether the last verdict agrees with the truth; ``None`` when either says nothing."""
        if self.last is None or self.shown_truth is None:
            return None
        if self.last.verdict not in (Outcome.POSITIVE, Outcome.NEGATIVE):
            return None
        return (self.last.verdict is Outcome.POSITIVE) == self.shown_truth.positive

    def row(self, now: float) -> dict[str, Any]:
        """The camera as JSON-able data; ages in seconds, rates per second."""
        return {
            "camera": self.camera,
            "age_s": round(now - self.last_s, 2) if self.last else None,
            "fps": round(self.rate.per_second(now), 2),
            "received": self.received,
            "received_bytes": self.received_bytes,
            "verdicts": dict(self.verdicts),
            "dropped": self.dropped.counts(),
            "deadletters": self.deadletters,
            "reused": self.reused,
            "picture": self.picture,
            "last": describe(self.last) if self.last else None,
            "truth": self.truth_row(),
            "right": self.right,
            "wrong": self.wrong,
        }

    def truth_row(self) -> dict[str, Any] | None:
        """What the last judged frame showed, and whether the verdict agrees; ``None`` where no truth is known."""
        if self.shown_truth is None:
            return None
        return {"text": self.shown_truth.text, "positive": self.shown_truth.positive, "right": self.is_right()}


def describe(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the status page shows it: strict JSON, numbers that are not finite become null."""
    size = {"width": verdict.width, "height": verdict.height} if verdict.width and verdict.height else None
    return {
        "id": verdict.id,
        "verdict": verdict.verdict.value,
        "frame_id": verdict.frame_id,
        "captured_at": finite(verdict.captured_at),
        "judged_at": finite(verdict.judged_at),
        "probability": finite(verdict.probability),
        "p_value": finite(verdict.p_value),
        "threshold": finite(verdict.threshold),
        "score": finite(verdict.score),
        "species": [{"label": s.label, "probability": finite(s.probability)} for s in verdict.species[:10]],
        "reused": verdict.reused,
        "redelivered": verdict.redelivered,
        "image": size,
        "latency_ms": {stage: finite(ms) for stage, ms in verdict.latency_ms.items()},
        "error": verdict.error[:500] if verdict.error else None,
    }


def finite(value: float | None) -> float | None:
    """``value``, or ``None`` where JSON has no word for it."""
    return float(value) if value is not None and math.isfinite(value) else None
