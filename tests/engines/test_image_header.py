"""What the header says, without decoding: against Pillow, and against files made to mislead."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engines import ImageError, probe_image
from tests.engines import pictures

RGB = pictures.scene(33, 21)
SAMPLES = {
    "jpeg": pictures.save(RGB, "JPEG"),
    "progressive": pictures.save(RGB, "JPEG", progressive=True),
    "gray": pictures.save(Image.fromarray(RGB).convert("L"), "JPEG"),
    "cmyk": pictures.save(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "png": pictures.save(RGB, "PNG"),
    "rgba": pictures.save(Image.fromarray(RGB).convert("RGBA"), "PNG"),
    "webp": pictures.save(RGB, "WEBP"),
    "webp lossless": pictures.save(RGB, "WEBP", lossless=True),
    "webp extended": pictures.save(RGB, "WEBP", exif=pictures.exif(6)),
}


@pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [
        ("jpeg", "jpeg", 3),
        ("progressive", "jpeg", 3),
        ("gray", "jpeg", 1),
        ("cmyk", "jpeg", 4),
        ("png", "png", 3),
        ("rgba", "png", 4),
        ("webp", "webp", 3),
        ("webp lossless", "webp", 3),
        ("webp extended", "webp", 3),
    ],
)
def test_probe_image_tells_size_and_channels(name: str, kind: str, channels: int) -> None:
    header = probe_image(SAMPLES[name])
    assert (header.format, header.width, header.height, header.channels, header.bits) == (kind, 33, 21, channels, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_probe_image_reads_the_orientation(kind: str, orientation: int) -> None:
    header = probe_image(pictures.save(RGB, kind, exif=pictures.exif(orientation)))
    assert header.orientation == orientation
    assert header.upright == ((21, 33) if orientation >= 5 else (33, 21))


@pytest.mark.parametrize("orientation", [0, 9, 6000])
def test_probe_image_takes_a_senseless_orientation_for_upright(orientation: int) -> None:
    assert probe_image(pictures.save(RGB, "JPEG", exif=pictures.exif(orientation))).orientation == 1


def test_probe_image_is_not_misled_by_a_thumbnail_in_the_exif() -> None:
    thumbnail = pictures.save(pictures.scene(8, 8), "JPEG")
    block = b"Exif\0\0" + thumbnail
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    jpeg = SAMPLES["jpeg"]
    assert probe_image(jpeg[:2] + segment + jpeg[2:]).width == 33


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no bytes at all"),
        (b"\xff", "no JPEG, PNG or WebP"),
        (b"\xff\xd8", "cut off inside its header"),
        (b"\xff\xd8\xff\xd9", "before its size is told"),
        (b"\xff\xd8\x00\x00", "expected a marker at byte 2"),
        (b"\xff\xd8\xff\xe0\x00\x01", "cut off"),
        (b"\x89PNG\r\n\x1a\n", "cut off inside its header"),
        (b"RIFF\x10\x00\x00\x00WEBP", "the WebP is cut off"),
        (b"RIFF\x04\x00\x00\x00WEBP", "no picture inside"),
        (pictures.save(RGB, "GIF"), "no JPEG, PNG or WebP"),
        (pictures.save(RGB, "BMP"), "no JPEG, PNG or WebP"),
        (pictures.save(RGB, "TIFF"), "no JPEG, PNG or WebP"),
        (SAMPLES["jpeg"].replace(b"\xff\xc0", b"\xff\xc3", 1), "ffc3"),
        (SAMPLES["jpeg"].replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c", 1), "12 bits"),
        (SAMPLES["jpeg"].replace(b"\x21\x03\x01\x22", b"\x21\x03\x01\x90", 1), "sampling factors"),
        (SAMPLES["jpeg"].replace(b"\x21\x03\x01", b"\x21\x02\x01", 1), "2 components"),
        (pictures.claim_size(SAMPLES["jpeg"], 0, 21), "0x21 pixels"),
        (pictures.claim_size(SAMPLES["jpeg"], 33, 0), "33x0 pixels"),
        (b"\xff\xd8" + b"\xff" * 4_000_000, "before its size is told"),
        (b"\xff\xd8" + b"\xff\xd0" * 2_000_000, "before its size is told"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000, "before its size is told"),
    ],
)
def test_probe_image_refuses_in_milliseconds(data: bytes, reason: str) -> None:
    start = time.thread_time()
    with pytest.raises(ImageError, match=reason):
        probe_image(data)
    assert time.thread_time() - start < 0.1


@pytest.mark.parametrize("name", SAMPLES)
def test_probe_image_of_every_cut_header_is_told_or_refused(name: str) -> None:
    data = SAMPLES[name]
    for length in range(len(data)):
        with contextlib.suppress(ImageError):
            probe_image(data[:length])


@given(name=st.sampled_from(sorted(SAMPLES)), at=st.integers(0, 700), noise=st.binary(min_size=1, max_size=8))
def test_probe_image_of_damaged_headers_raises_nothing_but_image_error(name: str, at: int, noise: bytes) -> None:
    data = SAMPLES[name]
    at %= len(data)
    with contextlib.suppress(ImageError):
        probe_image(data[:at] + noise + data[at + len(noise) :])


@given(st.binary(max_size=100), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\0\0\0WEBP"]))
def test_probe_image_of_any_bytes_raises_nothing_but_image_error(data: bytes, magic: bytes) -> None:
    with contextlib.suppress(ImageError):
        probe_image(magic + data)
