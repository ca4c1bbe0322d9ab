"""The cascade: frames in, verdicts out. A plain function of frames: no I/O, no threads, its clocks are arguments.

    features of the whole batch -> gate on the whole batch -> species for the positives

``judge`` is three steps, between which the caller may begin another batch while the device computes this one: ``begin``
gives the engine the inputs, ``collect`` waits for the features, ``finish`` decides.

A NaN or an infinity after any stage makes an error verdict of the frames it touches, never a label: NaN compares
false with every threshold and wins every argmax, so it would otherwise answer "no animal" or name a species.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.gate import Gate, GateScores
from edge.gate_math import Float64
from edge.records import Float32, Frame, Outcome, Species, Verdict
from edge.verdict import verdict_id
from edge.views import view_of
from engines import Engine, Pending, prepare_input


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a camera's line between positive and negative runs, and the band around it that stays undecided.

    Both in [0, 1], compared with the probability, or with the p-value where the gate has no probability.
    """

    threshold: float
    abstain: tuple[float, float] | None = None

    def outcome(self, value: float) -> Outcome:
        """The verdict for ``value`` in [0, 1]; the band includes its lower end, the threshold decides otherwise."""
        if self.abstain is not None and self.abstain[0] <= value < self.abstain[1]:
            return Outcome.UNCERTAIN
        return Outcome.POSITIVE if value >= self.threshold else Outcome.NEGATIVE


@dataclass(frozen=True, slots=True)
class _Answer:
    """The gate's numbers for one frame; all None where there is no answer."""

    probability: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """Frames whose features are being computed, one answer ``pending`` for each view; ``good`` are those with pixels.

    ``at_s`` is monotonic. Only the cascade that began them can go on with them.
    """

    frames: list[Frame]
    good: list[Frame]
    pending: list[Pending]
    at_s: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """Frames with the ``features`` (n, d) float32 of the ``good`` ones, and the milliseconds that those took."""

    frames: list[Frame]
    good: list[Frame]
    features: Float32 | None
    took_ms: float


