"""What a picture says of itself, read from its first bytes alone: no pixel is decoded, nothing is allocated.

JPEG (ITU-T T.81), PNG (W3C PNG 3rd edition) and WebP (RFC 9649) are told by their magic bytes; everything else that
OpenCV would open is refused here. A decoder only ever sees files whose size was known and allowed before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from engines.errors import ImageError

ImageFormat = Literal["jpeg", "png", "webp"]

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_PARAMETERLESS = {0x01, *range(0xD0, 0xD8)}  # TEM and the restart markers stand alone
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive
_JPEG_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_EXIF_ORIENTATION = 0x0112
_MAX_SEGMENTS = 10_000


@dataclass(frozen=True, slots=True)
class JpegScan:
    """What a JPEG's data must hold to be whole.

    ``start`` is the byte at which the entropy-coded data begins. ``blocks`` counts the 8x8 blocks of all components,
    ``restarts`` the restart markers between them. ``single`` says that one sequential scan carries everything.
    """

    start: int
    blocks: int
    restarts: int
    progressive: bool
    single: bool


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """``width`` and ``height`` in pixels as stored, before ``orientation`` (EXIF, 1 to 8; 1 is upright) is applied.

    ``channels`` is 1 gray, 2 gray and alpha, 3 colour, 4 CMYK in a JPEG and colour with alpha elsewhere. ``bits`` is
    the depth of one sample. ``jpeg`` says more about a JPEG, and is None elsewhere.
    """

    format: ImageFormat
    width: int
    height: int
    channels: int
    bits: int
    orientation: int = 1
    jpeg: JpegScan | None = None

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) as a viewer sees the picture."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def probe_image(data: bytes) -> ImageHeader:
    """Read the header of a JPEG, PNG or WebP file.

    Raises:
        ImageError: no such file, cut off before its size is told, a size of zero, or a kind of JPEG that cameras do not
            make (lossless, arithmetic, 12-bit, hierarchical).
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:8] == _PNG_MAGIC:
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except (IndexError, struct.error) as error:
        raise ImageError(
            f"the picture is cut off inside its header ({len(data)} bytes); send the whole file"
        ) from error
    if not data:
        raise ImageError("the picture has no bytes at all; send a JPEG, PNG or WebP file")
    raise ImageError(f"no JPEG, PNG or WebP file: it begins with {data[:8].hex(' ')}")


def _jpeg(data: bytes) -> ImageHeader:
    """Walk the marker segments from SOI to the first SOS."""
    orientation, interval = 1, 0
    frame: tuple[int, bytes] | None = None
    for marker, at, segment in _jpeg_segments(data):
        if marker in _JPEG_FRAMES and frame is None:
            frame = marker, segment
        elif marker in _JPEG_FRAMES or marker in _JPEG_OTHER_FRAMES:
            raise ImageError(f"a JPEG of a kind no camera makes (frame marker ff{marker:02x}); send baseline JPEG")
        elif marker == 0xDD:
            (interval,) = struct.unpack(">H", segment)
        elif marker == 0xE1 and segment[:6] == b"Exif\0\0":
            orientation = _exif_orientation(segment[6:])
        elif marker == 0xDA and frame is not None:
            return _jpeg_header(frame, orientation, at + 2 + len(segment), segment[0], interval)
    raise ImageError("damaged JPEG: it ends, or its picture data begins, before its size is told")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, where its length stands, what follows the length) up to and with the first SOS, or EOI."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at] != 0xFF:
            raise ImageError(f"damaged JPEG: expected a marker at byte {at}, got {data[at]:02x}")
        marker = data[at + 1]
        at += 1 if marker == 0xFF else 2  # ff before a marker may be repeated as padding
        if marker == 0xFF or marker in _JPEG_PARAMETERLESS:
            continue
        if marker == 0xD9:
            return
        (length,) = struct.unpack_from(">H", data, at)
        segment = data[at + 2 : at + length]
        if length < 2 or len(segment) != length - 2:
            raise IndexError("segment beyond the end")
        yield marker, at, segment
        if marker == 0xDA:
            return
        at += length


