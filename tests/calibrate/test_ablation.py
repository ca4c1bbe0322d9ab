"""``calibrate ablate``: every idea on the same pictures, and a gain that is paired."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.ablation import IDEAS, REFERENCE, Outcome, ablate, ablation_tables, paired_gain, shuffled_split
from calibrate.families import merge_families
from calibrate.samples import Samples
from engines import UsageError
from tests.calibrate import clusters


@pytest.fixture(scope="module")
def pictures() -> Samples:
    return clusters.samples(clusters.PARROTS, clusters.OTHERS)


@pytest.fixture(scope="module")
def outcomes(pictures: Samples) -> list[Outcome]:
    noisy = pictures.features + np.random.default_rng(1).standard_normal(pictures.features.shape).astype(np.float32)
    merged = {"full": pictures, "full,hflip": pictures.with_features(noisy)}
    merged["full,centre"] = pictures.with_features(0.5 * (noisy + pictures.features))
    groups = {"macaw": "both", "amazon": "both"}
    return ablate({name: merge_families(one, groups) for name, one in merged.items()}, pictures, range(2))


def test_every_idea_has_figures_of_each_seed_and_a_paired_gain(outcomes: list[Outcome]) -> None:
    assert [one.idea for one in outcomes] == list(IDEAS)
    assert all(len(one.figures) == 2 for one in outcomes)
    gains = {one.idea.name: one.gain for one in outcomes}
    assert gains[REFERENCE] == (0.0, 0.0, 0.0)
    assert gains["robust, flips"][2] < 0.0  # the view is worse here, and the interval says so
    assert [table.row_count for table in ablation_tables(outcomes)] == 3 * [len(IDEAS)]  # all, birds, objects


def test_every_idea_changes_what_is_found(outcomes: list[Outcome]) -> None:
    assert len({round(one.gain[0], 9) for one in outcomes}) == len(IDEAS)


def test_seeds_mix_folders_and_keep_each_whole(pictures: Samples) -> None:
    first, second = (shuffled_split(pictures, pictures.family, seed).fold for seed in (0, 2))
    assert (first != second).any()
    kinds = {name: set(first[pictures.family == name]) for name in np.unique(pictures.family[pictures.positive])}
    assert all(len(folds) == 1 for folds in kinds.values())


def test_interval_of_a_gain_widens_where_one_family_carries_it() -> None:
    family = np.repeat(["a", "b", "c", "d", "e", "f"], 10)
    even = paired_gain(np.full(60, 0.1), family, 0)
    uneven = paired_gain(np.where(family == "a", 0.6, 0.0), family, 0)
    assert even == pytest.approx((0.1, 0.1, 0.1))
    assert uneven[0] == pytest.approx(0.1)
    assert uneven[1] == 0.0


def test_too_few_negatives_are_refused(pictures: Samples) -> None:
    few = pictures.take(pictures.positive)
    with pytest.raises(UsageError, match="at least 20 positives and 20 negatives; found 120 and 0"):
        ablate(dict.fromkeys(("full", "full,hflip", "full,centre"), few), few, range(1))
