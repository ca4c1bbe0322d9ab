"""What the robust recipe takes for its neighbourhood."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibrate.folds import split
from calibrate.recipes import RobustRecipe
from calibrate.samples import Samples
from tests.calibrate import clusters


def planned(samples: Samples) -> RobustRecipe:
    return RobustRecipe().planned(samples, split(samples, 0).fold)


def with_few_decoys(few: int) -> Samples:
    """Pictures whose source ``decoys`` lies nearer to the positives than any other."""
    samples = clusters.samples(clusters.PARROTS, {**clusters.OTHERS, "decoys/duck": few, "decoys/toy": few})
    features = samples.features.copy()
    decoys = samples.source == "decoys"
    features[decoys] = 0.1 * features[decoys] + 0.9 * features[samples.positive].mean(axis=0)
    return samples.with_features(features)


def test_neighbourhood_is_the_source_that_the_density_likes_best() -> None:
    assert planned(with_few_decoys(60)).nearest == "decoys"


def test_source_too_small_to_learn_from_leaves_the_next_one_as_the_neighbourhood() -> None:
    found = planned(with_few_decoys(6))
    assert found.nearest in ("birds", "objects")


@pytest.mark.parametrize("kept", [("birds",), ("objects",)])
def test_one_source_alone_is_no_neighbourhood(kept: tuple[str, ...]) -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    alone = samples.take(samples.positive | np.isin(samples.source, kept))
    assert planned(alone).nearest is None


def test_factors_name_who_teaches_them() -> None:
    samples = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    recipe = replace(planned(samples), nearest="birds")
    neighbourhood, border = recipe.factors(samples)
    assert neighbourhood.rows.all()
    np.testing.assert_array_equal(neighbourhood.among, samples.positive | (samples.source == "birds"))
    np.testing.assert_array_equal(border.rows, neighbourhood.among)
    np.testing.assert_array_equal(border.among, samples.positive)
    assert replace(recipe, summed=True).factors(samples) == ()
    members = recipe.fit(samples, discriminative=True)
    named = [[members[i].member.name for i in factor.members] for factor in (neighbourhood, border)]
    assert named == [["density", "far"], ["discriminative"]]
