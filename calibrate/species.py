"""A species classifier on frozen features: fitted, measured, and exported as one ONNX file that is proven equal."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from threadpoolctl import threadpool_limits

from calibrate.fingerprints import fuse
from calibrate.species_evaluate import Chosen, HeldOut, choose, cross_validate
from calibrate.species_figures import measure_species
from calibrate.species_graph import FeatureGraph, build_classifier, labels_sha256
from calibrate.species_heads import METHODS, Head
from calibrate.species_samples import SpeciesSamples
from engines import (
    Engine,
    ImageError,
    ModelError,
    ModelSpec,
    OutputSpec,
    UsageError,
    decode_image,
    load_spec,
    open_engine,
    prepare_input,
    write_spec,
)

FORMAT = 1
TOLERANCE = 1e-4  # between the classifier's probabilities in ONNX Runtime and the head's own
_PROVEN_PICTURES = 32


@dataclass(frozen=True, slots=True)
class SpeciesOptions:
    """``method`` is a name of ``METHODS`` or None to choose on inner folds; equal input and seed give equal files."""

    method: str | None = None
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise UsageError(f"--method must be one of {', '.join(METHODS)}, not {self.method!r}")

    @property
    def methods(self) -> tuple[str, ...]:
        """The candidates."""
        return tuple(METHODS) if self.method is None else (self.method,)


@dataclass(frozen=True, slots=True)
class FittedSpecies:
    """The head fitted on all pictures, and what held-out pictures say of heads fitted like it."""

    chosen: Chosen
    held_out: HeldOut
    figures: dict[str, Any]


def fit_species(samples: SpeciesSamples, options: SpeciesOptions) -> FittedSpecies:
    """Cross-validate, then fit on everything. One BLAS thread, so that equal input gives equal bytes."""
    with threadpool_limits(limits=1):
        held_out = cross_validate(samples, options.methods, options.folds, options.seed)
        everything = np.arange(len(samples.label))
        chosen = choose(samples, everything, options.methods, np.random.default_rng(options.seed))
        return FittedSpecies(chosen, held_out, measure_species(samples, held_out, options.seed))


def export_species(
    out: Path, model_files: Sequence[Path], engines: Sequence[Engine], samples: SpeciesSamples, head: Head
) -> float:
    """Write the classifier ``out`` with manifest and labels; the largest difference to ``head``'s probabilities.

    Raises:
        ModelError: the graphs cannot be joined, or the file answers otherwise than ``head`` (it is then removed).
        UsageError: the file cannot be written.
    """
    try:
        graphs = [FeatureGraph(p.read_bytes(), e.spec) for p, e in zip(model_files, engines, strict=True)]
        data = build_classifier(graphs, head, samples.labels)
        out.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{out}: {error.filename}: {error.strerror}; choose a folder that exists") from error
    manifest = write_spec(out, _spec(out, hashlib.sha256(data).hexdigest(), engines, samples))
    difference = _difference(out, engines, samples, head)
    if not difference <= TOLERANCE or load_spec(out).labels != samples.labels:
        out.unlink()
        manifest.unlink()
        raise ModelError(f"{out}: differs from the fitted head by {difference:.2g}; {TOLERANCE:g} is allowed; removed")
    return difference


def report(
    samples: SpeciesSamples, fitted: FittedSpecies, engines: Sequence[Engine], options: SpeciesOptions, file: str
) -> dict[str, Any]:
    """All that is known of the classifier, for the JSON."""
    return {
        "format": FORMAT,
        "classifier": f"sha256:{file}",
        "features": [{"name": engine.spec.name, "origin": engine.spec.origin} for engine in engines],
        "labels": list(samples.labels),
        "labels_sha256": labels_sha256(samples.labels),
        "method": fitted.chosen.method,
        "temperature": round(fitted.chosen.temperature, 6),
        "inner_log_loss": fitted.chosen.losses,
        "methods_in_folds": list(fitted.held_out.methods),
        "pictures": len(samples.label),
        "groups": len(np.unique(samples.group)),
        "views": list(samples.views),
        "folds": options.folds,
        "seed": options.seed,
        "held_out": fitted.figures,
        "versions": {"python": platform.python_version(), np.__name__: np.__version__, "sklearn": sklearn.__version__},
    }


def _spec(out: Path, digest: str, engines: Sequence[Engine], samples: SpeciesSamples) -> ModelSpec:
    return ModelSpec(
        name=out.stem,
        task="classifier",
        input=engines[0].spec.input,
        output=OutputSpec(kind="probabilities", size=samples.classes),
        labels=samples.labels,
        sha256=digest,
        origin=digest,
        source=f"calibrate species on {' + '.join(engine.spec.name for engine in engines)}",
        licence=" AND ".join(dict.fromkeys(engine.spec.licence for engine in engines if engine.spec.licence)),
    )


def _difference(out: Path, engines: Sequence[Engine], samples: SpeciesSamples, head: Head) -> float:
    """The largest difference in probability between file and head over a few pictures of all classes."""
    chosen = np.linspace(0, len(samples.paths) - 1, min(_PROVEN_PICTURES, len(samples.paths))).round().astype(int)
    worst = 0.0
    with open_engine(out, device="cpu") as classifier:
        for row in chosen:
            spec = classifier.spec.input
            try:
                pixels = decode_image(samples.paths[row].read_bytes(), minimum=(spec.height, spec.width)).pixels
            except (ImageError, OSError):  # it was read a moment ago: somebody took it away
                continue
            features = fuse([engine.infer(prepare_input(pixels, engine.spec.input)[None]) for engine in engines])
            answer = classifier.infer(prepare_input(pixels, spec)[None])
            worst = max(worst, float(np.abs(answer - head.probabilities(features)).max()))
    return worst
