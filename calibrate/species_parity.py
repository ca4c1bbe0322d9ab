"""Whether a quantised species classifier names what its float model names: the same pictures through both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibrate.metrics import clopper_pearson
from edge.cascade import as_probabilities
from edge.parity import SpeciesParity
from engines import ModelError, ModelSpec, UsageError, open_engine
from engines.base import Device
from engines.console import track
from engines.pictures import batches, find_pictures

Float32 = npt.NDArray[np.float32]

MIN_AGREEMENT = 0.90
MAX_CONFIDENT_FLIPPED = 0.02
CONFIDENT = 0.5  # more probable than all other classes together
_BATCH = 8
_TWO_SIDED = 0.90  # whose lower end holds with 95 %


@dataclass(frozen=True, slots=True)
class SpeciesLimits:
    """What a variant must keep.

    ``agreement``: on so large a share of pictures the best class stays, with a confidence of 95 % (Clopper and
    Pearson), so that few pictures prove little: 29 that all agree are the fewest for 0.9. Nearly all that change are
    pictures on which two species were about equal. ``confident_flipped``: the share that may change of pictures on
    which the float model is surer of one class than of all others together.
    """

    agreement: float = MIN_AGREEMENT
    confident_flipped: float = MAX_CONFIDENT_FLIPPED


@dataclass(frozen=True, slots=True)
class Named:
    """What a classifier said: its ``spec`` and probabilities (n, K)."""

    spec: ModelSpec
    probabilities: Float32


def measure_species_parity(
    model: Path, variant: Path, folders: Sequence[Path], limits: SpeciesLimits, device: Device, threads: int | None
) -> SpeciesParity:
    """Let both classifiers name every readable picture below ``folders``.

    Raises:
        ModelError: ``variant`` does not descend from ``model``, has other labels, or answers with what is no number.
        UsageError: no picture can be read.
    """
    paths = find_pictures(folders)
    before, after = (_named(path, paths, device, threads) for path in (model, variant))
    if before.spec.origin != after.spec.origin or before.spec.sha256 == after.spec.sha256:
        raise ModelError(
            f"{variant}: is no variant of {model} (origin {after.spec.origin[:12]}…, expected "
            f"{before.spec.origin[:12]}…); give the float model that it was made from"
        )
    if before.spec.labels != after.spec.labels:
        raise ModelError(f"{variant}: its labels are not those of {model}; quantise that model again")
    return compare_names(before, after, limits)


def compare_names(before: Named, after: Named, limits: SpeciesLimits) -> SpeciesParity:
    """The report's entry for the same pictures named by the float model and by its variant."""
    was, now = before.probabilities.astype(np.float64), after.probabilities.astype(np.float64)
    best = was.argmax(axis=1)
    same, sure = best == now.argmax(axis=1), was.max(axis=1) >= CONFIDENT
    low = clopper_pearson(int(same.sum()), len(same), _TWO_SIDED)[0]
    flipped = int((sure & ~same).sum())
    fault = _fault(float(same.mean()), low, flipped / max(1, int(sure.sum())), len(same), limits)
    cosine = (was * now).sum(axis=1) / (np.linalg.norm(was, axis=1) * np.linalg.norm(now, axis=1))
    rows = np.arange(len(best))
    return SpeciesParity(
        passed=fault is None,
        verdict=fault or "names as its origin does",
        before=before.spec.sha256,
        after=after.spec.sha256,
        pictures=len(same),
        agreed=int(same.sum()),
        agreement_low=round(low, 6),
        confident=int(sure.sum()),
        confident_flipped=flipped,
        cosine=round(float(cosine.mean()), 6),
        worst_cosine=round(float(cosine.min()), 6),
        moved=round(min(1.0, float(np.abs(now - was)[rows, best].mean())), 6),
        min_agreement=limits.agreement,
        max_confident_flipped=limits.confident_flipped,
    )


def _fault(agreement: float, low: float, flipped: float, pictures: int, limits: SpeciesLimits) -> str | None:
    """Which limit is broken, in words."""
    if low < limits.agreement:
        more = "; show it more pictures" if agreement >= limits.agreement else ""
        return (
            f"the best class stays on {agreement:.1%} of {pictures} pictures, which proves {low:.1%}, and "
            f"{limits.agreement:.1%} are demanded{more}"
        )
    if flipped > limits.confident_flipped:
        return (
            f"{flipped:.1%} of the pictures on which the float model was sure get another class, "
            f"{limits.confident_flipped:.1%} are allowed"
        )
    return None


def _named(path: Path, paths: Sequence[Path], device: Device, threads: int | None) -> Named:
    with open_engine(path, device, threads=threads) as engine:
        spec = engine.spec
        if spec.task != "classifier":
            raise ModelError(f"{path}: task is {spec.task!r}; --pictures compare classifiers")
        shown = track(batches(paths, spec.input, _BATCH), f"asking {spec.name}", -(-len(paths) // _BATCH))
        rows = [engine.infer(batch) for batch in shown]
    if not rows:
        raise UsageError("none of the pictures can be read; give other pictures")
    answers = np.concatenate(rows)
    if not np.isfinite(answers).all():
        raise ModelError(f"{spec.name}: its answers are not all finite numbers")
    return Named(spec, as_probabilities(answers, spec.output.kind))
