"""``calibrate benchmark``: one class against the rest, on features drawn at random and on real pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from calibrate.__main__ import app
from calibrate.benchmark import DEFAULT, PUBLISHED, _chosen, benchmark, find_tree, tables
from engines import UsageError

CLASSES = np.array(["cat", "dog", "frog"])


def features(per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    centres = 1.0 + 0.5 * np.random.default_rng(0).standard_normal((3, 24))
    names = np.repeat(CLASSES, per_class)
    noise = np.random.default_rng(seed).standard_normal((len(names), 24))
    return np.repeat(centres, per_class, axis=0) + 0.4 * noise, names


def test_every_class_and_member_gets_its_auroc() -> None:
    result = benchmark(*features(40, 1), *features(30, 2))
    found = result.as_json()
    assert set(found["one_class"]["classes"]) == set(CLASSES)
    assert found["one_class"]["mean"] == found["one_class"]["members"][DEFAULT] > 0.9
    assert "seed: mixture" in found["one_class"]["members"]
    assert found["outlier_exposure"]["mean"] >= found["one_class"]["mean"]
    ours, published = tables(result)
    assert len(ours.columns) == len(result.members) + 2
    console = Console(width=80, record=True, file=io.StringIO())
    for table in (ours, published):
        console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert f"{found['outlier_exposure']['mean']:.4f}".removeprefix("0") in text
    assert all(name in text for name in CLASSES)
    assert published.row_count == len(PUBLISHED)


def test_one_class_members_know_nothing_of_the_other_classes() -> None:
    x, names = features(40, 1)
    test = features(30, 2)
    alone = benchmark(x, names, *test).members[DEFAULT]["cat"]
    x[names != "cat"] += 100.0
    assert benchmark(x, names, *test).members[DEFAULT]["cat"] == alone


def test_test_pictures_choose_nothing() -> None:
    x, names = features(40, 1)
    wide = np.concatenate([x, x[:, ::-1]], axis=1)
    test, truth = features(30, 2)
    shuffled = np.random.default_rng(3).permutation(truth)
    right, wrong = (
        benchmark(x, names, test, labels, fused=(wide, np.concatenate([test, test[:, ::-1]], axis=1)))
        for labels in (truth, shuffled)
    )
    assert (right.choice, right.member, right.rule) == (wrong.choice, wrong.member, wrong.rule)
    assert right.as_json()["rule"]


def test_penalty_is_chosen_on_training_folds_where_features_are_noise_beside_good_ones() -> None:
    x, names = features(40, 1)
    noise = np.random.default_rng(4).standard_normal(x.shape)
    assert _chosen({"noise": noise, "good": x}, names, 0)[0] == "good"


def test_tree_without_matching_classes_is_refused(tmp_path: Path) -> None:
    for part in ("train/cat", "train/dog", "test/cat"):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match="train cat, dog and test cat"):
        find_tree(tmp_path)


@pytest.mark.soak
@pytest.mark.shared
def test_cifar_subset_reaches_what_frozen_mobilenet_features_allow(shared: Path, tmp_path: Path) -> None:
    words = ["benchmark", "--dataset", str(shared / "images" / "cifar10_subset.zip"), "--cache", str(tmp_path)]
    done = CliRunner().invoke(app, [*words, "--model", str(shared / "models" / "mobilenet_v2_features.onnx"), "--json"])
    found = json.loads(done.stdout)
    assert len(found["one_class"]["classes"]) == 10
    assert found["one_class"]["mean"] >= 0.825
    assert found["outlier_exposure"]["mean"] >= 0.945
