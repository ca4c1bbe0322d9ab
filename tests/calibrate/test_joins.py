"""What a join learns from held-out scores."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.joins import Factor, FittedJoin, fit_join
from calibrate.metrics import auroc
from calibrate.samples import Booleans, Float64


def pictures(n: int = 4000) -> tuple[Float64, Booleans, Booleans]:
    """Scores (3, n) of a density, a border to neighbours and one to what is far; who is near, who is positive.

    Log odds of the two borders are true; the density says nothing.
    """
    rng = np.random.default_rng(0)
    near, positive = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    far_says, near_says = 4.0 * rng.standard_normal(n) + 2.0, 3.0 * rng.standard_normal(n)
    near[:] = rng.random(n) < 1 / (1 + np.exp(-far_says))
    positive[:] = near & (rng.random(n) < 1 / (1 + np.exp(-near_says)))
    return np.stack([rng.standard_normal(n), near_says, far_says]), near, positive


def factors(near: Booleans, positive: Booleans) -> tuple[Factor, Factor]:
    everything = np.ones(len(near), np.bool_)
    return Factor((0, 2), everything, near), Factor((1,), near, positive)


def test_product_finds_the_weights_of_true_log_odds() -> None:
    scores, near, positive = pictures()
    join = fit_join(scores, positive, (1.0, 1.0, 1.0), factors(near, positive))
    assert join.kind == "product"
    density, finer, far = join.arrays["join.weights"].max(axis=0)
    assert finer == pytest.approx(1.0, abs=0.15)
    assert far == pytest.approx(1.0, abs=0.15)
    assert density < 0.1
    np.testing.assert_array_equal(join.arrays["join.weights"] > 1e-3, [[False, False, True], [False, True, False]])


def test_product_ranks_better_than_summed_deviations_where_members_differ_in_worth() -> None:
    scores, near, positive = pictures()
    scores[0] *= 100.0  # says nothing, loudly; deviations are scaled, so only its place in the sum counts
    forgives = (0.5, 1.0, 0.5)
    multiplied = fit_join(scores, positive, forgives, factors(near, positive))(scores)
    summed = fit_join(scores, positive, forgives)(scores)
    assert auroc(multiplied[positive], multiplied[~positive]) > auroc(summed[positive], summed[~positive]) + 0.02


def test_unit_of_a_member_changes_nothing() -> None:
    scores, near, positive = pictures(500)
    forgives, taught = (0.5, 1.0, 0.5), factors(near, positive)
    plain = fit_join(scores, positive, forgives, taught)(scores)
    other = scores * np.array([[1000.0], [0.01], [7.0]]) + np.array([[5.0], [-3.0], [100.0]])
    np.testing.assert_allclose(fit_join(other, positive, forgives, taught)(other), plain, rtol=1e-3, atol=1e-3)


def test_sides_count_alike_however_many_pictures_each_has() -> None:
    scores, near, positive = pictures()
    few = near | (np.arange(len(near)) % 10 == 0)  # a tenth of what is far
    kept = scores[:, few], positive[few], factors(near[few], positive[few])
    rare = fit_join(kept[0], kept[1], (1.0, 1.0, 1.0), kept[2])
    full = fit_join(scores, positive, (1.0, 1.0, 1.0), factors(near, positive))
    assert undecided(rare) == pytest.approx(undecided(full), abs=0.5)


def undecided(join: FittedJoin) -> float:
    """The score of the far border at which its factor is a half."""
    weight, intercept = join.arrays["join.weights"][0, 2], join.arrays["join.intercept"][0]
    return float(join.arrays["join.centre"][2] - intercept / weight)


def test_one_member_is_its_own_score() -> None:
    join = fit_join(np.array([[1.0, 2.0]]), np.array([True, False]), (0.5,))
    assert join == FittedJoin("single", {})
    np.testing.assert_array_equal(join([np.array([4.0])]), [4.0])


def test_factor_is_taught_by_the_pictures_that_are_kept() -> None:
    _, near, positive = pictures(50)
    kept = np.arange(50) < 20
    factor = factors(near, positive)[1].take(kept)
    np.testing.assert_array_equal(factor.rows, near[:20])
    np.testing.assert_array_equal(factor.among, positive[:20])
