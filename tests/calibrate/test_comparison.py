"""``calibrate compare``: every row on the same folds, related kinds held out together."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from rich.console import Console
from threadpoolctl import threadpool_limits

from calibrate.chooser import Use
from calibrate.comparison import PLAIN, Comparison, compare
from calibrate.comparison_tables import comparison_tables
from calibrate.contenders import Contender, Judged, contenders, standard
from calibrate.decision import parse_wish
from calibrate.families import merge_families, parse_groups
from calibrate.metrics import against, auroc, difference
from calibrate.samples import Booleans, Float64, Samples
from engines import UsageError
from tests.calibrate import clusters


@pytest.fixture(scope="module")
def found() -> Comparison:
    samples = clusters.samples(
        {"macaw": 20, "amazon": 20, "grey": 20}, {"birds/owl": 15, "birds/wren": 15, "birds/tit": 12, "ducks": 25}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibrate.resampling.DRAWS", 40)
        return compare(samples, names=["robust", "seed", "kNN difference", "Gaussian mixture"])


def test_every_figure_has_its_interval(found: Comparison) -> None:
    named = {row.name: row.figures for row in found.rows}
    for figures in named.values():
        everything = figures["sources"]["all"] | figures
        for name in ("auroc", "fpr95", "tpr_at_fpr_1", "tpr_at_fpr_0", "average_precision", "brier", "log_loss", "ece"):
            low, high = everything[name]["ci95"]
            assert low <= everything[name]["value"] <= high or name == "ece"  # the bootstrap of an ECE lies above it
            assert low < high or everything[name]["value"] in (0.0, 1.0)
    assert named["robust"]["sources"]["all"]["auroc"]["value"] > 0.9


def test_every_recipe_and_member_tells_far_from_near() -> None:
    samples = clusters.samples({"macaw": 20, "amazon": 20}, {"birds/owl": 15, "ducks": 15})
    fresh = clusters.samples({"macaw": 20, "amazon": 20}, {"birds/owl": 15, "ducks": 15}).features[::2]
    samples = samples.with_features(samples.features.astype(np.float64))
    known = contenders(0, PLAIN)
    assert {"robust", "seed", "one-class SVM", "isolation forest", "KDE", "kNN", "PPCA", "Ledoit-Wolf", "logistic",
            "Gaussian mixture"} <= {contender.name for contender in known}  # fmt: skip
    for contender in known:
        with threadpool_limits(limits=1):
            judged = contender.judge(samples.take(np.arange(70) % 2 == 1), np.asarray(fresh, np.float64))
        if contender.name != "seed":  # eighteen mixtures of so few pictures fit nothing else
            assert auroc(judged.score[:20], judged.score[20:]) > 0.6, contender.name
        assert judged.probability is not None
        assert ((judged.probability >= 0.0) & (judged.probability <= 1.0)).all()


def test_every_family_has_figures_and_the_worst_is_named(found: Comparison) -> None:
    for row in found.rows:
        assert set(row.families) == {"birds/owl", "birds/wren", "birds/tit", "ducks"}
        assert row.families[row.worst_family]["fpr95"]["value"] == max(
            family["fpr95"]["value"] for family in row.families.values()
        )
        assert row.kinds[row.worst_kind]["value"] == min(kind["value"] for kind in row.kinds.values())


def test_comparison_is_json_and_the_same_again(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrate.resampling.DRAWS", 40)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["mixtures"][0]["bic"] == found.mixtures[0].bic
    samples = clusters.samples({"macaw": 20, "amazon": 20}, {"birds/owl": 15, "ducks": 25})
    assert compare(samples, 3, ["robust"]) == compare(samples, 3, ["robust"])


def test_mixture_is_the_likeliest_on_left_out_folders_whatever_bic_says(found: Comparison) -> None:
    left_out = [candidate.left_out for candidate in found.mixtures]
    assert left_out == sorted(left_out, reverse=True)
    assert {c.covariance for c in found.mixtures} == {"spherical", "diag", "tied"}


@pytest.mark.parametrize("width", [60, 100, 200])
def test_tables_show_every_figure_whole(found: Comparison, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in comparison_tables(found, width, all_families=True):
        console.print(table, width=width)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for row in found.rows:
        assert row.name in text
    if width >= 100:
        assert "…" not in text
        everything = found.rows[0].figures["sources"]["all"]["fpr95"]
        assert f"{everything['ci95'][1]:.3f}".removeprefix("0") in text


def test_large_family_is_judged_by_fits_that_never_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = clusters.samples({"macaw": 20, "amazon": 20}, {"birds/owl": 15, "birds/wren": 15, "objects": 40})
    marked = samples.with_features(np.arange(len(samples.positive), dtype=np.float32)[:, None] + 1.0)
    seen: list[tuple[set[int], set[int]]] = []

    def judge(train: Samples, x: Float64) -> Judged:
        seen.append((set(train.features[:, 0].astype(int)), set(x[:, 0].astype(int))))
        return Judged(np.zeros(len(x)), np.zeros(len(x)), np.zeros(len(x), dtype=bool))

    monkeypatch.setattr("calibrate.comparison.contenders", lambda *_: [Contender("spy", judge, normalise=False)])
    monkeypatch.setattr("calibrate.resampling.DRAWS", 5)
    compare(marked)
    objects = set((np.flatnonzero(samples.family == "objects") + 1).tolist())
    assert all(not train & fresh for train, fresh in seen)
    apart = [fresh & objects for train, fresh in seen if not train & objects]
    assert set().union(*apart) == objects


def test_threshold_that_is_wished_for_is_found_in_training_and_judged_on_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("calibrate.resampling.DRAWS", 5)
    samples = clusters.samples(
        {"macaw": 20, "amazon": 20, "grey": 20}, {"birds/owl": 20, "birds/wren": 20, "ducks": 25}
    )
    noise = np.random.default_rng(0).normal(0.0, 3.0, samples.features.shape)
    noisy = samples.with_features(samples.features + noise.astype(np.float32))
    found = {text: compare(noisy, names=["robust"], wish=parse_wish(text, Use())) for text in ("0.5", "cost:5")}
    lengths: list[tuple[int, int]] = []

    class Watched:
        def threshold(self, decisive: Float64, positive: Booleans) -> float:
            lengths.append((len(decisive), len(positive)))
            return 0.5

    compare(noisy, names=["robust", "kNN"], wish=Watched())  # type: ignore[arg-type]
    assert len(lengths) >= 10
    assert all(n == len(labels) < len(noisy.positive) for n, labels in [(a, range(b)) for a, b in lengths])
    assert found["cost:5"].threshold == "cost:5 where 0.02 of frames are positive"
    plain, rare = (f.rows[0].figures for f in found.values())
    assert plain["ece"] == rare["ece"]
    for name in ("recall", "all"):
        shares = [f["recall"] if name == "recall" else f["sources"]["all"]["false_accepts"] for f in (plain, rare)]
        assert shares[0]["value"] > shares[1]["value"], name


def test_recall_with_none_accepted_is_that_above_the_best_negative() -> None:
    samples = clusters.samples({"macaw": 10}, {"ducks": 10})
    score = np.concatenate((np.arange(10.0), np.arange(10.0) - 6.5))
    assert against(samples, ~samples.positive, score, 0)["tpr_at_fpr_0"]["value"] == 0.7


def test_paired_difference_is_tighter_than_the_two_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrate.resampling.DRAWS", 200)
    rng = np.random.default_rng(0)
    samples = clusters.samples({f"k{i}": 10 for i in range(6)}, {f"birds/b{i}": 10 for i in range(6)})
    hard = rng.normal(0, 1, 12).repeat(10) + 1.5 * samples.positive
    scores = hard + rng.normal(0, 0.3, 120), hard + rng.normal(0, 0.3, 120)
    rows = ~samples.positive
    low, high = difference(samples, rows, scores, 0)["auroc"]["ci95"]
    own = against(samples, rows, scores[0], 0)["auroc"]["ci95"]
    assert high - low < 0.5 * (own[1] - own[0])
    assert difference(samples, rows, (scores[0], scores[0]), 0)["fpr95"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_unknown_member_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="--only ocsvm: there is no such recipe or member; there are robust, seed, "):
        compare(clusters.samples({"macaw": 12}, {"ducks": 5}), names=["ocsvm"])


def test_related_kinds_become_one_family() -> None:
    samples = clusters.samples({"macaw": 3, "military": 2, "grey": 4}, {"ducks": 5})
    merged = merge_families(samples, parse_groups(["macaw, military"]))
    assert set(merged.family[merged.positive]) == {"macaw+military", "parrots/grey"}
    assert (merged.family == "macaw+military").sum() == 5
    np.testing.assert_array_equal(merged.features, samples.features)


@pytest.mark.parametrize("together", [["macaw"], ["macaw,grey", "grey,amazon"]])
def test_group_of_one_or_in_two_is_refused(together: list[str]) -> None:
    with pytest.raises(UsageError, match="--together takes two folders or more"):
        parse_groups(together)


def test_unknown_kind_and_too_few_samples_are_refused() -> None:
    samples = clusters.samples({"macaw": 12}, {"ducks": 5})
    with pytest.raises(UsageError, match="no folder 'makaw'; there are ducks, macaw"):
        merge_families(samples, {"makaw": "a"})
    with pytest.raises(UsageError, match="at least 10 positives and 5 negatives"):
        compare(clusters.samples({"macaw": 12}, {"ducks": 4}))


def test_scores_of_which_most_are_the_best_there_is_keep_their_unit() -> None:
    positive = np.array([0.0, 0.0, 0.0, -4.0])
    score = np.array([-1.0, -2.0])
    np.testing.assert_allclose(standard(1000.0 * score, 1000.0 * positive), standard(score, positive))
