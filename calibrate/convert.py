"""The classic notebook's joblib files as a gate file, unpickled in a child process and proven equal."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibrate.members import MixtureChain, fold_mixture
from edge.gate import Gate
from edge.gate_manifest import FORMAT, GOLDEN_ROWS, Decision, FeatureModel, GateManifest, Training
from engines import ModelError, ModelSpec, UsageError

Float32 = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

SCORE_TOLERANCE = 1e-6  # relative
PROBABILITY_TOLERANCE = 1e-6
TIMEOUT_S = 120
MAX_BYTES = 512 << 20
_ROOT = Path(__file__).resolve().parent.parent
_PARTS = ("scaler", "pca", "gmm", "iso")


@dataclass(frozen=True, slots=True)
class Converted:
    """A gate's manifest and arrays, and over how many ``rows`` it was compared with scikit-learn in double precision.

    The differences are the largest ones, relative in score (absolute below 1) and absolute in probability;
    ``rounding`` is by how much a chain fitted in single precision differs in probability from itself in double.
    ``offline`` says whether the child was cut off the network.
    """

    manifest: GateManifest
    arrays: Arrays
    rows: int
    score_difference: float
    probability_difference: float
    rounding: float
    offline: bool


def convert(
    files: Sequence[Path],
    model: ModelSpec,
    features: Float32 | None,
    *,
    positive: str,
    threshold: float = 0.5,
    allow_skew: bool = False,
) -> Converted:
    """Turn scaler, PCA, mixture and isotonic regression (``files``, in this order) into a gate for ``model``.

    This RUNS THE CODE in the files, in a child process with bounded memory and time. ``features`` (n, D) float32 are
    pictures of the positive class; the gate is compared on them, and they become its golden rows and its held-out
    scores. None draws rows from the mixture itself instead.

    Raises:
        UsageError: the files are missing, not the notebook's four, of another scikit-learn, or do not fit ``model``.
        ModelError: the gate would not equal the chain.
    """
    digests = dict(zip(_PARTS, _hashes(files), strict=True))
    told, arrays = _unpickle(files, features)
    check_chain(told, arrays, model, allow_skew=allow_skew)
    rows = arrays["drawn"].astype(np.float32) if features is None else features
    manifest = _manifest(told, model, digests, positive, threshold, drawn=features is None)
    content = _gate_arrays(told, arrays, rows)
    worst = _differences(manifest, content, arrays, rows)
    return Converted(manifest, content, len(rows), *worst, float(told["rounding"]), bool(told["offline"]))


def _hashes(files: Sequence[Path]) -> list[str]:
    digests = []
    for path in files:
        if not path.is_file():
            raise UsageError(f"{path}: no such file; give scaler, PCA, mixture and isotonic regression of the notebook")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: larger than {MAX_BYTES >> 20} MiB, which none of the notebook's files is")
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return digests


def _unpickle(files: Sequence[Path], features: Float32 | None) -> tuple[dict[str, Any], Arrays]:
    """What the child says, and its arrays, read without unpickling anything."""
    with TemporaryDirectory(prefix="calibrate-convert-") as name:
        folder = Path(name)
        np.save(folder / "features.npy", np.empty((0, 0), np.float32) if features is None else features)
        words = [sys.executable, "-m", "calibrate.convert_child", name, *(str(path.resolve()) for path in files)]
        # Nothing of ours is handed on: no proxy, no token, no home.
        environment = {"PATH": os.defpath, "PYTHONPATH": str(_ROOT), "HOME": name, "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(words, env=environment, capture_output=True, timeout=TIMEOUT_S, cwd=name)
        except subprocess.TimeoutExpired as error:
            raise UsageError(
                f"the files were not unpickled within {TIMEOUT_S} s; they are not the notebook's"
            ) from error
        told = _told(folder / "chain.json", done)
        if "error" in told:
            raise UsageError(f"the files cannot be converted: {told['error']}")
        with np.load(folder / "chain.npz", allow_pickle=False) as archive:
            return told, {name: archive[name] for name in archive.files}


def _told(path: Path, done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise UsageError(
            f"the process that unpickles the files ended with {done.returncode} ({last[0][:200]}): out of its "
            "memory or time, or the files' own code ended it"
        ) from error
    if not isinstance(told, dict):
        raise UsageError("the process that unpickles the files gave no answer; the files' own code interfered")
    return told


def check_chain(
    told: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], model: ModelSpec, *, allow_skew: bool
) -> None:
    """Raise :class:`UsageError` unless what the child told of the files makes a gate for ``model``."""
    size = len(arrays["mean"])
    if size != model.output.size:
        raise UsageError(
            f"the scaler takes {size} features, {model.name} gives {model.output.size}; name the model whose features "
            "the notebook used"
        )
    if told["skews"] and not allow_skew:
        raise UsageError(
            f"{'; '.join(told['skews'])}: such files may load and answer otherwise without a word; install that "
            "version for the conversion, or pass --allow-version-skew and compare the scores with the notebook's own"
        )
    if not told["increasing"]:
        raise UsageError("the isotonic regression falls with the score; a gate's probability must rise with it")
    if told["out_of_bounds"] != "clip":
        raise UsageError(
            f"the isotonic regression has out_of_bounds={told['out_of_bounds']!r} and gives no probability outside the "
            "scores it saw; set it to 'clip' and dump it again"
        )


def _gate_arrays(told: Mapping[str, Any], arrays: Arrays, rows: Float32) -> Arrays:
    scaler = SimpleNamespace(mean_=arrays["mean"], scale_=arrays["scale"])
    pca = SimpleNamespace(
        mean_=arrays["pca_mean"],
        components_=arrays["components"],
        explained_variance_=arrays["explained_variance"],
    )
    factors = arrays["precisions_cholesky"]
    mixture = SimpleNamespace(
        covariance_type=told["covariance"],
        weights_=arrays["weights"],
        means_=arrays["means"],
        # scikit-learn scores with the factors; in single precision the covariances beside them say something else.
        covariances_=1.0 / np.square(factors) if told["covariance"] in ("spherical", "diag") else arrays["covariances"],
        precisions_cholesky_=factors,
    )
    folded = fold_mixture(MixtureChain(scaler, pca, mixture))
    content: Arrays = {f"{folded.member.name}.{key}": array for key, array in folded.arrays.items()}
    content |= {"calibration.x": arrays["x"], "calibration.y": arrays["y"]}
    content["conformal.scores"] = np.sort(arrays["scores"])
    order = np.argsort(arrays["scores"], kind="stable")
    content["golden.features"] = rows[order[np.linspace(0, len(order) - 1, GOLDEN_ROWS).round().astype(np.intp)]]
    return content


def _manifest(
    told: Mapping[str, Any],
    model: ModelSpec,
    digests: Mapping[str, str],
    positive: str,
    threshold: float,
    *,
    drawn: bool,
) -> GateManifest:
    if told["covariance"] not in ("spherical", "diag", "tied", "full"):
        raise UsageError(f"a mixture with covariance {told['covariance']!r} is none of scikit-learn's")
    name = "density"
    return GateManifest.model_validate(
        {
            "format": FORMAT,
            "name": f"{positive}-converted",
            "recipe": "seed",
            "positive": positive,
            "features": FeatureModel(name=model.name, origin=model.origin, size=model.output.size, input=model.input),
            "views": ("full",),
            "normalise": False,
            "members": ({"name": name, "kind": "mixture", "covariance": told["covariance"]},),
            "join": "single",
            "calibration": "isotonic",
            "decision": Decision(by="probability", threshold=threshold),
            "training": Training(
                digest=hashlib.sha256("".join(digests.values()).encode()).hexdigest(),
                positives=max(1, told["positives"]),
                negatives={},
                groups={},
                folds="converted from joblib files: their folds and negatives are not known",
                seed=0,
            ),
            "metrics": {},
            "options": {
                "converted": dict(digests),
                "conformal": "drawn from the mixture" if drawn else "pictures given to convert; perhaps not held out",
            },
            "versions": {"skew": "; ".join(told["skews"])} if told["skews"] else {},
        }
    )


def _differences(manifest: GateManifest, content: Arrays, arrays: Arrays, rows: Float32) -> tuple[float, float]:
    scores = Gate(manifest, content, precision="float64").judge(rows)
    expected, probability = arrays["scores"], arrays["probabilities"]
    if scores.probability is None:
        raise ModelError("a gate with isotonic calibration gave no probability; this is a fault of ours, report it")
    in_score = float((np.abs(scores.score - expected) / np.maximum(np.abs(expected), 1.0)).max())
    in_probability = float(np.abs(scores.probability - probability).max())
    if not (in_score <= SCORE_TOLERANCE and in_probability <= PROBABILITY_TOLERANCE):
        raise ModelError(
            f"the gate differs from scikit-learn's chain by {in_score:.2g} in score (relative) and "
            f"{in_probability:.2g} in probability over {len(rows)} rows; allowed are {SCORE_TOLERANCE:g} and "
            f"{PROBABILITY_TOLERANCE:g}; nothing was written"
        )
    return in_score, in_probability
