from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from calibrate import duplicates
from calibrate.duplicates import near_duplicates


def test_near_duplicates_are_grouped_through_one_another() -> None:
    angle = np.array([0.0, 0.2, 0.4, 1.5, 3.0, 3.01])  # cos(0.2) = 0.980, cos(0.4) = 0.921
    features = 7.0 * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    assert [rows.tolist() for rows in near_duplicates(features)] == [[0, 1, 2], [4, 5]]


def test_no_pair_alike_gives_no_group() -> None:
    assert near_duplicates(np.eye(5)) == []


def test_pairs_across_blocks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).standard_normal((50, 16))
    features[41] = 3.0 * features[2]
    features[17] = features[16]
    whole = [rows.tolist() for rows in near_duplicates(features)]
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert [rows.tolist() for rows in near_duplicates(features)] == whole == [[2, 41], [16, 17]]


def test_quick_look_by_directions_loses_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    features = np.repeat(rng.standard_normal((60, 40)) + 1.0, 3, axis=0) + 0.2 * rng.standard_normal((180, 40))
    whole = [rows.tolist() for rows in near_duplicates(features)]
    assert 20 < len(whole) < 120
    monkeypatch.setattr(duplicates, "BLOCK", 50)
    for directions in (1, 5, 40):
        monkeypatch.setattr(duplicates, "DIRECTIONS", directions)
        assert [rows.tolist() for rows in near_duplicates(features)] == whole


def test_a_still_cameras_pictures_are_one_group_within_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    features = (1.0 + 0.01 * rng.standard_normal((3000, 8))).astype(np.float32)
    features[1234] *= np.where(np.arange(8) % 2, 1.0, -1.0)
    monkeypatch.setattr(duplicates, "BLOCK", 300)
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 50_000)
    tracemalloc.start()
    try:
        groups = near_duplicates(features)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(rows) for rows in groups] == [2999]
    assert peak < 20e6  # all 4.5 million pairs would take 72 MB
