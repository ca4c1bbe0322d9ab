"""Random features with the structure of real ones: kinds within a class, classes apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from calibrate.samples import Samples
from engines import InputSpec, ModelSpec, OutputSpec

SIZE = 48


def samples(positives: Mapping[str, int], negatives: Mapping[str, int] | None = None, seed: int = 0) -> Samples:
    """Pictures per kind: ``{"macaw": 20}`` positives, ``{"birds/owl": 10, "ducks": 30}`` negatives."""
    rng = np.random.default_rng(seed)
    axis = {True: rng.standard_normal(SIZE), False: rng.standard_normal(SIZE)}
    parts, positive, family = [], [], []
    for label, kinds in ((True, positives), (False, negatives or {})):
        for kind, count in kinds.items():
            centre = 2.0 + axis[label] + 0.5 * rng.standard_normal(SIZE)
            parts.append(np.maximum(centre + 0.7 * rng.standard_normal((count, SIZE)), 0.0))
            positive += [label] * count
            family += [f"parrots/{kind}" if label else kind] * count
    features = np.concatenate(parts).astype(np.float32)
    digests = tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in features)
    source = np.array([name.split("/")[0] for name in family])
    return Samples(features, np.array(positive), np.array(family), source, digests)


def model(size: int = SIZE) -> ModelSpec:
    """A feature model's manifest that gives ``size`` features."""
    return ModelSpec(
        name="random",
        task="features",
        input=InputSpec(layout="NCHW", height=8, width=8),
        output=OutputSpec(kind="features", size=size),
        sha256="a" * 64,
        origin="a" * 64,
    )


PARROTS = {"macaw": 30, "amazon": 25, "cockatoo": 20, "lory": 15, "grey": 30}
OTHERS = {"birds/owl": 20, "birds/wren": 20, "birds/robin": 20, "birds/duck": 15, "objects": 40}
