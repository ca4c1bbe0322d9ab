"""The notebook's joblib files: run only on demand, in a child, and equal to the gate that comes out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from calibrate.__main__ import app
from calibrate.bench_gate import pooled_features
from calibrate.convert import check_chain, convert
from calibrate.figures import figures_table
from calibrate.report import write_report
from calibrate.samples import Samples
from calibrate.study import fresh_study, refit_on_the_same
from edge.gate_file import load_gate
from engines import UsageError, load_spec
from tests.calibrate import clusters
from tests.edge.status import get, ready_health, serving

SIZE = 24
DEMO = Path(__file__).resolve().parents[2] / "edge" / "demo" / "models" / "features.onnx"


class Fitted:
    """The notebook's chain on random features, and its four files."""

    def __init__(
        self,
        folder: Path,
        *,
        size: int = SIZE,
        whiten: bool = True,
        covariance: str = "spherical",
        dtype: str = "float64",
    ) -> None:
        self.features = pooled_features(np.random.default_rng(0), 300, size).astype(dtype)
        self.scaler = StandardScaler().fit(self.features)
        self.pca = PCA(8, whiten=whiten, random_state=0).fit(self.scaler.transform(self.features))
        latent = self.pca.transform(self.scaler.transform(self.features))
        self.gmm = GaussianMixture(3, covariance_type=covariance, random_state=0).fit(latent[:150])
        scores = self.gmm.score_samples(latent)
        self.iso = IsotonicRegression(out_of_bounds="clip").fit(scores, np.arange(300) < 150)
        self.files = [folder / f"{name}.joblib" for name in ("scaler", "pca", "gmm", "iso")]
        for part, file in zip((self.scaler, self.pca, self.gmm, self.iso), self.files, strict=True):
            joblib.dump(part, file)

    def words(self) -> list[str]:
        names = ("--scaler", "--pca", "--gmm", "--iso")
        return [word for name, file in zip(names, self.files, strict=True) for word in (name, str(file))]

    def probability(self, features: npt.NDArray[Any]) -> npt.NDArray[Any]:
        wide = features.astype(np.float64)
        scores = self.gmm.score_samples(self.pca.transform(self.scaler.transform(wide)))
        return np.asarray(self.iso.predict(scores))


class Bomb:
    """Unpickling it runs ``call(word)``."""

    def __init__(self, call: Any, word: Any) -> None:
        self.call, self.word = call, word

    def __reduce__(self) -> Any:
        return self.call, (self.word,)


def test_converted_gate_answers_as_the_chain_on_given_features(tmp_path: Path) -> None:
    fitted = Fitted(tmp_path, whiten=False, covariance="full", dtype="float32")
    found = convert(fitted.files, clusters.model(SIZE), fitted.features[:150].astype(np.float32), positive="parrots")
    assert (found.rows, found.manifest.training.positives) == (150, 300)
    assert found.score_difference < 1e-9
    assert found.probability_difference < 1e-6
    assert 0 < found.rounding < 1e-3  # scikit-learn's own, on what it fitted in single precision
    assert found.manifest.members[0].covariance == "full"


def test_command_writes_a_gate_that_loads_and_judges_unseen_rows_alike(tmp_path: Path) -> None:
    fitted = Fitted(tmp_path, size=128)
    np.save(tmp_path / "rows.npy", fitted.features[:60].astype(np.float32))
    words = [*fitted.words(), "--model", str(DEMO), "--features", str(tmp_path / "rows.npy"), "--out"]
    result = CliRunner().invoke(app, ["convert", *words, str(tmp_path / "gate.npz"), "--i-trust-these-files"])
    assert result.exit_code == 0, result.output
    gate = load_gate(tmp_path / "gate.npz", features=load_spec(DEMO), precision="float64")
    unseen = pooled_features(np.random.default_rng(1), 50, 128)
    assert gate.judge(unseen).probability == pytest.approx(fitted.probability(unseen), abs=1e-6)


