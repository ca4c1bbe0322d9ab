"""Whether a quantised variant decides as its float model does: the same gate, the same pictures, both models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrate.gather import gather
from calibrate.metrics import auroc
from calibrate.options import chosen_cache
from calibrate.samples import Samples
from edge.gate import Gate, GateScores
from edge.gate_file import load_gate
from edge.parity import GateParity, ParityReport, Side, SpeciesParity, load_report, report_path
from engines import Engine, ModelError, ModelSpec, UsageError, open_engine
from engines.base import Device

MAX_AUROC_LOSS = 0.003
MAX_FLIPPED = 0.02


@dataclass(frozen=True, slots=True)
class Pictures:
    """Folders as ``calibrate fit`` takes them, and where features are kept."""

    positives: Path
    negatives: Sequence[Path] = ()
    cache: Path | None = None
    without_cache: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant may lose: AUROC, and the share of pictures whose decision changes."""

    auroc_loss: float = MAX_AUROC_LOSS
    flipped: float = MAX_FLIPPED


def measure_parity(
    gate: Path, model: Path, variant: Path, pictures: Pictures, limits: Limits, device: Device, threads: int | None
) -> GateParity:
    """Judge ``pictures`` through both models.

    Raises:
        ModelError: ``variant`` does not descend from ``model``.
        UsageError: the two models could read different pictures.
    """
    before = _judged(gate, model, pictures, device, threads)
    after = _judged(gate, variant, pictures, device, threads)
    if before.spec.origin != after.spec.origin or before.spec.sha256 == after.spec.sha256:
        raise ModelError(
            f"{variant}: is no variant of {model} (origin {after.spec.origin[:12]}…, expected "
            f"{before.spec.origin[:12]}…); give the float model that it was made from"
        )
    if before.samples.digests != after.samples.digests:
        raise UsageError("the two models gave features for different pictures; mend the pictures named above")
    return _compared(before, after, limits)


def write_parity(variant: Path, origin: str, entry: GateParity | SpeciesParity) -> Path:
    """Put ``entry`` into the report beside ``variant``, in place of an older one of that gate or of species."""
    path = report_path(variant)
    digest = entry.after if isinstance(entry, SpeciesParity) else entry.after.sha256
    report = ParityReport(variant=digest, origin=origin)
    if path.is_file():
        old = load_report(path)
        report = old if old.variant == digest else report
    if isinstance(entry, SpeciesParity):
        changed: dict[str, Any] = {"species": entry}
    else:
        changed = {"gates": (*(one for one in report.gates if one.gate != entry.gate), entry)}
    report = report.model_copy(update=changed)
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written ({error.strerror}); the folder must be writable") from error
    return path


@dataclass(frozen=True, slots=True)
class _Judged:
    spec: ModelSpec
    gate: Gate
    samples: Samples
    scores: GateScores


def _judged(gate: Path, model: Path, pictures: Pictures, device: Device, threads: int | None) -> _Judged:
    with open_engine(model, device, threads=threads) as engine:
        loaded = load_gate(gate, features=engine.spec)
        samples = _samples(engine, loaded, pictures)
        return _Judged(engine.spec, loaded, samples, loaded.judge(samples.features))


def _samples(engine: Engine, gate: Gate, pictures: Pictures) -> Samples:
    kept = chosen_cache(pictures.cache, pictures.without_cache, engine)
    return gather(
        engine, pictures.positives, pictures.negatives, gate.views, normalise=gate.manifest.normalise, cache=kept
    )


def _compared(before: _Judged, after: _Judged, limits: Limits) -> GateParity:
    sides = [_side(before), _side(after)]
    was, now = before.scores.accepted, after.scores.accepted
    flipped = int((was != now).sum())
    fault = _fault(sides, flipped / len(was), limits)
    cosine = _cosines(before.samples, after.samples)
    return GateParity(
        gate=before.gate.name,
        passed=fault is None,
        verdict=fault or "decides as its origin does",
        before=sides[0],
        after=sides[1],
        positives=before.samples.positives,
        negatives=before.samples.negatives,
        flipped=flipped,
        lost=int((was & ~now).sum()),
        gained=int((now & ~was).sum()),
        cosine=round(float(cosine.mean()), 6),
        worst_cosine=round(float(cosine.min()), 6),
        seen=before.samples.digest() == before.gate.manifest.training.digest,
        max_auroc_loss=limits.auroc_loss,
        max_flipped=limits.flipped,
    )


def _side(judged: _Judged) -> Side:
    positive, scores = judged.samples.positive, judged.scores
    negatives = judged.samples.negatives > 0
    if not scores.finite.all():
        raise ModelError(f"{judged.spec.name}: its features give scores that are not finite numbers")
    return Side(
        sha256=judged.spec.sha256,
        auroc=auroc(scores.score[positive], scores.score[~positive]) if negatives else None,
        recall=float(scores.accepted[positive].mean()),
        false_accepts=float(scores.accepted[~positive].mean()) if negatives else None,
    )


def _fault(sides: Sequence[Side], flipped: float, limits: Limits) -> str | None:
    """Which limit is broken, in words."""
    before, after = sides
    if before.auroc is not None and after.auroc is not None and before.auroc - after.auroc > limits.auroc_loss:
        return f"AUROC falls from {before.auroc:.4f} to {after.auroc:.4f}, {limits.auroc_loss:g} is allowed"
    if flipped > limits.flipped:
        return f"{flipped:.1%} of the decisions change, {limits.flipped:.1%} are allowed"
    return None


def _cosines(before: Samples, after: Samples) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    x, y = before.features.astype(np.float64), after.features.astype(np.float64)
    return (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))  # type: ignore[no-any-return]
