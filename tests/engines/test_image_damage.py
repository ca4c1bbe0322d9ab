"""Damaged and hostile pictures: refused quickly, in little memory, and never shown as another picture."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines import ImageError, decode_image
from tests.engines import pictures

RGB = pictures.scene(96, 64)
NOISE = np.random.default_rng(2).integers(0, 256, (64, 96, 3), dtype=np.uint8)
WHOLE = {
    "jpeg": pictures.save(RGB, "JPEG"),
    "444": pictures.save(RGB, "JPEG", subsampling=0),
    "gray": pictures.save(Image.fromarray(RGB).convert("L"), "JPEG"),
    "restarts": pictures.save(RGB, "JPEG", restart_marker_blocks=3),
    "flat": pictures.save(np.full_like(RGB, 128), "JPEG"),
    "progressive": pictures.save(RGB, "JPEG", progressive=True),
    "png": pictures.save(RGB, "PNG"),
    "webp": pictures.save(RGB, "WEBP"),
    "webp lossless": pictures.save(RGB, "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_picture_is_refused_or_lacks_nothing(name: str) -> None:
    data = WHOLE[name]
    whole = decode_image(data).pixels
    for length in range(0, len(data), 1 if len(data) < 4000 else 7):
        decode_image(pictures.save(NOISE, "JPEG"))  # what another frame left in memory must not show
        with contextlib.suppress(ImageError):
            np.testing.assert_array_equal(decode_image(data[:length]).pixels, whole)


@pytest.mark.parametrize("name", ["jpeg", "444", "gray", "restarts", "flat"])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_sequential_jpeg_may_lack_its_end_marker(name: str, missing: int) -> None:
    data = WHOLE[name]
    np.testing.assert_array_equal(decode_image(data[:-missing]).pixels, decode_image(data).pixels)


@pytest.mark.parametrize("missing", [13, 14, 500])
def test_a_cut_png_is_refused_before_it_is_decoded(missing: int) -> None:
    with pytest.raises(ImageError, match=r"the PNG is cut off: \d+ bytes, its b'IDAT' chunk needs"):
        decode_image(WHOLE["png"][:-missing])


def test_a_progressive_jpeg_may_not_lack_its_end_marker() -> None:
    with pytest.raises(ImageError, match="picture data is missing"):
        decode_image(WHOLE["progressive"][:-2])


@pytest.mark.parametrize("missing", [10, 20, 50, 200])
def test_a_jpeg_without_its_last_bytes_is_refused(missing: int) -> None:
    for name in ("jpeg", "444", "gray", "restarts"):
        with pytest.raises(ImageError, match="cut off"):
            decode_image(WHOLE[name][:-missing])


def test_a_jpeg_cut_between_restart_intervals_is_refused() -> None:
    data = WHOLE["restarts"]
    last = max(data.rfind(bytes([0xFF, marker])) for marker in range(0xD0, 0xD8))
    for cut in (last, last + 1, last + 2):
        with pytest.raises(ImageError, match="cut off"):
            decode_image(data[:cut])


def test_what_follows_the_end_marker_is_ignored() -> None:
    np.testing.assert_array_equal(decode_image(WHOLE["jpeg"] + bytes(5000)).pixels, decode_image(WHOLE["jpeg"]).pixels)


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp", "webp lossless"])
@given(at=st.floats(0, 1, exclude_max=True), noise=st.binary(min_size=1, max_size=6))
def test_damage_anywhere_gives_pixels_of_the_right_size_or_image_error(name: str, at: float, noise: bytes) -> None:
    data = WHOLE[name]
    start = int(at * len(data))
    with contextlib.suppress(ImageError):
        decoded = decode_image(data[:start] + noise + data[start + len(noise) :])
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)


def many_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its second scan ``count`` times."""
    data = pictures.save(pictures.scene(640, 480), "JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    third = data.index(b"\xff\xda", second + 2)
    return data[:second] + data[second:third] * count + data[third:]


HOSTILE = {
    "no bytes": b"",
    "one byte": b"\xff",
    "random": os.urandom(300_000),
    "random behind a JPEG's magic": b"\xff\xd8\xff" + os.urandom(300_000),
    "JPEG that claims 30000x30000": pictures.claim_size(WHOLE["jpeg"], 30_000, 30_000),
    "JPEG that claims 7000x7000": pictures.claim_size(WHOLE["jpeg"], 7_000, 7_000),
    "JPEG cut, with an end marker": pictures.save(pictures.scene(640, 480), "JPEG")[:2000] + b"\xff\xd9",
    "PNG bomb": pictures.flat_png(7_000, 7_200),
    "PNG that claims 2^31-1 squared": pictures.png(2**31 - 1, 2**31 - 1, b""),
    "PNG with too little data": pictures.png(7_000, 7_000, zlib.compress(b"abc")),
    "PNG with a wrong checksum": WHOLE["png"].replace(b"IDAT", b"IDAU"),
    "WebP that claims 16383x16383": WHOLE["webp lossless"][:21] + b"\xff\xff\xff\x0f" + WHOLE["webp lossless"][25:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_picture_is_refused_in_milliseconds(name: str) -> None:
    start = time.thread_time()
    with pytest.raises(ImageError):
        decode_image(HOSTILE[name])
    assert time.thread_time() - start < 0.1


def test_jpeg_with_thousands_of_scans_is_refused_before_decoding() -> None:
    with pytest.raises(ImageError, match=r"\d{4} scans of 640x480 pixels"):
        decode_image(many_scans(4000))
    assert decode_image(many_scans(3)).pixels.shape == (480, 640, 3)


MEASURE = """
import contextlib, pathlib, resource, sys
from engines import ImageError, decode_image
*hostile, whole = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]
decode_image(whole)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in hostile:
    with contextlib.suppress(ImageError):
        decode_image(data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_hostile_pictures_cost_no_memory(tmp_path: Path) -> None:
    for name, data in {**HOSTILE, "~whole": WHOLE["jpeg"]}.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    grown_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_kib < 32 << 10
