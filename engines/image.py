"""Bytes to pixels: the only door by which pictures come in."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.errors import ImageError
from engines.image_header import ImageFormat, ImageHeader, JpegScan, probe_image

# A second wall behind our own limit; OpenCV reads it only while it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")

import cv2

cv2.setNumThreads(1)

UInt8 = npt.NDArray[np.uint8]

_REDUCED = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
_FLIP = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # by EXIF orientation; 1 left-right, 0 upside down, -1 both
_EOI = b"\xff\xd9"
_SOS = b"\xff\xda"
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_CONTINUATIONS = (b"\x00", b"\x55", b"\xaa")
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused before a decoder sees it.

    ``max_pixels`` bounds memory (half as many where samples have 16 bits): a JPEG takes 3 bytes a pixel, a PNG or WebP
    for a moment up to 8 times ``max_pixels`` bytes.
    ``max_scan_pixels`` bounds time: pixels times scans, since a progressive JPEG may go over them again and again.
    """

    max_pixels: int = 50_000_000
    max_scan_pixels: int = 1_000_000_000
    formats: tuple[ImageFormat, ...] = ("jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """``pixels`` is uint8 (h, w, 3) RGB, C-contiguous, upright, owned by the caller, possibly at a reduced scale.

    ``width`` and ``height`` are those of the whole picture, upright.
    """

    pixels: UInt8
    width: int
    height: int
    format: ImageFormat


_DEFAULT_LIMITS = ImageLimits()


def decode_image(
    data: bytes, *, minimum: tuple[int, int] | None = None, limits: ImageLimits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Decode a JPEG, PNG or WebP file (the first picture of an animation).

    - Gray becomes three equal channels. CMYK and YCCK JPEGs follow Adobe's inverted convention, R = C·K/255, as every
      viewer without colour management does. 16-bit PNGs become ``round(value / 257)``. Alpha is composed over white;
      the colour key of a gray PNG is ignored.
    - The EXIF orientation is applied (all eight), so that a bird stands as it stood.
    - With ``minimum`` = (height, width) of the largest engine input, pictures come at 1/2, 1/4 or 1/8 scale as long as
      both sides keep at least twice that: less is seen in the answers, more is wasted time and memory.
    - A JPEG that lacks nothing but its end-of-image marker is taken (cameras send such); one that lacks picture data is
      refused. Damage inside the data that keeps the file's form cannot be told from a picture by any decoder: only a
      checksum from the camera can.

    Raises:
        ImageError: no such file, cut off, damaged, too large, or a format outside ``limits.formats``.
    """
    header = probe_image(data)
    _check_limits(data, header, limits)
    if header.jpeg is not None:
        pixels = _decode_jpeg(data, header, header.jpeg, minimum)
    else:
        pixels = _shrunk(_over_white(_eight_bits(_imdecode(data, cv2.IMREAD_UNCHANGED))), _scale(header, minimum))
    width, height = header.upright
    return DecodedImage(_upright(pixels, header.orientation), width, height, header.format)


def _check_limits(data: bytes, header: ImageHeader, limits: ImageLimits) -> None:
    if header.format not in limits.formats:
        raise ImageError(f"a {header.format} file, but only {', '.join(limits.formats)} may come in")
    allowed = limits.max_pixels // 2 if header.bits > 8 else limits.max_pixels
    if header.width * header.height > allowed:
        raise ImageError(f"{header.width}x{header.height} is more than the {allowed} pixels allowed; send it smaller")
    if header.jpeg is not None:
        _check_scans(data, header, header.jpeg, limits)


def _check_scans(data: bytes, header: ImageHeader, scan: JpegScan, limits: ImageLimits) -> None:
    # ff da cannot occur inside entropy-coded data, where every ff is followed by 00 or a restart marker.
    scans = 1 + data.count(_SOS, scan.start)
    size = f"{header.width}x{header.height} pixels"
    if scans * header.width * header.height > limits.max_scan_pixels:
        raise ImageError(f"a JPEG with {scans} scans of {size}; send baseline JPEG")
    # No code is shorter than one bit: a sequential block has two of them (DC, end of block), a progressive one has
    # one (DC). Less data than that is proof of a cut, or of a bomb.
    least, present = scan.blocks // (8 if scan.progressive else 4), len(data) - scan.start
    if present < least:
        raise ImageError(f"the JPEG is cut off: {present} bytes of picture data, {size} need at least {least}")


def _decode_jpeg(data: bytes, header: ImageHeader, scan: JpegScan, minimum: tuple[int, int] | None) -> UInt8:
    if data.rfind(_EOI, scan.start) < 0:
        data = _with_end(data, scan)
    return _imdecode(data, _colour_flags(_scale(header, minimum)))


def _scale(header: ImageHeader, minimum: tuple[int, int] | None) -> int:
    """The largest of 8, 4, 2, 1 by which both upright sides may be divided and stay at twice ``minimum``."""
    if minimum is None:
        return 1
    (width, height), (least_height, least_width) = header.upright, minimum
    ratio = min(width // (2 * least_width), height // (2 * least_height))
    return next((scale for scale in (8, 4, 2) if scale <= ratio), 1)


def _colour_flags(scale: int) -> int:
    # OpenCV's names say grayscale: their bits give the scale, IMREAD_COLOR_RGB the channels.
    return int(cv2.IMREAD_COLOR_RGB | _REDUCED.get(scale, 0))


def _with_end(data: bytes, scan: JpegScan) -> bytes:
    """``data`` with the missing end-of-image marker, if no picture data is missing as well.

    A decoder reads on into whatever follows. So the picture is decoded with several continuations that agree in no
    bit: if all give the same pixels, none of these came from beyond the end. Where a marker would stop the decoder
    before it gets there (a later scan, a restart interval), all of those markers must be present.
    """
    data = data.removesuffix(b"\xff")  # half of the marker
    if scan.single and len(_RESTART.findall(data, scan.start)) >= scan.restarts:
        first, *others = (_imdecode(data + fill * 4096 + _EOI, _colour_flags(1)) for fill in _CONTINUATIONS)
        if all(np.array_equal(first, other) for other in others):
            return data + _EOI
    raise ImageError(f"the JPEG is cut off after {len(data)} bytes: picture data is missing; send the whole file")


def _imdecode(data: bytes, flags: int) -> UInt8:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"the picture is damaged: {error.err or error}") from error
    if pixels is None:
        raise ImageError("the picture is damaged or cut off: the decoder gave it up; send the whole file")
    return pixels  # type: ignore[return-value]  # OpenCV's stubs know no dtype


def _eight_bits(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> UInt8:
    if pixels.dtype == np.uint16:
        return cv2.convertScaleAbs(pixels, alpha=1 / 257)  # type: ignore[return-value]
    return pixels  # type: ignore[return-value]


def _over_white(pixels: UInt8) -> UInt8:
    """Gray (h, w), BGR or BGRA as OpenCV leaves them, to RGB over a white ground."""
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)  # type: ignore[return-value]
    if pixels[..., 3].min() == 255:
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)  # type: ignore[return-value]
    rgb: UInt8 = np.empty((*pixels.shape[:2], 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):  # in strips: the products are wider than the pixels
        part = pixels[top : top + rows].astype(np.uint16)
        alpha = part[..., 3:]
        rgb[top : top + rows] = (part[..., 2::-1] * alpha + 255 * (255 - alpha) + 127) // 255
    return rgb


def _shrunk(pixels: UInt8, scale: int) -> UInt8:
    """Each square of ``scale`` pixels becomes their mean, so that a PNG or WebP is kept as small as a JPEG."""
    if scale == 1:
        return pixels
    height, width = pixels.shape[:2]
    size = (-(-width // scale), -(-height // scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _upright(pixels: UInt8, orientation: int) -> UInt8:
    """Undo the camera's turn: EXIF orientation 1 to 8 (CIPA DC-008, tag 0x0112)."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)  # type: ignore[assignment]  # stubs know no dtype
    if orientation in _FLIP:
        pixels = cv2.flip(pixels, _FLIP[orientation])  # type: ignore[assignment]
    return pixels
