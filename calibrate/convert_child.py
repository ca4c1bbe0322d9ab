"""The child of ``calibrate convert``: the only place where files of a stranger are unpickled.

``python -m calibrate.convert_child FOLDER SCALER PCA MIXTURE ISOTONIC`` bounds its own memory, time and file sizes,
leaves the network where the kernel allows it, and only then loads scikit-learn and the four files. It writes plain
arrays to ``FOLDER/chain.npz`` and ``FOLDER/chain.json``, the scores of ``FOLDER/features.npy`` among them. That
keeps accidents small; it is no sandbox: the code in the files runs with the user's rights.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

MEMORY, SECONDS, FILE_BYTES = 4 << 30, 60, 1 << 30
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)


def main(words: list[str]) -> int:
    """Run as the module's docstring says; 0, or 1 with a sentence in ``chain.json``."""
    folder, files = Path(words[0]), [Path(word) for word in words[1:]]
    offline = _confine()
    try:
        content = {**_convert(folder, files), "offline": offline}
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything; the parent wants one sentence
        content = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
    (folder / "chain.json").write_text(json.dumps(content), encoding="utf-8")
    return 1 if "error" in content else 0


def _confine() -> bool:
    """Bound this process and cut it off the network; whether the latter was possible."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    return unshare is not None and unshare(_NEW_USER | _NEW_NETWORK) == 0


def _convert(folder: Path, files: list[Path]) -> dict[str, Any]:
    import numpy as np  # after the limits, which its threads inherit

    scaler, pca, mixture, isotonic, skews = _load(files)
    arrays = {
        "mean": _or(scaler.mean_ if scaler.with_mean else None, np.zeros(scaler.n_features_in_)),
        "scale": _or(scaler.scale_, np.ones(scaler.n_features_in_)),
        "pca_mean": pca.mean_,
        "components": pca.components_,
        "explained_variance": pca.explained_variance_ if pca.whiten else np.ones(len(pca.components_)),
        "weights": mixture.weights_,
        "means": mixture.means_,
        "covariances": mixture.covariances_,
        "precisions_cholesky": mixture.precisions_cholesky_,
        "x": isotonic.X_thresholds_,
        "y": isotonic.y_thresholds_,
    }
    features = np.load(folder / "features.npy", allow_pickle=False)
    if not len(features):
        features = _draw(scaler, pca, mixture, np)
        arrays["drawn"] = features
    wide = features.astype(np.float64)
    loaded = isotonic.predict(mixture.score_samples(pca.transform(scaler.transform(wide))))
    _promote((scaler, pca, mixture, isotonic), np)
    scores = mixture.score_samples(pca.transform(scaler.transform(wide)))
    arrays |= {"scores": scores, "probabilities": isotonic.predict(scores)}
    plain = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    np.savez(folder / "chain.npz", **plain)  # type: ignore[arg-type]  # the stubs take the arrays for allow_pickle
    return {
        "covariance": str(mixture.covariance_type),
        "increasing": bool(isotonic.increasing_),
        "rounding": float(np.abs(loaded - arrays["probabilities"]).max()),
        "out_of_bounds": str(isotonic.out_of_bounds),
        "positives": int(np.max(getattr(scaler, "n_samples_seen_", 1))),
        "skews": skews,
    }


def _load(files: list[Path]) -> tuple[Any, Any, Any, Any, list[str]]:
    import joblib
    import sklearn

    wanted = ("StandardScaler", "PCA", "GaussianMixture", "IsotonicRegression")
    loaded, skews = [], []
    for path, name in zip(files, wanted, strict=True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = joblib.load(path)
        if type(found).__name__ != name or not type(found).__module__.startswith("sklearn."):
            raise TypeError(f"{path.name} holds a {type(found).__name__}, expected scikit-learn's {name}")
        made_by = _version_of(caught)
        if made_by is not None:
            skews.append(f"{path.name} was written by scikit-learn {made_by}, this is {sklearn.__version__}")
        loaded.append(found)
    scaler, pca, mixture, isotonic = loaded
    return scaler, pca, mixture, isotonic, skews


def _version_of(caught: list[warnings.WarningMessage]) -> str | None:
    """The version that wrote the file, where it is not this one: scikit-learn's InconsistentVersionWarning names it."""
    versions = (getattr(one.message, "original_sklearn_version", None) for one in caught)
    return next((str(version) for version in versions if version is not None), None)


def _draw(scaler: Any, pca: Any, mixture: Any, np: Any) -> Any:
    """Features (n, D) float32 as the mixture itself imagines them, where no others are given."""
    mixture.random_state = np.random.RandomState(0)
    drawn, _ = mixture.sample(256)
    features = scaler.inverse_transform(pca.inverse_transform(drawn))
    return features[np.random.default_rng(0).permutation(len(features))].astype(np.float32)


def _promote(parts: tuple[Any, ...], np: Any) -> None:
    """Raise what was fitted in single precision to double, so that the chain's own rounding hides no difference."""
    for part in parts:
        for name, value in list(vars(part).items()):
            if isinstance(value, (np.ndarray, np.float32)) and value.dtype == np.float32:
                setattr(part, name, value.astype(np.float64))
    isotonic = parts[-1]
    isotonic._build_f(isotonic.X_thresholds_, isotonic.y_thresholds_)  # it holds copies of the knots


def _or(array: Any, other: Any) -> Any:
    return other if array is None else array


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
