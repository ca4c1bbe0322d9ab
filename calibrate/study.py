"""A gate and how it judged labelled pictures that it was not fitted on: what report and review work from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibrate.chooser import Use
from calibrate.decision import Wish, parse_wish
from calibrate.fit import FitOptions, FittedGate, fit_gate
from calibrate.folders import find_pictures
from calibrate.recipes import make_recipe
from calibrate.samples import Booleans, Float64, Samples
from edge.gate import Gate
from edge.gate_manifest import GateManifest
from engines import ModelSpec, UsageError

AGREES = 1e-6  # a refit on another machine may differ by this much in its held-out scores


@dataclass(frozen=True, slots=True)
class Study:
    """n labelled pictures under one gate.

    ``score`` (n,), ``decisive`` (n,) what is compared with the threshold, ``fold`` (n,) the fold in which a picture
    was held out, None for pictures that had no part in fitting. ``paths`` gives the files of a picture's digest.
    """

    gate: str
    manifest: GateManifest
    samples: Samples
    paths: Mapping[str, Sequence[Path]]
    score: Float64
    decisive: Float64
    fold: npt.NDArray[np.intp] | None

    @property
    def threshold(self) -> float:
        """The gate's own threshold on what decides."""
        return self.manifest.decision.threshold

    @property
    def accepted(self) -> Booleans:
        """Which pictures (n,) are accepted at the gate's own threshold."""
        return np.asarray(self.decisive >= self.threshold)

    @property
    def probability(self) -> Float64 | None:
        """Probabilities (n,), None for a gate without negatives in calibration."""
        return self.decisive if self.manifest.decision.by == "probability" else None

    def path(self, row: int) -> Path:
        """A file of the picture at ``row``."""
        return self.paths[self.samples.digests[row]][0]


def held_out_study(gate: str, fitted: FittedGate, paths: Mapping[str, Sequence[Path]]) -> Study:
    """The pictures that ``fitted`` was fitted on, each judged by members that did not see its fold."""
    held_out = fitted.held_out
    return Study(gate, fitted.manifest, fitted.samples, paths, held_out.score, held_out.decisive, fitted.folds.fold)


def fresh_study(gate: Gate, samples: Samples, paths: Mapping[str, Sequence[Path]]) -> Study:
    """Pictures that had no part in fitting ``gate``, judged by it; rows without a finite score are left out."""
    scores = gate.judge(samples.features)
    rows = scores.finite
    return Study(gate.name, gate.manifest, samples.take(rows), paths, scores.score[rows], scores.decisive[rows], None)


def refit(gate: Gate, samples: Samples, model: ModelSpec) -> FittedGate:
    """Fit again as ``gate`` was fitted, on ``samples``.

    Raises:
        UsageError: its recipe cannot be had from these samples.
    """
    manifest = gate.manifest
    components, covariance = manifest.options.get("components"), manifest.options.get("covariance")
    covariance = covariance or manifest.options.get("density")
    if components is not None:
        components = min(components, samples.positives, samples.features.shape[1])
    recipe = make_recipe(manifest.recipe, components, covariance, manifest.training.seed)
    options = FitOptions(manifest.views, _wish(manifest), manifest.training.seed, manifest.options.get("abstain"))
    return fit_gate(samples, model, recipe, options)


def _wish(manifest: GateManifest) -> Wish:
    """What the gate's threshold was to give, to be given again; a number stays that number."""
    text = manifest.options.get("threshold")
    if text is None:
        return Wish("value", manifest.decision.threshold)
    return parse_wish(text, Use(manifest.options["prior"], manifest.options["frames_a_day"]))


def refit_on_the_same(gate: Gate, samples: Samples, model: ModelSpec) -> FittedGate:
    """:func:`refit`, proven to give the held-out scores that ``gate`` carries.

    Raises:
        UsageError: ``samples`` are not the pictures that ``gate`` was fitted on, or the scores differ.
    """
    fitted = refit(gate, samples, model)
    if fitted.manifest.training.digest != gate.manifest.training.digest:
        raise UsageError(
            f"{gate.name}: was fitted on other pictures than these (or other labels, or families); give the folders "
            "it was fitted on, or --fresh where these are pictures that had no part in it"
        )
    scores = np.sort(fitted.held_out.score[fitted.samples.positive])
    known = gate.judge(samples.features[:1]).held_out
    if scores.shape != known.shape or not np.allclose(scores, known, rtol=AGREES, atol=AGREES):
        raise UsageError(
            f"{gate.name}: fitting again on the same pictures gives other held-out scores than the gate carries; "
            "another version of calibrate made it: fit it again"
        )
    return fitted


def paths_by_digest(positives: Path, negatives: Sequence[Path]) -> dict[str, list[Path]]:
    """Every readable file below the folders by the SHA-256 of its bytes."""
    found: dict[str, list[Path]] = {}
    for picture in find_pictures(positives, negatives):
        try:
            digest = hashlib.sha256(picture.path.read_bytes()).hexdigest()
        except OSError:  # gather has said that it cannot be read
            continue
        found.setdefault(digest, []).append(picture.path)
    return found