class Cascade:
    """Two engines and a gate, joined.

    Args:
        features: engine with task ``features``.
        gate: fitted on that engine's origin.
        species: engine with task ``classifier``, or None for a gate alone.
        worker: the worker's name, written into each verdict.
        limits: the decision line per camera; the key None holds the default.
        top: number of species listed in a positive verdict.
        clock: monotonic seconds. wall: epoch seconds.
    """

    def __init__(
        self,
        features: Engine,
        gate: Gate,
        species: Engine | None,
        *,
        worker: str,
        limits: dict[str | None, Limits],
        top: int,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.features = features
        self.gate = gate
        self.species = species
        self._worker = worker
        self._limits = limits
        self._top = top
        self._clock = clock
        self._wall = wall
        engines: dict[str, Engine] = {"features": features}
        if species is not None:
            engines["species"] = species
        self.models = {task: f"sha256:{engine.spec.sha256}" for task, engine in engines.items()}
        self._origins = tuple(engine.spec.origin for engine in engines.values())
        self._gate_name = f"sha256:{gate.sha256}"

    @property
    def overlaps(self) -> bool:
        """Whether the device computes one batch while the next is begun; else ``begin`` computes, and nothing waits."""
        return self.features.in_flight > 1

    def judge(self, frames: Sequence[Frame]) -> list[Verdict]:
        """One verdict per frame, in the same order.

        Raises:
            EngineRunError: an engine failed; no frame of the batch has been judged.
        """
        return self.finish(self.collect(self.begin(frames)))

    def begin(self, frames: Sequence[Frame]) -> Begun:
        """Give the feature engine the frames' inputs. Raises EngineRunError, for these frames alone.

        All views of the gate are in flight before the first answer is waited for.
        """
        good = [frame for frame in frames if frame.error is None]
        began = self._clock()
        pending: list[Pending] = []
        if good:
            batch = np.stack([frame.features_input for frame in good if frame.features_input is not None])
            spec = self.features.spec.input
            pending = [self.features.submit(view_of(batch, view, spec)) for view in self.gate.views]
        return Begun(list(frames), good, pending, began)

    def collect(self, begun: Begun) -> Embedded:
        """Wait for the features, averaged over the gate's views as ``edge.gate`` says.

        Their time runs from ``begin``, and so holds what the device did before for another batch.

        Raises:
            EngineRunError: the engine failed on these frames.
        """
        features = self.gate.join_views([one.result() for one in begun.pending]) if begun.pending else None
        return Embedded(begun.frames, begun.good, features, 1000 * (self._clock() - begun.at_s))

    def finish(self, embedded: Embedded) -> list[Verdict]:
        """One verdict per frame that was begun, in the same order.

        Raises:
            EngineRunError: the species engine failed; no frame of the batch has been judged.
        """
        verdicts = self._decide_all(embedded.good, embedded.features, embedded.took_ms)
        judged = {id(frame): verdict for frame, verdict in zip(embedded.good, verdicts, strict=True)}
        return [
            judged.get(id(frame)) or self.error(frame, frame.error or "the frame has no pixels")
            for frame in embedded.frames
        ]

    def error(self, frame: Frame, sentence: str) -> Verdict:
        """The error verdict of ``frame``."""
        return self._verdict(frame, Outcome.ERROR, {}, error=sentence)

    def reuse(self, frame: Frame, last: Verdict) -> Verdict:
        """The verdict of an unchanged ``frame``: the camera's ``last`` answer under the frame's own identity."""
        answer = _Answer(last.probability, last.p_value, last.threshold, last.score)
        return self._verdict(frame, last.verdict, {}, answer).replace(species=last.species, reused=True)

    def _decide_all(self, frames: list[Frame], features: Float32 | None, took_ms: float) -> list[Verdict]:
        if features is None:
            return []
        began = self._clock()
        scores = self.gate.judge(features)
        stages = {"features": took_ms, "gate": 1000 * (self._clock() - began)}
        p_values = scores.p_value
        verdicts = [self._decide(frame, scores, p_values, row, stages) for row, frame in enumerate(frames)]
        return self._name_species(frames, verdicts)

    def _decide(
        self, frame: Frame, scores: GateScores, p_values: Float64, row: int, stages: dict[str, float]
    ) -> Verdict:
        if not scores.finite[row]:
            return self._verdict(frame, Outcome.ERROR, stages, error="the features or the gate's score are not finite")
        limits = self._limits.get(frame.raw.camera, self._limits[None])
        answer = _Answer(
            probability=None if scores.probability is None else float(scores.probability[row]),
            p_value=float(p_values[row]),
            threshold=limits.threshold,
            score=float(scores.score[row]),
        )
        decisive = float(p_values[row]) if answer.probability is None else answer.probability
        return self._verdict(frame, limits.outcome(decisive), stages, answer)

    def _name_species(self, frames: list[Frame], verdicts: list[Verdict]) -> list[Verdict]:
        rows = [row for row, verdict in enumerate(verdicts) if verdict.verdict is Outcome.POSITIVE]
        if self.species is None or not rows:
            return verdicts
        began = self._clock()
        spec = self.species.spec
        batch = np.stack(
            [prepare_input(pixels, spec.input) for row in rows if (pixels := frames[row].pixels) is not None]
        )
        answers = self.species.infer(batch)
        probabilities = as_probabilities(answers, spec.output.kind)
        probabilities[~np.isfinite(answers).all(axis=1)] = np.nan  # a softmax makes a zero of a logit of -inf
        stages = {"species": 1000 * (self._clock() - began)}
        for row, answer in zip(rows, probabilities, strict=True):
            verdicts[row] = self._with_species(frames[row], verdicts[row], answer, stages)
        return verdicts

    def _with_species(self, frame: Frame, verdict: Verdict, answer: Float32, stages: dict[str, float]) -> Verdict:
        labels = self.species.spec.labels if self.species is not None else None
        if not np.isfinite(answer).all():
            return self._verdict(frame, Outcome.ERROR, stages, error="the species engine's answer is not finite")
        best = np.argsort(-answer, kind="stable")[: self._top]
        named = tuple(
            Species(labels[i] if labels is not None else str(i), float(np.clip(answer[i], 0.0, 1.0))) for i in best
        )
        latency = {**verdict.latency_ms, **_rounded(stages)}
        return verdict.replace(species=named, latency_ms=self._finish(latency, frame), judged_at=self._wall())

    def _verdict(
        self,
        frame: Frame,
        outcome: Outcome,
        stages: dict[str, float],
        answer: _Answer | None = None,
        *,
        error: str | None = None,
    ) -> Verdict:
        answer = answer or _Answer()
        raw = frame.raw
        latency = {
            "queue": 1000 * (frame.taken_s - raw.received_s),
            "decode": 1000 * (frame.decoded_s - frame.taken_s),
            **stages,
        }
        return Verdict(
            id=verdict_id(frame, self._origins, self._gate_name),
            camera=raw.camera,
            verdict=outcome,
            judged_at=self._wall(),
            gate=self._gate_name,
            models=self.models,
            worker=self._worker,
            frame_id=frame.frame_id,
            captured_at=frame.captured_at,
            dropped_before=raw.dropped_before,
            redelivered=raw.redelivered,
            width=frame.width,
            height=frame.height,
            latency_ms=self._finish(_rounded(latency), frame),
            error=error,
            probability=answer.probability,
            p_value=answer.p_value,
            threshold=answer.threshold,
            score=answer.score,
        )

    def _finish(self, latency: dict[str, float], frame: Frame) -> dict[str, float]:
        return {**latency, "total": round(1000 * (self._clock() - frame.raw.received_s), 3)}


def as_probabilities(answer: Float32, kind: str) -> Float32:
    """Class probabilities (n, classes) from what a classifier gave: softmax of ``logits``, else unchanged."""
    if kind != "logits":
        return answer
    with np.errstate(invalid="ignore"):  # an infinite logit becomes NaN, and the caller refuses that
        exponent = np.exp(answer - answer.max(axis=1, keepdims=True))
        result: Float32 = exponent / exponent.sum(axis=1, keepdims=True)
    return result


def _rounded(stages: dict[str, float]) -> dict[str, float]:
    return {stage: round(max(0.0, value), 3) for stage, value in stages.items()}
