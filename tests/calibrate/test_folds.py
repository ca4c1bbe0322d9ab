"""Folds keep folders together, and say so where they cannot."""

from __future__ import annotations

import numpy as np

from calibrate.folds import grouped_folds, split
from tests.calibrate import clusters


def test_every_kind_and_family_stays_in_one_fold() -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    folds = split(samples, seed=0)
    for family in set(samples.family) - {"objects"}:
        assert len(set(folds.fold[samples.family == family])) == 1, family
    assert set(folds.fold[samples.positive]) == set(range(5))


def test_family_with_a_quarter_of_the_negatives_is_spread_and_named() -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    folds = split(samples, seed=0)
    assert set(folds.fold[samples.family == "objects"]) == set(range(5))
    assert "objects spread plainly" in folds.description


def test_single_folder_falls_back_to_plain_folds_and_says_so() -> None:
    groups = np.array(["parrots"] * 50)
    fold, sentence = grouped_folds(groups, 5, 0.5, np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [10] * 5
    assert "plain folds" in sentence


def test_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    samples = clusters.samples({"macaw": 40})
    assert (split(samples, seed=1).fold == split(samples, seed=1).fold).all()
    assert (split(samples, seed=1).fold != split(samples, seed=2).fold).any()


def test_groups_fill_folds_evenly() -> None:
    groups = np.repeat([f"kind{i}" for i in range(40)], 5)
    fold, _ = grouped_folds(groups, 5, 0.5, np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [40] * 5
