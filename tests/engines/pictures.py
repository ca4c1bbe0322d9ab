"""Pictures written by Pillow, an encoder and decoder other than the one under test."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

UInt8 = npt.NDArray[np.uint8]


def scene(width: int = 160, height: int = 120) -> UInt8:
    """uint8 (height, width, 3): gradients with seeded grain, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 // width, y * 255 // height, (x + y) % 200], axis=-1)
    grain = np.random.default_rng(1).integers(0, 20, smooth.shape)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def save(picture: Image.Image | UInt8, kind: str, **options: Any) -> bytes:
    """``picture`` as the bytes of a ``kind`` file: JPEG, PNG, WEBP, GIF, …"""
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def pillow_rgb(data: bytes) -> UInt8:
    """What Pillow sees in ``data``: upright, over white, RGB."""
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB"))


def exif(orientation: int) -> bytes:
    """An EXIF block that holds nothing else."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def claim_size(jpeg: bytes, width: int, height: int) -> bytes:
    """``jpeg`` (baseline) with another size in its frame header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def png(width: int, height: int, data: bytes, *, bits: int = 8, color: int = 2) -> bytes:
    """A PNG with valid checksums around ``data``, which is the content of its only IDAT chunk."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def flat_png(width: int, height: int) -> bytes:
    """A black picture of any size in few bytes."""
    squeeze = zlib.compressobj(1)
    rows = [squeeze.compress(bytes(3 * width + 1)) for _ in range(height)]
    return png(width, height, b"".join([*rows, squeeze.flush()]))
