"""``fit --views auto``: a second view must prove its worth."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from calibrate.recipes import RobustRecipe
from calibrate.samples import Samples
from calibrate.view_choice import CANDIDATES, CHEAPEST, choose_views
from tests.calibrate import clusters


def noisy(pictures: Samples, spread: float) -> Samples:
    noise = np.random.default_rng(1).standard_normal(pictures.features.shape)
    return pictures.with_features((pictures.features + spread * noise).astype(np.float32))


def shown(full: Samples, hflip: Samples, centre: Samples) -> dict[tuple[str, ...], Samples]:
    return dict(zip(CANDIDATES, (full, hflip, centre), strict=True))


@pytest.mark.parametrize("better", ["hflip", "centre"])
def test_view_that_helps_most_is_taken_and_its_cost_is_said(better: str, caplog: pytest.LogCaptureFixture) -> None:
    clear = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    tried = {"hflip": noisy(clear, 1.0), "centre": noisy(clear, 1.0)} | {better: clear}
    with caplog.at_level(logging.INFO):
        assert choose_views(shown(noisy(clear, 2.0), **tried), RobustRecipe(), 0) == ("full", better)
    assert "each frame costs twice the inference" in caplog.text


def test_view_that_changes_nothing_is_not_worth_its_inference() -> None:
    pictures = noisy(clusters.samples(clusters.PARROTS, clusters.OTHERS), 1.0)
    assert choose_views(dict.fromkeys(CANDIDATES, pictures), RobustRecipe(), 0) == CHEAPEST


def test_without_negatives_the_cheapest_views_are_taken() -> None:
    pictures = clusters.samples(clusters.PARROTS)
    assert choose_views(dict.fromkeys(CANDIDATES, pictures), RobustRecipe(), 0) == CHEAPEST