def _jpeg_header(
    frame: tuple[int, bytes], orientation: int, start: int, scan_channels: int, interval: int
) -> ImageHeader:
    marker, segment = frame
    bits, height, width, channels = struct.unpack_from(">BHHB", segment)
    if bits != 8:
        raise ImageError(f"a JPEG with {bits} bits a sample; only 8 are supported, as cameras send")
    if channels not in (1, 3, 4):
        raise ImageError(f"a JPEG with {channels} components; expected 1 (gray), 3 (colour) or 4 (CMYK)")
    units, blocks = _jpeg_blocks(width, height, [segment[7 + 3 * i] for i in range(channels)])
    restarts = max(0, -(-units // interval) - 1) if interval else 0
    progressive = marker == 0xC2
    scan = JpegScan(start, blocks, restarts, progressive, not progressive and scan_channels == channels)
    return _checked(ImageHeader("jpeg", width, height, channels, 8, orientation, scan))


def _jpeg_blocks(width: int, height: int, sampling: list[int]) -> tuple[int, int]:
    """How many minimum coded units and 8x8 blocks a scan of all components holds (T.81, A.2)."""
    factors = [(s >> 4, s & 15) for s in sampling] if len(sampling) > 1 else [(1, 1)]
    if not all(1 <= across <= 4 and 1 <= down <= 4 for across, down in factors):
        raise ImageError("damaged JPEG: sampling factors outside 1 to 4")
    across, down = max(a for a, _ in factors), max(d for _, d in factors)
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return units, units * sum(a * d for a, d in factors)


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block; 1 if absent or broken, as every viewer does."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _EXIF_ORIENTATION:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _png(data: bytes) -> ImageHeader:
    """IHDR, then every chunk up to IEND: a PNG that does not reach it is cut off."""
    length, kind, width, height, bits, color = struct.unpack_from(">I4sIIBB", data, 8)
    if kind != b"IHDR" or length != 13 or color not in _PNG_CHANNELS:
        raise ImageError("damaged PNG: no valid IHDR chunk at its start")
    at, orientation, channels = 8, 1, _PNG_CHANNELS[color]
    for _ in range(_MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise ImageError(f"the PNG is cut off: {len(data)} bytes, its {kind!r} chunk needs {at + 12 + length}")
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        elif kind == b"tRNS":
            channels = 2 if color == 0 else 4
        elif kind == b"IEND":
            return _checked(ImageHeader("png", width, height, channels, bits, orientation))
        at += 12 + length
    raise ImageError(f"a PNG with more than {_MAX_SEGMENTS} chunks; save it again as one picture")


def _webp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise ImageError(f"the WebP is cut off: {len(data)} bytes of {size + 8}")
    at, orientation, header = 12, 1, None
    while at + 8 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > len(data):
            raise ImageError(f"the WebP is cut off inside its {kind!r} chunk")
        body = data[at + 8 : at + 8 + length]
        if kind == b"EXIF":
            orientation = _exif_orientation(body.removeprefix(b"Exif\0\0"))
        elif header is None:
            header = _webp_size(kind, body)
        at += 8 + length + (length & 1)
    if header is None:
        raise ImageError("damaged WebP: no picture inside")
    width, height, alpha = header
    return _checked(ImageHeader("webp", width, height, 4 if alpha else 3, 8, orientation))


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int, bool] | None:
    """(width, height, has alpha) of a VP8X, VP8L or VP8 chunk; None for any other."""
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"), bool(body[0] & 0x10)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF, False
    return None


def _checked(header: ImageHeader) -> ImageHeader:
    if header.width == 0 or header.height == 0:
        raise ImageError(f"the {header.format} says it is {header.width}x{header.height} pixels; both must be positive")
    return header
