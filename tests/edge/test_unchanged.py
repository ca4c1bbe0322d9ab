"""Unchanged frames: a still camera reuses its verdict, a small bird or a slow change does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.records import Frame, Outcome, UInt8, Verdict
from edge.unchanged import MAX_AGE_S, Unchanged
from tests.edge.frames import raw_frame
from tests.edge.status import verdict as make_verdict


def seen(pixels: UInt8, at: float = 0.0, camera: str = "feeder") -> Frame:
    """A decoded frame."""
    return Frame(raw_frame(camera), b"", "0" * 64, at, at, pixels=pixels)


@pytest.fixture
def scene() -> UInt8:
    return np.random.default_rng(0).integers(40, 200, (240, 320, 3), dtype=np.uint8)


@pytest.fixture
def judged() -> Verdict:
    return make_verdict(outcome=Outcome.NEGATIVE)


def test_sensor_noise_reuses_the_verdict(scene: UInt8, judged: Verdict) -> None:
    unchanged = Unchanged()
    unchanged.remember(seen(scene), judged)
    noisy = np.clip(scene + np.random.default_rng(1).normal(0, 6, scene.shape), 0, 255).astype(np.uint8)
    assert unchanged.recall(seen(noisy, 1.0)) is judged


def test_small_visitor_is_seen(scene: UInt8, judged: Verdict) -> None:
    unchanged = Unchanged()
    unchanged.remember(seen(scene), judged)
    visited = scene.copy()
    visited[100:112, 150:162] = 255
    assert unchanged.recall(seen(visited, 1.0)) is None


def test_slow_change_adds_up_until_it_is_seen(scene: UInt8, judged: Verdict) -> None:
    unchanged = Unchanged()
    unchanged.remember(seen(scene), judged)
    recalled = [
        unchanged.recall(seen(np.clip(scene.astype(int) + step, 0, 255).astype(np.uint8))) for step in range(12)
    ]
    assert recalled[1] is judged
    assert recalled[-1] is None


def test_old_error_and_other_camera_are_not_reused(scene: UInt8, judged: Verdict) -> None:
    unchanged = Unchanged()
    unchanged.remember(seen(scene), judged)
    assert unchanged.recall(seen(scene, MAX_AGE_S + 1)) is None
    assert unchanged.recall(seen(scene, camera="other")) is None
    unchanged.remember(seen(scene, camera="broken"), make_verdict("broken", Outcome.ERROR))
    assert unchanged.recall(seen(scene, camera="broken")) is None
    assert unchanged.recall(replace(seen(scene), pixels=None, error="no image")) is None