def test_nothing_is_unpickled_without_the_flag(tmp_path: Path) -> None:
    fitted = Fitted(tmp_path)
    joblib.dump(Bomb(os.mkdir, str(tmp_path / "ran")), fitted.files[0])
    words = ["convert", *fitted.words(), "--model", str(DEMO), "--out", str(tmp_path / "gate.npz")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UsageError)
    assert "--i-trust-these-files" in str(result.exception)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_file_runs_in_a_child_without_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    fitted = Fitted(tmp_path)
    told = f"open({str(tmp_path / 'env')!r}, 'w').write(f'{{os.getppid()}} {{dict(os.environ)}}')"
    joblib.dump(Bomb(exec, f"import os; {told}"), fitted.files[0])
    with pytest.raises(UsageError, match="holds a NoneType, expected scikit-learn's StandardScaler"):
        convert(fitted.files, clusters.model(SIZE), None, positive="parrots")
    parent, _, environment = (tmp_path / "env").read_text().partition(" ")
    assert int(parent) == os.getpid()
    assert "HTTPS_PROXY" not in environment


@pytest.mark.parametrize(("call", "word"), [(os._exit, 7), (bytearray, 64 << 30)], ids=["exits", "eats memory"])
def test_child_that_dies_or_runs_out_becomes_a_sentence(tmp_path: Path, call: Any, word: Any) -> None:
    fitted = Fitted(tmp_path)
    joblib.dump(Bomb(call, word), fitted.files[0])
    with pytest.raises(UsageError, match=r"ended with 7|MemoryError"):
        convert(fitted.files, clusters.model(SIZE), None, positive="parrots")


def test_files_of_another_scikit_learn_are_refused_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = Fitted(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", "1.2.2")
        joblib.dump(fitted.gmm, fitted.files[2])
    with pytest.raises(UsageError, match=r"gmm\.joblib was written by scikit-learn 1\.2\.2"):
        convert(fitted.files, clusters.model(SIZE), None, positive="parrots")
    found = convert(fitted.files, clusters.model(SIZE), None, positive="parrots", allow_skew=True)
    assert "1.2.2" in found.manifest.versions["skew"]
    assert (found.rows, found.manifest.options["conformal"]) == (256, "drawn from the mixture")


def test_files_in_the_wrong_order_are_named(tmp_path: Path) -> None:
    fitted = Fitted(tmp_path)
    with pytest.raises(UsageError, match=r"pca\.joblib holds a PCA, expected scikit-learn's StandardScaler"):
        convert([fitted.files[i] for i in (1, 0, 2, 3)], clusters.model(SIZE), None, positive="parrots")


@pytest.mark.parametrize(
    ("size", "change", "sentence"),
    [
        (48, {}, "takes 24 features, random gives 48"),
        (SIZE, {"out_of_bounds": "nan"}, "out_of_bounds='nan'"),
        (SIZE, {"increasing": False}, "falls with the score"),
    ],
)
def test_chain_that_makes_no_gate_is_refused(size: int, change: dict[str, Any], sentence: str) -> None:
    told = {"skews": [], "increasing": True, "out_of_bounds": "clip", **change}
    with pytest.raises(UsageError, match=sentence):
        check_chain(told, {"mean": np.zeros(SIZE)}, clusters.model(size), allow_skew=False)


def test_converted_gate_without_figures_is_shown_by_table_report_and_status_page(tmp_path: Path) -> None:
    """Nothing is known of its folds: no figure, and no page that stumbles over that."""
    fitted = Fitted(tmp_path, size=128)
    words = [*fitted.words(), "--model", str(DEMO), "--out", str(tmp_path / "gate.npz"), "--i-trust-these-files"]
    assert CliRunner().invoke(app, ["convert", *words]).exit_code == 0
    gate = load_gate(tmp_path / "gate.npz", features=load_spec(DEMO))
    assert gate.manifest.metrics == {}
    assert figures_table(gate.manifest).row_count == 0
    positive = np.arange(300) < 150
    names = np.where(positive, "parrots", "others")
    rows = fitted.features.astype(np.float32)
    samples = Samples(rows, positive, names, names, tuple(f"{i:064x}" for i in range(300)))
    paths = {digest: [tmp_path / f"{digest[-3:]}.jpg"] for digest in samples.digests}
    page = write_report(tmp_path / "report", fresh_study(gate, samples, paths)).read_text(encoding="utf-8")
    assert "their folds and negatives are not known" in page
    with pytest.raises(UsageError, match="fitted on other pictures than these"):
        refit_on_the_same(gate, samples, load_spec(DEMO))
    health = ready_health()
    health.set_models({"gate": {"name": gate.name, "sha256": gate.sha256, "device": "cpu"}})
    with serving(health) as server:
        response, body = get(server, "/api/status")
    assert response.status == 200
    assert json.loads(body)["models"]["gate"]["name"] == gate.name
