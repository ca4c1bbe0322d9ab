"""Input preparation: the manifest's formula to the last bit, the resize rules in their geometry."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import ImageError, InputSpec, prepare_input
from tests.engines import pictures

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RGB = pictures.scene(64, 48)


def spec(height: int = 48, width: int = 64, **changes: Any) -> InputSpec:
    return InputSpec(**{"layout": "NCHW", "height": height, "width": width, "mean": MEAN, "std": STD} | changes)


unit = st.floats(-5, 5)


@given(mean=st.tuples(unit, unit, unit), std=st.tuples(*[st.floats(0.01, 10)] * 3))
def test_normalisation_is_the_formula_correctly_rounded(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    row = prepare_input(levels, spec(1, 256, mean=mean, std=std))
    expected = ((levels / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(row, expected)


def test_layouts_hold_the_same_values() -> None:
    planes, pixels = (prepare_input(RGB, spec(layout=layout)) for layout in ("NCHW", "NHWC"))
    assert (planes.shape, pixels.shape) == ((3, 48, 64), (48, 64, 3))
    np.testing.assert_array_equal(planes.transpose(1, 2, 0), pixels)


def test_mean_and_std_go_with_the_channels_of_the_manifests_colour() -> None:
    row = prepare_input(RGB, spec(color="BGR"))
    np.testing.assert_array_equal(row, prepare_input(RGB[..., ::-1], spec()))
    np.testing.assert_allclose(row[0], (RGB[..., 2] / 255 - MEAN[0]) / STD[0], rtol=1e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_uint8_input_is_the_pixels_themselves(layout: Literal["NCHW", "NHWC"]) -> None:
    row = prepare_input(RGB, spec(dtype="uint8", layout=layout))
    assert row.dtype == np.uint8
    np.testing.assert_array_equal(row if layout == "NHWC" else row.transpose(1, 2, 0), RGB)


def test_the_row_is_new_and_the_pixels_are_left_alone() -> None:
    before = RGB.copy()
    for layout in ("NCHW", "NHWC"):
        for color in ("RGB", "BGR"):
            row = prepare_input(RGB, spec(dtype="uint8", layout=layout, color=color))
            row[:] = 0
    np.testing.assert_array_equal(RGB, before)


def pixels_of(image: Any, **changes: Any) -> Any:
    return prepare_input(image, spec(layout="NHWC", dtype="uint8", **changes))


def test_stretch_shrinks_by_area_and_enlarges_bilinearly() -> None:
    np.testing.assert_array_equal(
        pixels_of(RGB, height=20, width=30), cv2.resize(RGB, (30, 20), interpolation=cv2.INTER_AREA)
    )
    np.testing.assert_array_equal(
        pixels_of(RGB, height=100, width=90), cv2.resize(RGB, (90, 100), interpolation=cv2.INTER_LINEAR)
    )


def test_shrinking_one_axis_and_enlarging_the_other_still_averages() -> None:
    stripes = np.tile(np.array([[[0] * 3, [255] * 3]], np.uint8), (2, 400, 1))
    out = pixels_of(stripes, height=8, width=8)
    assert np.abs(out.astype(int) - 128).max() <= 1


def test_crop_keeps_the_centre_in_its_proportions() -> None:
    wide = np.zeros((50, 200, 3), np.uint8)
    wide[:, 75:125] = 200
    assert (pixels_of(wide, height=25, width=25, resize="crop") == 200).all()
    assert (pixels_of(wide.transpose(1, 0, 2), height=25, width=25, resize="crop") == 200).all()


def test_letterbox_pads_with_the_mean_and_keeps_the_proportions() -> None:
    wide = np.full((50, 200, 3), 255, np.uint8)
    out = pixels_of(wide, height=100, width=100, resize="letterbox")
    inside = np.flatnonzero((out == 255).all(axis=(1, 2)))
    assert (inside.min(), inside.max(), len(inside)) == (37, 61, 25)
    np.testing.assert_array_equal(out[0, 0], np.rint(np.array(MEAN) * 255))
    normalised = prepare_input(wide, spec(100, 100, resize="letterbox"))
    assert np.abs(normalised[:, 0, 0]).max() < 0.01
    swapped = prepare_input(wide, spec(100, 100, resize="letterbox", color="BGR"))
    assert np.abs(swapped[:, 0, 0]).max() < 0.01


@settings(max_examples=200)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["stretch", "crop", "letterbox"]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    dtype=st.sampled_from(["float32", "uint8"]),
)
def test_any_size_fits_any_manifest(
    height: int, width: int, target: tuple[int, int], resize: str, layout: str, dtype: str
) -> None:
    wanted = spec(*target, resize=resize, layout=layout, dtype=dtype, mean=(100 / 255,) * 3, std=(1.0,) * 3)
    row = prepare_input(np.full((height, width, 3), 100, np.uint8), wanted)
    assert (row.shape, row.dtype) == (wanted.shape, wanted.numpy_dtype)
    assert row.flags.c_contiguous
    np.testing.assert_allclose(row, 100 if dtype == "uint8" else 0, atol=1e-6)


@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("shape", [(1, 65500, 3), (65500, 1, 3)])
def test_extreme_shapes_fit(shape: tuple[int, int, int], resize: str) -> None:
    assert pixels_of(np.full(shape, 7, np.uint8), height=224, width=224, resize=resize).shape == (224, 224, 3)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_anything_but_rgb_pixels_is_refused(wrong: Any) -> None:
    with pytest.raises(ImageError, match=r"\(h, w, 3\) uint8"):
        prepare_input(wrong, spec())
