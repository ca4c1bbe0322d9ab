"""Fitted gates: held-out, seeded, honest about what the samples can give."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibrate.decision import Wish
from calibrate.fit import FitOptions, FittedGate, fit_gate
from calibrate.recipes import make_recipe
from calibrate.samples import Samples, drop_repeats
from edge.gate import Gate
from edge.gate_file import save_gate
from engines import UsageError
from tests.calibrate import clusters


def fit(samples: Samples, recipe: str = "robust", components: int | None = None, **options: Any) -> FittedGate:
    return fit_gate(samples, clusters.model(), make_recipe(recipe, components, None, 0), FitOptions(**options))


@pytest.fixture(scope="module")
def samples() -> Samples:
    return clusters.samples(clusters.PARROTS, clusters.OTHERS)


@pytest.mark.parametrize("recipe", ["robust", "seed"])
def test_same_samples_give_the_same_file(recipe: str, samples: Samples, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fitted = fit(samples, recipe)
        save_gate(tmp_path / name, fitted.manifest, fitted.arrays)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_robust_gate_tells_unseen_pictures_apart(samples: Samples) -> None:
    fitted = fit(samples)
    fresh = clusters.samples(dict.fromkeys(clusters.PARROTS, 20), dict.fromkeys(clusters.OTHERS, 20), seed=0)
    judged = Gate(fitted.manifest, fitted.arrays).judge(fresh.features)
    assert judged.accepted[fresh.positive].mean() > 0.9
    assert judged.accepted[~fresh.positive].mean() < 0.1


def test_held_out_scores_are_not_those_of_the_fitted_members(samples: Samples) -> None:
    """Members know their own pictures; a p-value from such scores would reject most fresh positives."""
    fitted = fit(samples)
    own = Gate(fitted.manifest, fitted.arrays).judge(samples.features[samples.positive]).score
    assert np.median(fitted.arrays["conformal.scores"]) < np.median(own)


def test_no_negatives_leave_the_decision_to_a_p_value(caplog: pytest.LogCaptureFixture) -> None:
    alone = clusters.samples(clusters.PARROTS)
    fitted = fit(alone)
    judged = Gate(fitted.manifest, fitted.arrays).judge(alone.features)
    assert judged.probability is None
    assert fitted.manifest.decision.by == "p_value"
    assert fitted.manifest.decision.threshold == 0.05
    assert "a conformal p-value decides" in caplog.text


def test_p_value_rejects_about_alpha_of_fresh_positives_of_known_kinds() -> None:
    everything = clusters.samples({"macaw": 800})
    first, second = everything.take(np.arange(800) < 400), everything.take(np.arange(800) >= 400)
    fitted = fit(first, wish=Wish("value", 0.1))
    rejected = 1.0 - Gate(fitted.manifest, fitted.arrays).judge(second.features).accepted.mean()
    assert 0.03 < rejected < 0.18


def test_a_handful_of_negatives_calibrates_but_teaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    fitted = fit(clusters.samples(clusters.PARROTS, {"ducks": 8}))
    assert [member.kind for member in fitted.manifest.members] == ["gaussian"]
    assert fitted.manifest.calibration in ("platt", "beta")
    assert "only 8 negatives" in caplog.text


def test_one_negative_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    fitted = fit(clusters.samples(clusters.PARROTS, {"ducks": 1}))
    assert fitted.manifest.decision.by == "p_value"
    assert "only one negative" in caplog.text


@pytest.mark.parametrize("recipe", ["robust", "seed"])
def test_few_positives_still_make_a_gate_with_negatives(recipe: str) -> None:
    fitted = fit(clusters.samples({"macaw": 6, "amazon": 6}, {"ducks": 30}), recipe)
    assert fitted.manifest.decision.by == "probability"


@pytest.mark.parametrize("positives", [200, 50, 10])
def test_any_sensible_number_of_positives_gives_a_gate_that_tells_apart(positives: int) -> None:
    kinds = {"macaw": positives // 2, "amazon": positives - positives // 2}
    fitted = fit(clusters.samples(kinds, {"owls": 40, "ducks": 40}))
    assert fitted.manifest.metrics["sources"]["all"]["auroc"]["value"] > 0.85


def test_far_source_is_told_apart_from_positives_and_neighbours_together() -> None:
    samples = clusters.samples(clusters.PARROTS, {"birds/owl": 30, "birds/wren": 30, "objects": 40})
    objects = samples.source == "objects"
    far = samples.features + np.where(objects, 2.0, 0.0)[:, None].astype(np.float32)
    far[objects, ::2] = 0.0
    far[objects] *= np.random.default_rng(0).uniform(0.2, 3.0, far[objects].shape)  # no near-duplicates
    fitted = fit(samples.with_features(far))
    assert [member.name for member in fitted.manifest.members] == ["density", "discriminative", "far"]
    score = Gate(fitted.manifest, fitted.arrays).member_scores(far)["far"]
    assert score[samples.source == "birds"].min() > score[samples.source == "objects"].max()
    assert fitted.manifest.options["neighbourhood"] == "birds"


def test_far_source_that_one_fold_holds_whole_makes_no_border_of_its_own() -> None:
    fitted = fit(clusters.samples(clusters.PARROTS, {"birds/owl": 60, "birds/wren": 60, "ducks": 25}))
    assert [member.name for member in fitted.manifest.members] == ["density", "discriminative"]
    assert "neighbourhood" not in fitted.manifest.options


def test_too_few_positives_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="9 readable, different positives are too few"):
        fit(clusters.samples({"macaw": 9}, {"ducks": 30}))


def test_p_value_that_could_reject_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="would accept everything; give at least 19 positives"):
        fit(clusters.samples({"macaw": 15}))
    fit(clusters.samples({"macaw": 15}), wish=Wish("value", 0.1))


@pytest.mark.parametrize("recipe", ["seed", "robust"])
def test_components_beyond_the_samples_are_refused(recipe: str, samples: Samples) -> None:
    chosen = make_recipe(recipe, 49, "ppca" if recipe == "robust" else None, 0)
    with pytest.raises(UsageError, match="at most 48"):
        fit_gate(samples, clusters.model(), chosen, FitOptions())


def test_components_and_covariances_belong_to_their_recipes(samples: Samples) -> None:
    with pytest.raises(UsageError, match="--components belongs to --covariance ppca"):
        fit(samples, "robust", 10)
    with pytest.raises(UsageError, match="ledoit-wolf, ppca for recipe robust"):
        make_recipe("robust", None, "tied", 0)
    with pytest.raises(UsageError, match="robust or seed"):
        make_recipe("best", None, None, 0)


def test_chosen_threshold_is_the_files_own_and_counted_at(samples: Samples) -> None:
    strict, lax = (fit(samples, wish=Wish("value", at)) for at in (0.99, 0.01))
    assert strict.manifest.decision.threshold == 0.99
    assert strict.manifest.metrics["recall"]["hits"] < lax.manifest.metrics["recall"]["hits"]


def test_repeated_pictures_are_used_once_and_those_on_both_sides_not_at_all() -> None:
    samples = clusters.samples({"macaw": 4}, {"ducks": 3})
    a, duck = samples.digests[0], samples.digests[4]
    digests = (a, a, duck, samples.digests[3], duck, duck, samples.digests[6])
    twice = Samples(samples.features, samples.positive, samples.family, samples.source, digests)
    kept, repeats = drop_repeats(twice)
    assert (kept.positives, kept.negatives, repeats, kept.torn) == (2, 1, 2, (duck,))
    assert kept.digests == (a, samples.digests[3], samples.digests[6])


def test_manifest_counts_what_was_left_out_for_lying_on_both_sides(samples: Samples) -> None:
    assert "left_out_on_both_sides" not in fit(samples).manifest.options
    torn = Samples(samples.features, samples.positive, samples.family, samples.source, samples.digests, ("a", "b"))
    assert fit(torn).manifest.options["left_out_on_both_sides"] == 2


def test_fit_uses_no_global_randomness(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    np.random.seed(1)
    first = fit(samples, "seed").arrays
    np.random.seed(2)
    second = fit(samples, "seed").arrays
    assert all((first[name] == second[name]).all() for name in first)
