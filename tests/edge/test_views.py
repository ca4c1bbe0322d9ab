"""The views whose features a gate averages."""

from __future__ import annotations

import numpy as np
import pytest

from edge.gate_manifest import VIEWS
from edge.views import view_of
from engines import InputSpec


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("view", VIEWS)
def test_layouts_and_dtypes_show_the_same(view: str, dtype: type) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3)).astype(dtype)
    last = view_of(rows, view, InputSpec(layout="NHWC", height=20, width=30))
    first = view_of(
        np.ascontiguousarray(rows.transpose(0, 3, 1, 2)), view, InputSpec(layout="NCHW", height=20, width=30)
    )
    np.testing.assert_allclose(first.transpose(0, 2, 3, 1), last, atol=1 if dtype is np.uint8 else 1e-4)
    assert last.shape == rows.shape
    assert last.dtype == first.dtype == dtype
    assert first.flags.c_contiguous
    assert last.flags.c_contiguous


def test_centre_enlarges_the_middle_and_drops_the_rim() -> None:
    rows = np.zeros((1, 40, 40, 3), np.float32)
    rows[0, :3] = rows[0, -3:] = rows[0, :, :3] = rows[0, :, -3:] = 9.0
    rows[0, 18:22, 18:22] = 1.0
    shown = view_of(rows, "centre", InputSpec(layout="NHWC", height=40, width=40))[0, :, :, 0]
    assert shown.max() == pytest.approx(1.0)
    assert shown.sum() == pytest.approx(16.0 / 0.85**2, rel=0.05)
    np.testing.assert_allclose(shown, shown[::-1, ::-1], atol=1e-6)


def test_hflip_mirrors_and_leaves_the_batch_as_it_was() -> None:
    rows = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    before = rows.copy()
    np.testing.assert_array_equal(
        view_of(rows, "hflip", InputSpec(layout="NCHW", height=4, width=5)), before[:, :, :, ::-1]
    )
    np.testing.assert_array_equal(rows, before)
