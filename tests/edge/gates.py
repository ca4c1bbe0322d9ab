"""Small true gates for the tests of the box, written down number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.gate import Gate
from edge.gate_manifest import GateManifest
from engines import InputSpec, ModelSpec, OutputSpec

SIZE = 6
Arrays = dict[str, npt.NDArray[Any]]


def spec(**changes: Any) -> ModelSpec:
    """The feature model that :func:`manifest` names."""
    values: dict[str, Any] = {
        "name": "tiny",
        "task": "features",
        "input": InputSpec(layout="NCHW", height=8, width=8),
        "output": OutputSpec(kind="features", size=SIZE),
        "sha256": "a" * 64,
        "origin": "b" * 64,
    }
    return ModelSpec(**{**values, **changes})


def manifest(**changes: Any) -> GateManifest:
    """One Gaussian on unit rows, Platt, threshold 0.5; ``changes`` replace top-level values."""
    values: dict[str, Any] = {
        "format": 1,
        "name": "tiny-robust",
        "recipe": "robust",
        "positive": "parrots",
        "features": {"name": "tiny", "origin": "b" * 64, "size": SIZE, "input": spec().input},
        "views": ("full",),
        "normalise": True,
        "members": ({"name": "density", "kind": "gaussian"},),
        "join": "single",
        "calibration": "platt",
        "decision": {"by": "probability", "threshold": 0.5},
        "training": {
            "digest": "c" * 64, "positives": 9, "negatives": {"ducks": 3}, "groups": {}, "folds": "3", "seed": 0
        },
        "metrics": {"recall": {"value": 0.9}},
        "options": {"density": "ledoit-wolf"},
        "versions": {"numpy": "2"},
    }  # fmt: skip
    return GateManifest.model_validate({**values, **changes})


def arrays(seed: int = 0) -> Arrays:
    """The numbers of :func:`manifest`: most weight near the first axis of the feature space."""
    rng = np.random.default_rng(seed)
    centre = np.zeros(SIZE)
    centre[0] = 0.9
    golden = np.abs(rng.standard_normal((16, SIZE))) + np.outer(np.linspace(0, 5, 16), np.eye(SIZE)[0])
    return {
        "density.centre": centre,
        "density.basis": np.linalg.qr(rng.standard_normal((SIZE, 2)))[0] * 2.0,
        "density.residual_variance": np.asarray(0.05),
        "density.log_norm": np.asarray(1.5),
        "calibration.parameters": np.array([1.2, 2.0]),
        "conformal.scores": np.linspace(-6.0, 1.0, 9),
        "golden.features": golden.astype(np.float32),
    }


def gate(**changes: Any) -> Gate:
    """:func:`manifest` with ``changes``, on :func:`arrays`."""
    return Gate(manifest(**changes), arrays())


WITHOUT_NEGATIVES: dict[str, Any] = {"calibration": "none", "decision": {"by": "p_value", "threshold": 0.15}}
