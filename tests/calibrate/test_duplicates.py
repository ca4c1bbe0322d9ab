from __future__ import annotations

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
