"""Decoding: every kind of picture against Pillow, scale, orientation, limits."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from engines import ImageError, ImageLimits, decode_image
from tests.engines import pictures
from tests.engines.pictures import UInt8

RGB = pictures.scene()
PICTURE = Image.fromarray(RGB)
RAMP = np.linspace(0, 255, 160).astype(np.uint8)
RGBA = Image.fromarray(np.dstack([RGB, np.broadcast_to(RAMP, RGB.shape[:2])]))


@pytest.mark.parametrize(
    ("picture", "kind", "options", "tolerance"),
    [
        (PICTURE, "JPEG", {"quality": 90}, 0),
        (PICTURE, "JPEG", {"quality": 90, "subsampling": 0}, 0),
        (PICTURE, "JPEG", {"progressive": True}, 0),
        (PICTURE, "JPEG", {"restart_marker_blocks": 3}, 0),
        (PICTURE.convert("L"), "JPEG", {}, 0),
        (PICTURE.convert("CMYK"), "JPEG", {"quality": 95}, 1),
        (PICTURE, "PNG", {}, 0),
        (PICTURE.convert("L"), "PNG", {}, 0),
        (PICTURE.convert("1"), "PNG", {}, 0),
        (PICTURE.quantize(64), "PNG", {}, 0),
        (PICTURE.quantize(64), "PNG", {"transparency": 5}, 0),
        (PICTURE.quantize(16), "PNG", {"bits": 4}, 0),
        (RGBA, "PNG", {}, 0),
        (RGBA.convert("LA"), "PNG", {}, 0),
        (PICTURE, "WEBP", {}, 0),
        (PICTURE, "WEBP", {"lossless": True}, 0),
        (RGBA, "WEBP", {"lossless": True}, 0),
    ],
)
def test_decode_image_sees_what_pillow_sees(
    picture: Image.Image, kind: str, options: dict[str, Any], tolerance: int
) -> None:
    data = pictures.save(picture, kind, **options)
    decoded = decode_image(data)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert (decoded.width, decoded.height, decoded.format) == (160, 120, kind.lower())
    difference = np.abs(decoded.pixels.astype(int) - pictures.pillow_rgb(data).astype(int))
    assert difference.max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decode_image_turns_the_picture_upright(kind: str, orientation: int) -> None:
    data = pictures.save(PICTURE, kind, exif=pictures.exif(orientation))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.pixels, pictures.pillow_rgb(data))
    assert (decoded.height, decoded.width) == decoded.pixels.shape[:2]
    assert decoded.pixels.flags.c_contiguous


def test_sixteen_bits_are_rounded_to_eight() -> None:
    levels = np.arange(0, 65536, 257 // 3, dtype=np.uint16)[None]
    data = cv2.imencode(".png", levels)[1].tobytes()
    np.testing.assert_array_equal(decode_image(data).pixels[0, :, 1], np.rint(levels[0] / 257))


def test_sixteen_bit_alpha_is_composed_over_white() -> None:
    bgra = np.zeros((2, 3, 4), np.uint16)
    bgra[..., 2], bgra[..., 3] = 65535, [0, 32896, 65535]
    pixels = decode_image(cv2.imencode(".png", bgra)[1].tobytes()).pixels
    np.testing.assert_array_equal(pixels[0], [[255, 255, 255], [255, 127, 127], [255, 0, 0]])


def test_fully_transparent_pixels_do_not_show_their_hidden_colour() -> None:
    hidden = Image.fromarray(np.dstack([RGB, np.zeros_like(RGB[..., :1])]))
    assert (decode_image(pictures.save(hidden, "PNG")).pixels == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_gives_its_first_picture(kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = pictures.save(PICTURE, kind, save_all=True, append_images=[PICTURE.rotate(180)], **options)
    np.testing.assert_array_equal(decode_image(data).pixels, RGB)


@pytest.mark.parametrize(
    ("minimum", "shape"),
    [
        (None, (800, 1200)),
        ((224, 224), (800, 1200)),
        ((200, 200), (400, 600)),
        ((200, 301), (800, 1200)),
        ((101, 100), (400, 600)),
        ((100, 100), (200, 300)),
        ((50, 75), (100, 150)),
        ((1, 1), (100, 150)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_reduced_scale_keeps_both_sides_twice_the_minimum(
    minimum: tuple[int, int] | None, shape: tuple[int, int], kind: str
) -> None:
    data = pictures.save(pictures.scene(1200, 800), kind)
    decoded = decode_image(data, minimum=minimum)
    assert decoded.pixels.shape == (*shape, 3)
    assert (decoded.width, decoded.height) == (1200, 800)


def test_reduced_scale_looks_at_the_upright_sides() -> None:
    data = pictures.save(pictures.scene(800, 200), "JPEG", exif=pictures.exif(6))
    assert decode_image(data, minimum=(200, 50)).pixels.shape == (400, 100, 3)
    assert decode_image(data, minimum=(50, 200)).pixels.shape == (800, 200, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_reduced_scale_shows_the_same_picture(kind: str) -> None:
    wide = cv2.GaussianBlur(pictures.scene(1280, 960), (0, 0), 4)
    data = pictures.save(np.asarray(wide, np.uint8), kind, **({} if kind == "PNG" else {"quality": 95}))
    full, half = (cv2.resize(p, (160, 120), interpolation=cv2.INTER_AREA) for p in _full_and_half(data))
    assert np.abs(full.astype(int) - half.astype(int)).mean() < 1


def _full_and_half(data: bytes) -> tuple[UInt8, UInt8]:
    full, half = decode_image(data).pixels, decode_image(data, minimum=(240, 320)).pixels
    assert (full.shape, half.shape) == ((960, 1280, 3), (480, 640, 3))
    return full, half


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1, 1), (65500, 1), (1, 65500), (7, 3)])
def test_extreme_shapes_are_decoded(kind: str, size: tuple[int, int]) -> None:
    decoded = decode_image(pictures.save(Image.new("RGB", size, "gray"), kind), minimum=(224, 224))
    assert decoded.pixels.shape == (size[1], size[0], 3)
    assert (decoded.pixels == 128).all()


def test_limits_refuse_other_formats() -> None:
    with pytest.raises(ImageError, match="a png file, but only jpeg may come in"):
        decode_image(pictures.save(RGB, "PNG"), limits=ImageLimits(formats=("jpeg",)))


def test_limits_refuse_one_pixel_too_many() -> None:
    data = pictures.save(RGB, "JPEG")
    decode_image(data, limits=ImageLimits(max_pixels=160 * 120))
    with pytest.raises(ImageError, match="160x120 is more than the 19199 pixels allowed"):
        decode_image(data, limits=ImageLimits(max_pixels=160 * 120 - 1))


def test_limits_allow_half_the_pixels_where_samples_have_sixteen_bits() -> None:
    data = cv2.imencode(".png", np.zeros((10, 10), np.uint16))[1].tobytes()
    decode_image(data, limits=ImageLimits(max_pixels=200))
    with pytest.raises(ImageError, match="10x10 is more than the 99 pixels allowed"):
        decode_image(data, limits=ImageLimits(max_pixels=199))


def test_opaque_alpha_leaves_the_picture_as_it_is() -> None:
    np.testing.assert_array_equal(decode_image(pictures.save(PICTURE.convert("RGBA"), "PNG")).pixels, RGB)


def test_opencv_has_its_own_limit_behind_ours() -> None:
    bomb = np.frombuffer(pictures.flat_png(8193, 8193), np.uint8)
    with pytest.raises(cv2.error, match="MAX_IMAGE_PIXELS"):
        cv2.imdecode(bomb, cv2.IMREAD_COLOR)
