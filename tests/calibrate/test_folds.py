"""Folds keep folders together, and say so where they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrate.duplicates import ALIKE, near_duplicates
from calibrate.fit import hold_out
from calibrate.folds import split
from calibrate.metrics import auroc
from calibrate.recipes import make_recipe
from calibrate.samples import Samples
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
    folds = split(clusters.samples({"macaw": 50}), seed=0)
    assert np.bincount(folds.fold).tolist() == [10] * 5
    assert "plain folds" in folds.description


def test_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    samples = clusters.samples({"macaw": 40})
    assert (split(samples, seed=1).fold == split(samples, seed=1).fold).all()
    assert (split(samples, seed=1).fold != split(samples, seed=2).fold).any()


def test_groups_fill_folds_evenly() -> None:
    folds = split(clusters.samples({f"kind{i}": 5 for i in range(40)}), seed=0)
    assert np.bincount(folds.fold).tolist() == [40] * 5


def with_twins(samples: Samples, pairs: list[tuple[int, int]]) -> Samples:
    """``samples`` where the second row of each pair becomes nearly the first."""
    features = samples.features.copy()
    rng = np.random.default_rng(9)
    for first, second in pairs:
        features[second] = features[first] * 1.1 + 1e-3 * rng.standard_normal(features.shape[1])
    return samples.with_features(features)


@settings(max_examples=60, deadline=None)
@given(
    positives=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    negatives=st.lists(st.integers(1, 12), max_size=6),
    data=st.data(),
)
def test_no_near_duplicates_are_in_different_folds(
    positives: list[int], negatives: list[int], data: st.DataObject
) -> None:
    kinds = {f"kind{i}": 3 + n for i, n in enumerate(positives)}
    samples = clusters.samples(kinds, {f"far/{i}": n for i, n in enumerate(negatives)})
    rows = st.integers(0, len(samples.positive) - 1)
    twins = with_twins(samples, data.draw(st.lists(st.tuples(rows, rows), max_size=8)))
    folds = split(twins, seed=data.draw(st.integers(0, 3)))
    assert ((folds.fold >= 0) & (folds.fold < folds.count)).all()
    for group in near_duplicates(twins.features):
        most = [2 * (twins.positive[group] == label).sum() > max(2, (twins.positive == label).sum())
                for label in (True, False)]  # fmt: skip
        assert any(most) or len(set(folds.fold[group])) == 1


def test_folders_of_one_picture_each_are_dealt_to_different_folds() -> None:
    samples = clusters.samples({"kind0": 4, "kind1": 4}, {"far/0": 1, "far/1": 1})
    folds = split(with_twins(samples, [(0, 4)]), seed=0)
    assert len(set(folds.fold[~samples.positive])) == 2
    assert folds.fold[0] == folds.fold[4]


def test_folders_with_a_common_twin_share_a_fold_and_it_is_said() -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    apart = split(samples, seed=0).fold
    pair = next((0, int(row)) for row in np.flatnonzero(samples.positive) if apart[row] != apart[0])
    folds = split(with_twins(samples, [pair]), seed=0)
    both = np.isin(samples.family, samples.family[list(pair)])
    assert len(set(folds.fold[both])) == 1
    assert "2 near-duplicates kept together in 1 groups" in folds.description


def test_twin_chain_through_many_folders_moves_pictures_and_joins_no_folders_beyond_the_limit() -> None:
    kinds = {f"kind{i}": 10 for i in range(10)}
    samples = clusters.samples(kinds)
    folds = split(with_twins(samples, [(10 * i, 10 * i + 11) for i in range(9)]), seed=0)
    assert np.bincount(folds.fold, minlength=5).max() <= 51


def test_twins_on_both_sides_share_a_fold_and_are_counted_aloud(caplog: pytest.LogCaptureFixture) -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    duck = int(np.flatnonzero(samples.family == "objects")[3])
    folds = split(with_twins(samples, [(5, duck)]), seed=0)
    assert folds.fold[5] == folds.fold[duck]
    assert "1 groups of near-duplicates hold positives and negatives" in caplog.text


def test_class_that_is_nearly_one_picture_is_spread_and_named(caplog: pytest.LogCaptureFixture) -> None:
    samples = clusters.samples({"macaw": 20}, {"ducks": 20})
    folds = split(with_twins(samples, [(0, row) for row in range(1, 18)]), seed=0)
    assert len(set(folds.fold[:18])) == 5
    assert "18 pictures are near-duplicates of more than half of their class" in caplog.text


def test_twins_across_folds_flatter_the_figures_when_they_are_not_merged() -> None:
    """The negative control: one folder of 30 motifs, each photographed twice; labels that mean nothing."""
    rng = np.random.default_rng(4)
    motifs = np.maximum(rng.standard_normal((60, 256)), 0.0).astype(np.float32)
    features = np.repeat(motifs, 2, axis=0) + 0.01 * rng.standard_normal((120, 256)).astype(np.float32)
    positive = np.repeat(np.arange(60) % 2 == 0, 2)
    names = np.where(positive, "a", "b")
    samples = Samples(features, positive, names, names, tuple(f"{i:064x}" for i in range(120)))
    recipe = make_recipe("robust", None, None, 0)

    def found(alike: float | None) -> float:
        held_out, _, _ = hold_out(samples, recipe, split(samples, 0, alike=alike), discriminative=True)
        return auroc(held_out.score[positive], held_out.score[~positive])

    assert found(None) > 0.95
    assert found(ALIKE) < 0.75
