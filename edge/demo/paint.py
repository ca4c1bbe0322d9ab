"""A small paint box: antialiased curves on premultiplied RGBA tiles, rounded by light, laid over a picture.

Drawings are described in *unit coordinates*: the drawn thing fills about [-1, 1] in x (right) and y (down). A
``Canvas`` maps them to pixels. Colours are (red, green, blue) in 0-255. Everything is uint8 and stays in OpenCV,
because a frame must cost only milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Colour = tuple[float, float, float]
Numbers = float | Points
Path = Sequence[tuple[float, float]] | Points

_SUBPIXEL_BITS = 4
_SHADE_ONE = 160  # this value in a shading field leaves a colour unchanged, 255 brightens it by 1.6


def spline(points: Path, closed: bool = True, steps: int = 5) -> Points:
    """A Catmull-Rom curve through ``points`` (n, 2), float64 (m, 2), read-only, ``steps`` samples a span."""
    return _curve(tuple((float(x), float(y)) for x, y in points), closed, steps)


@lru_cache(maxsize=512)
def _curve(points: tuple[tuple[float, float], ...], closed: bool, steps: int) -> Points:
    p = np.array(points)
    padded = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([p[:1], p, p[-1:]])
    t = (np.arange(steps) / steps)[:, None]
    spans = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        spans.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3))
    curve = np.vstack(spans if closed else [*spans, p[-1:]])
    curve.setflags(write=False)
    return curve


def oval(x: Numbers, y: Numbers, rx: Numbers, ry: Numbers | None = None, turn: Numbers = 0.0) -> Points:
    """An ellipse as a polygon, float64 (24, 2), or (k, 24, 2) if an argument is an array (k,); ``turn`` in radians."""
    return _placed(_CIRCLE, rx, rx if ry is None else ry, turn, x, y)


def feather(x: Numbers, y: Numbers, length: Numbers, width: Numbers, turn: Numbers, inner: bool = False) -> Points:
    """A feather that starts at (x, y) and points down, turned by ``turn`` radians; float64 (24, 2) or (k, 24, 2).

    ``inner`` leaves the rim free, so that two fills give a feather with an edge.
    """
    return _placed(_FEATHER_INNER if inner else _FEATHER, np.asarray(width) / 2, length, turn, x, y)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``a`` with ``share`` in [0, 1] of ``b``."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def lit(colour: Colour, factor: float) -> Colour:
    """``colour`` made brighter (``factor`` > 1) or darker, within 0-255."""
    return (min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor))


def _placed(shape: Points, width: Numbers, height: Numbers, turn: Numbers, x: Numbers, y: Numbers) -> Points:
    width, height, turn, x, y = (np.asarray(number)[..., None] for number in (width, height, turn, x, y))
    across, down = shape[:, 0] * width, shape[:, 1] * height
    c, s = np.cos(turn), np.sin(turn)
    return np.stack(np.broadcast_arrays(across * c - down * s + x, across * s + down * c + y), axis=-1)


_CIRCLE = np.array([(math.cos(a), math.sin(a)) for a in np.arange(24) * math.pi / 12])
_FEATHER = spline([(0, 0), (1, 0.25), (1, 0.7), (0.45, 0.95), (0, 1), (-0.6, 0.93), (-1, 0.6), (-1, 0.2)], steps=3)
_FEATHER_INNER = (_FEATHER - (0, 0.5)) * (0.84, 0.94) + (-0.06, 0.47)


class Canvas:
    """A transparent tile, ``pixels`` uint8 (height, width, 4) premultiplied RGBA, painted in unit coordinates.

    ``matrix`` float64 (2, 3) takes unit coordinates to pixels of the tile; ``corner`` (x, y) is the tile's place
    in the picture.
    """

    def __init__(self, width: int, height: int, matrix: Points, corner: tuple[int, int] = (0, 0)) -> None:
        self.pixels: UInt8 = np.zeros((height, width, 4), np.uint8)
        self.matrix = matrix
        self.corner = corner
        self._painted: list[tuple[int, int, int, int]] = []  # x0, y0, x1, y1 of every stroke; shared by `turned`

    def layer(self, like: Canvas | None = None) -> Canvas:
        """An empty canvas of the same size, with the coordinates of ``like`` (default: this one)."""
        return Canvas(self.pixels.shape[1], self.pixels.shape[0], (like or self).matrix, self.corner)

    def turned(self, angle: float, x: float, y: float, scale: float = 1.0) -> Canvas:
        """The same pixels with coordinates turned by ``angle`` radians and scaled about (x, y)."""
        linear = scale * _rotation(angle)
        local = np.vstack([np.column_stack([linear, np.array([x, y]) - linear @ (x, y)]), [0, 0, 1]])
        other = Canvas.__new__(Canvas)
        other.pixels, other.corner, other._painted = self.pixels, self.corner, self._painted
        other.matrix = self.matrix @ local
        return other

    def scale(self) -> float:
        """Pixels a unit."""
        return math.sqrt(abs(np.linalg.det(self.matrix[:, :2])))

    def fill(self, outline: Path, colour: Colour) -> None:
        """Fill a polygon (n, 2)."""
        points = self._to_pixels(outline)
        cv2.fillPoly(self.pixels, [points], (*colour, 255.0), cv2.LINE_AA, _SUBPIXEL_BITS)

    def fill_all(self, outlines: Points, colours: Sequence[Colour]) -> None:
        """Fill polygons (k, n, 2) in their order, each with its colour."""
        for points, colour in zip(self._to_pixels(outlines), colours, strict=True):
            cv2.fillPoly(self.pixels, [points], (*colour, 255.0), cv2.LINE_AA, _SUBPIXEL_BITS)

    def line(self, path: Path, colour: Colour, width: float) -> None:
        """Stroke an open path (n, 2); ``width`` in units, at least one pixel."""
        thickness = max(1, round(width * self.scale()))
        points = self._to_pixels(path, margin=thickness + 1)
        cv2.polylines(self.pixels, [points], False, (*colour, 255.0), thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def rounded(self, strength: float = 0.5, light: tuple[float, float] = (-0.5, -0.85)) -> Canvas:
        """Shade the tile as one plump body lit from ``light`` (x, y); ``strength`` in [0, 1]. Returns itself."""
        box = self._box()
        if box is None:
            return self
        tile = self.pixels[box]
        small = cv2.resize(cv2.extractChannel(tile, 3), (32, 32), interpolation=cv2.INTER_AREA)
        padded = cv2.copyMakeBorder(small, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=0.0)
        depth = cv2.blur(cv2.blur(padded, (9, 9)), (9, 9)).astype(np.float32) / 255
        slope_x, slope_y = depth[6:-6, 7:-5] - depth[6:-6, 5:-7], depth[7:-5, 6:-6] - depth[5:-7, 6:-6]
        glow = 1 + strength * (-2.4 * (light[0] * slope_x + light[1] * slope_y) + 0.9 * (depth[6:-6, 6:-6] - 0.72))
        coarse = np.clip(glow * _SHADE_ONE, 0, 255).astype(np.uint8)
        field = cv2.resize(coarse, (tile.shape[1], tile.shape[0]), interpolation=cv2.INTER_LINEAR)
        factors = cv2.merge([field, field, field, np.full_like(field, _SHADE_ONE)])
        shaded = cv2.multiply(tile, factors, scale=1 / _SHADE_ONE)
        tile[...] = cv2.min(shaded, cv2.merge([cv2.extractChannel(shaded, 3)] * 4))
        return self

    def add(self, above: Canvas) -> None:
        """Lay another canvas of the same size over this one."""
        box = above._box()
        if box is not None:
            self.pixels[box] = _over(above.pixels[box], self.pixels[box])
            self._painted.append((box[1].start, box[0].start, box[1].stop, box[0].stop))

    def paste(self, picture: UInt8) -> None:
        """Lay the tile over ``picture`` uint8 (h, w, 3) RGB, in place."""
        box = self._box()
        if box is not None:
            (x, y), (rows, columns) = self.corner, box
            part = picture[y + rows.start : y + rows.stop, x + columns.start : x + columns.stop]
            part[...] = _over(self.pixels[box], part)

    def _box(self) -> tuple[slice, slice] | None:
        """The part of the tile that has paint on it."""
        if not self._painted:
            return None
        height, width = self.pixels.shape[:2]
        x0, y0, x1, y1 = zip(*self._painted, strict=True)
        rows = slice(max(0, min(y0)), min(height, max(y1)))
        columns = slice(max(0, min(x0)), min(width, max(x1)))
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def _to_pixels(self, points: Path, margin: int = 2) -> npt.NDArray[np.int32]:
        fixed = self.matrix * (1 << _SUBPIXEL_BITS)
        located = (np.asarray(points) @ fixed[:, :2].T + fixed[:, 2]).astype(np.int32)
        x, y, width, height = (side >> _SUBPIXEL_BITS for side in cv2.boundingRect(located.reshape(-1, 2)))
        self._painted.append((x - margin, y - margin, x + width + margin + 1, y + height + margin + 1))
        return located


def place(
    picture: UInt8, x: float, y: float, size: float, turn: float = 0.0, mirror: bool = False, reach: float = 1.5
) -> Canvas:
    """A canvas for a part of ``picture``: the unit box centred at pixel (x, y), ``size`` pixels a unit.

    Nothing further than ``reach`` units from the centre can be painted.
    """
    height, width = picture.shape[:2]
    left, top = max(0, int(x - reach * size)), max(0, int(y - reach * size))
    right, bottom = min(width, int(x + reach * size) + 1), min(height, int(y + reach * size) + 1)
    linear = size * _rotation(turn) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    matrix = np.column_stack([linear, [x - left, y - top]])
    return Canvas(max(1, right - left), max(1, bottom - top), matrix, (left, top))


def _over(above: UInt8, below: UInt8) -> UInt8:
    cover = cv2.bitwise_not(cv2.extractChannel(above, 3))
    opaque = below.shape[2] == 3
    kept = cv2.multiply(below, cv2.merge([cover] * below.shape[2]), scale=1 / 255)
    return np.asarray(cv2.add(kept, cv2.cvtColor(above, cv2.COLOR_RGBA2RGB) if opaque else above), dtype=np.uint8)


def _rotation(angle: float) -> Points:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])
