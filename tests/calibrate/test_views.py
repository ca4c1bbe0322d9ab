"""Views of a batch of prepared inputs."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.views import ALL_VIEWS, view_of
from engines import InputSpec


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_layouts_show_the_same(view: str) -> None:
    rows = np.random.default_rng(0).random((2, 16, 24, 3)).astype(np.float32)
    last = view_of(rows, view, InputSpec(layout="NHWC", height=16, width=24))
    channels = np.ascontiguousarray(rows.transpose(0, 3, 1, 2))
    first = view_of(channels, view, InputSpec(layout="NCHW", height=16, width=24))
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)
    assert last.shape == rows.shape
    assert first.flags.c_contiguous


def test_zoomed_out_view_holds_the_picture_at_half_its_size_amid_mirror_images() -> None:
    rows = np.zeros((1, 16, 16, 3), np.float32)
    rows[0, 6:10, 6:10] = 1.0
    spec = InputSpec(layout="NHWC", height=16, width=16)
    shown = view_of(rows, "zoom_0.5", spec)[0, :, :, 0]
    assert shown[7:9, 7:9].min() == 1.0
    assert shown[4:12, 4:12].sum() == pytest.approx(4.0)
    assert view_of(rows, "zoom_0.8", spec)[0, 3:13, 3:13, 0].sum() > 4.0
