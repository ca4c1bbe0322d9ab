"""``fit --views auto``: a flip must prove its worth."""

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


def test_flip_that_helps_is_taken_and_its_cost_is_said(caplog: pytest.LogCaptureFixture) -> None:
    clear = clusters.samples(clusters.PARROTS, clusters.OTHERS)
    with caplog.at_level(logging.INFO):
        assert choose_views(dict(zip(CANDIDATES, (noisy(clear, 2.0), clear), strict=True)), RobustRecipe(), 0) == (
            "full",
            "hflip",
        )
    assert "each frame costs twice the inference" in caplog.text


def test_flip_that_changes_nothing_is_not_worth_its_inference() -> None:
    pictures = noisy(clusters.samples(clusters.PARROTS, clusters.OTHERS), 1.0)
    assert choose_views(dict.fromkeys(CANDIDATES, pictures), RobustRecipe(), 0) == CHEAPEST


def test_without_negatives_the_cheapest_views_are_taken() -> None:
    pictures = clusters.samples(clusters.PARROTS)
    assert choose_views(dict.fromkeys(CANDIDATES, pictures), RobustRecipe(), 0) == CHEAPEST
