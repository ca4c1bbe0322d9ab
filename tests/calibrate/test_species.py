"""A species classifier: chosen and judged on pictures apart, and the same in ONNX and in the cascade."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import precision_recall_fscore_support
from typer.testing import CliRunner

from calibrate.__main__ import app
from calibrate.fingerprints import fuse
from calibrate.species import SpeciesOptions, export_species, fit_species
from calibrate.species_figures import confusion, per_class
from calibrate.species_folders import find_labelled
from calibrate.species_folds import stratified_folds
from calibrate.species_graph import check_inputs
from calibrate.species_heads import METHODS, Subspace, best_temperature, fit_lda, log_loss
from calibrate.species_samples import SpeciesSamples, gather_species
from edge.cascade import Cascade, Limits
from edge.decode import Decoder
from edge.demo.camera import encode_jpeg
from edge.demo.simulator import draw
from edge.gate_file import load_gate
from edge.picture import PictureOpener
from edge.records import Outcome, RawFrame, Ticket
from engines import ImageLimits, InputSpec, ModelError, UsageError, load_spec, open_engine, write_spec
from tests.calibrate import clusters

MODELS = Path(__file__).resolve().parents[2] / "edge" / "demo" / "models"
FEATURES = MODELS / "features.onnx"
KINDS = ("cockatoo", "lorikeet", "scarlet_macaw")


def random_samples(sizes: tuple[int, ...] = (20, 16, 12), dimensions: int = 30, seed: int = 0) -> SpeciesSamples:
    """Classes apart on the unit sphere, pictures in groups of two, two views."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    centre = rng.standard_normal((len(sizes), dimensions))
    full = centre[label] + 0.9 * rng.standard_normal((len(label), dimensions))
    views = {"full": fuse([full]), "hflip": fuse([full + 0.1 * rng.standard_normal(full.shape)])}
    paths = tuple(Path(f"{i}.jpg") for i in range(len(label)))
    return SpeciesSamples(views, label, np.arange(len(label)) // 2, tuple("abc"[: len(sizes)]), paths)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("species")
    rng = np.random.default_rng(5)
    for kind in KINDS:
        (folder / kind).mkdir()
        for number in range(9):
            (folder / kind / f"{number}.jpg").write_bytes(encode_jpeg(draw(kind, rng, 320, 240), 88))
    return folder


@pytest.fixture(scope="module")
def made(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the command writes."""
    out = tmp_path_factory.mktemp("made")
    words = ["species", "--model", str(FEATURES), "--classes", str(drawings), "--out", str(out / "species.onnx")]
    result = CliRunner().invoke(app, [*words, "--report", str(out), "--folds", "3"])
    assert result.exit_code == 0, result.exception
    return out


def test_command_writes_classifier_labels_and_report(made: Path) -> None:
    spec = load_spec(made / "species.onnx")
    report = json.loads((made / "species.json").read_text())
    assert (spec.task, spec.labels, spec.output.kind) == ("classifier", KINDS, "probabilities")
    assert report["classifier"] == f"sha256:{spec.sha256}"
    assert report["held_out"]["classifier"]["macro_f1"]["value"] > 0.8
    assert np.sum(report["held_out"]["confusion"]["counts"]) == 27
    written = {entry.key: entry.value for entry in onnx.load(made / "species.onnx").metadata_props}
    assert written["labels_sha256"] == report["labels_sha256"]


def test_labels_in_another_order_are_refused_at_load(made: Path, tmp_path: Path) -> None:
    for name in ("species.onnx", "species.onnx.json", "species.onnx.labels.txt"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    (tmp_path / "species.onnx.labels.txt").write_text("lorikeet\ncockatoo\nscarlet_macaw\n")
    with pytest.raises(ModelError, match="SHA-256"):
        load_spec(tmp_path / "species.onnx")


def test_same_pictures_give_the_same_bytes(made: Path, drawings: Path, tmp_path: Path) -> None:
    with open_engine(FEATURES, "cpu") as engine:
        samples = gather_species([engine], drawings, ("full", "hflip"), 0.97)
        fitted = fit_species(samples, SpeciesOptions(folds=3))
        export_species(tmp_path / "again.onnx", [FEATURES], [engine], samples, fitted.chosen.head)
    assert (tmp_path / "again.onnx").read_bytes() == (made / "species.onnx").read_bytes()


def test_cascade_names_what_the_fitted_head_names(made: Path, drawings: Path, tmp_path: Path) -> None:
    with open_engine(FEATURES, "cpu") as features, open_engine(made / "species.onnx", "cpu") as species:
        samples = gather_species([features], drawings, ("full", "hflip"), 0.97)
        head = fit_species(samples, SpeciesOptions(folds=3)).chosen.head
        gate = load_gate(MODELS / "gate.npz", features=features.spec)
        cascade = Cascade(
            features, gate, species, worker="test", limits={None: Limits(0.0)}, top=3, clock=time.monotonic,
            wall=time.time,
        )  # fmt: skip
        decoder = Decoder(PictureOpener(features.spec.input, (112, 112), ImageLimits()), max_bytes=1 << 22)
        rng = np.random.default_rng(77)
        jpegs = [encode_jpeg(draw(kind, rng), 85) for kind in KINDS for _ in range(2)]
        frames = [decoder(RawFrame("yard", jpeg, Ticket(0, 0, 0, 0), time.monotonic())) for jpeg in jpegs]
        verdicts = cascade.judge(frames)
        rows = np.stack([frame.features_input for frame in frames if frame.features_input is not None])
        expected = head.probabilities(fuse([features.infer(rows)]))
    for verdict, probability in zip(verdicts, expected, strict=True):
        assert verdict.verdict is Outcome.POSITIVE
        assert [one.label for one in verdict.species] == [KINDS[i] for i in np.argsort(-probability)]
        assert [one.probability for one in verdict.species] == pytest.approx(np.sort(probability)[::-1], abs=1e-4)


@pytest.mark.parametrize("command", ["species", "cluster"])
def test_second_run_of_a_command_infers_no_picture_again(
    command: str, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(out: str) -> int:
        told = {"species": ["--classes", str(drawings), "--folds", "2", "--method", "lda"], "cluster": [str(drawings)]}
        name = f"{out}.onnx" if command == "species" else out
        words = ["--model", str(FEATURES), "--out", str(tmp_path / name), "--cache", str(tmp_path / "cache")]
        return CliRunner().invoke(app, [command, *told[command], *words]).exit_code

    assert run("first") == 0
    monkeypatch.setattr("calibrate.fingerprints.prepare_input", None)  # whoever prepares a picture now fails
    assert run("second") == 0
    if command == "species":
        assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def renormalised(folder: Path) -> Path:
    """The demo's network as if it wanted other pixels: the same graph under another mean and std."""
    path = folder / "other.onnx"
    path.write_bytes(FEATURES.read_bytes())
    spec = load_spec(FEATURES)
    wanted = spec.input.model_copy(update={"mean": (0.3, 0.4, 0.5), "std": (0.2, 0.3, 0.25)})
    write_spec(path, type(spec)(name="other", task="features", input=wanted, output=spec.output,
                                sha256=spec.sha256, origin=spec.origin))  # fmt: skip
    return path


def test_two_engines_with_other_normalisation_merge_into_one_graph(drawings: Path, tmp_path: Path) -> None:
    other = renormalised(tmp_path)
    with open_engine(FEATURES, "cpu") as one, open_engine(other, "cpu") as two:
        samples = gather_species([one, two], drawings, ("full",), None)
        assert not np.allclose(samples.views["full"][:, :128], samples.views["full"][:, 128:], atol=1e-3)
        head = fit_species(samples, SpeciesOptions(method="lda", folds=2)).chosen.head
        assert export_species(tmp_path / "s.onnx", [FEATURES, other], [one, two], samples, head) < 1e-5


def test_export_that_would_answer_otherwise_is_removed(drawings: Path, tmp_path: Path) -> None:
    with open_engine(FEATURES, "cpu") as one:
        samples = gather_species([one], drawings, ("full",), None)
        head = fit_species(samples, SpeciesOptions(method="lda", folds=2)).chosen.head
        with pytest.raises(ModelError, match="differs from the fitted head"):
            export_species(tmp_path / "s.onnx", [FEATURES], [Negative(one)], samples, head)
    assert not (tmp_path / "s.onnx").exists()


class Negative:
    """An engine that answers as its file would on the negative of the picture."""

    def __init__(self, engine: Any) -> None:
        self.spec = engine.spec
        self.infer = lambda batch: engine.infer(-batch)


def test_engines_with_other_sizes_are_refused(tmp_path: Path) -> None:
    one, two = clusters.model(), load_spec(FEATURES)
    with pytest.raises(ModelError, match=r"different inputs \(height, width\)"):
        check_inputs([one, two])


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_the_same_head_in_the_span_of_few_rows(method: str) -> None:
    samples = random_samples(dimensions=80)
    x = samples.views["full"].astype(np.float64)
    span = Subspace.of(x)
    assert span.rows.shape == (48, 47)
    whole = METHODS[method](x, samples.label, 3)
    reduced = span.fit(METHODS[method], samples.label, 3)
    if method.startswith("lda"):  # shrinks towards the mean variance of the space it sees: alike, not equal
        assert (whole.logits(x).argmax(1) == reduced.logits(x).argmax(1)).mean() > 0.95
    else:
        assert reduced.probabilities(x) == pytest.approx(whole.probabilities(x), abs=2e-3)


def test_lda_is_the_textbook_rule_for_a_given_shrinkage() -> None:
    samples = random_samples((16, 16, 16))
    x = samples.views["full"].astype(np.float64)
    priors = [1 / 3] * 3
    reference = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.0, priors=priors).fit(x, samples.label)
    found = fit_lda(x, samples.label, 3, shrinkage=0.0)
    assert found.probabilities(x) == pytest.approx(reference.predict_proba(x), abs=1e-6)


def test_temperature_mends_overconfident_logits() -> None:
    rng = np.random.default_rng(0)
    true = 2.0 * rng.standard_normal((4000, 3))
    label = (true + rng.gumbel(size=true.shape)).argmax(axis=1)
    found = best_temperature(7.0 * true, label)
    assert found == pytest.approx(7.0, rel=0.1)
    assert log_loss(7.0 * true / found, label) < log_loss(7.0 * true, label)


def test_folds_keep_groups_whole_and_classes_even() -> None:
    samples = random_samples((40, 30, 20))
    fold = stratified_folds(samples.label, samples.group, 5, np.random.default_rng(0))
    assert all(len(set(fold[samples.group == group])) == 1 for group in samples.group)
    counts = np.array([np.bincount(fold[samples.label == k], minlength=5) for k in range(3)])
    assert (np.ptp(counts, axis=1) <= 2).all()
    assert counts.sum(axis=0).max() - counts.sum(axis=0).min() <= 2


def test_labels_at_random_give_figures_of_chance() -> None:
    samples = random_samples((30, 30, 30))
    shuffled = SpeciesSamples(
        samples.views, np.random.default_rng(1).permutation(samples.label), np.arange(90), samples.labels, samples.paths
    )
    figures = fit_species(shuffled, SpeciesOptions(method="lda", folds=5)).figures
    low, high = figures["classifier"]["accuracy"]["ci95"]
    assert low < 0.42
    assert high < 0.55


def test_figures_equal_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    label, answer = rng.integers(0, 4, 200), rng.integers(0, 5, 200)
    expected = precision_recall_fscore_support(label, answer, labels=range(5), zero_division=0)[:3]
    assert np.array(per_class(confusion(label, answer, 5))) == pytest.approx(np.array(expected))


def test_copies_count_once_and_those_in_two_classes_not_at_all(drawings: Path, tmp_path: Path) -> None:
    for kind in KINDS[:2]:
        (tmp_path / kind).mkdir()
        for number in range(3):
            (tmp_path / kind / f"{number}.jpg").write_bytes((drawings / kind / f"{number}.jpg").read_bytes())
    (tmp_path / KINDS[0] / "copy.jpg").write_bytes((drawings / KINDS[0] / "0.jpg").read_bytes())
    (tmp_path / KINDS[0] / "torn.jpg").write_bytes((drawings / KINDS[1] / "0.jpg").read_bytes())
    with open_engine(FEATURES, "cpu") as engine:
        samples = gather_species([engine], tmp_path, ("full",), None)
    assert samples.label.tolist() == [0, 0, 0, 1, 1]  # the torn picture is in neither class


def test_mirrored_picture_and_sub_folder_share_a_group(drawings: Path, tmp_path: Path) -> None:
    for kind in KINDS[:2]:
        (tmp_path / kind / "burst").mkdir(parents=True)
        for number, folder in enumerate(("", "", "burst", "burst")):
            (tmp_path / kind / folder / f"{number}.jpg").write_bytes((drawings / kind / f"{number}.jpg").read_bytes())
    pixels = cv2.imread(str(drawings / KINDS[0] / "0.jpg"))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / KINDS[0] / "mirror.png"), pixels[:, ::-1])
    with open_engine(FEATURES, "cpu") as engine:
        found = gather_species([engine], tmp_path, ("full", "hflip"), 0.9995)
    groups = {path.relative_to(tmp_path).as_posix(): int(g) for path, g in zip(found.paths, found.group, strict=True)}
    kind = KINDS[0]
    assert groups[f"{kind}/0.jpg"] == groups[f"{kind}/mirror.png"]
    assert groups[f"{kind}/burst/2.jpg"] == groups[f"{kind}/burst/3.jpg"]
    assert len(set(groups.values())) == 6


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["macaw"], "at least two"),
        (["Scarlet_Macaw", "scarlet macaw"], "differ only in spelling"),
        (["macaw ", "cockatoo"], "blanks at an end"),
        (["macaw", "cockatoo"], "too few readable pictures in cockatoo"),
    ],
)
def test_folders_that_make_no_classifier_are_named(tmp_path: Path, names: list[str], sentence: str) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        for number in range(1 if name == "cockatoo" else 2):
            (tmp_path / name / f"{number}.jpg").touch()
    with pytest.raises(UsageError, match=sentence):
        find_labelled(tmp_path)


def test_uint8_graphs_must_agree_in_everything() -> None:
    spec = clusters.model()
    plain = InputSpec(layout="NCHW", dtype="uint8", height=8, width=8)
    other = plain.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    models = [type(spec)("a", "features", one, spec.output, "a" * 64, "a" * 64) for one in (plain, other)]
    with pytest.raises(ModelError, match=r"\(mean\)"):
        check_inputs(models)
