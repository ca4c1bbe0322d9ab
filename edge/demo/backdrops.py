"""What stands behind and under the visitors: out-of-focus places, perches, wallpaper.

A backdrop is painted small and enlarged, which gives the soft focus of a lens set on the perch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edge.demo.paint import Canvas, Colour, UInt8, lit, mix, oval, place, spline

_SMALL = (160, 120)  # width, height of the painting before it is enlarged

Painter = Callable[[UInt8, np.random.Generator], None]


@dataclass(frozen=True)
class Place:
    """One camera's view without any visitor: ``picture`` uint8 (h, w, 3) RGB; visitors stand at (``x``, ``y``)."""

    name: str
    picture: UInt8
    x: float
    y: float
    infrared: bool


def paint_place(name: str, rng: np.random.Generator, width: int, height: int) -> Place:
    """The place ``name`` (one of ``PLACES``) with its perch."""
    small = np.empty((_SMALL[1], _SMALL[0], 3), np.uint8)
    _PAINTERS[name](small, rng)
    soft = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(1.5, 4.0)))
    picture = np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    x, y = width * float(rng.uniform(0.4, 0.6)), height * float(rng.uniform(0.62, 0.76))
    (_table if name == "feeder" else _branch)(picture, x, y, rng)
    return Place(name, picture, x, y, infrared=name == "night")


def paint_wallpaper(rng: np.random.Generator, width: int, height: int) -> UInt8:
    """A printed wall, stripes or a pattern of dots, leaves or diamonds, uint8 (height, width, 3) RGB."""
    ground, print_ = _two_colours(rng)
    picture = np.full((height, width, 3), ground, np.uint8)
    step = height * float(rng.uniform(0.12, 0.24))
    canvas = place(picture, width / 2, height / 2, height / 2, turn=float(rng.choice([0.0, 0.0, 0.5, 0.78])), reach=2.2)
    span, motif = np.arange(-1.9, 1.95, 2 * step / height), int(rng.integers(4))
    if motif == 0:
        for x in span:
            canvas.line([(x, -2.2), (x, 2.2)], print_, 0.7 * step / height)
    else:
        x, y = (grid.ravel() for grid in np.meshgrid(span, span))
        size = 0.55 * step / height
        shapes = {1: oval(x, y, size), 2: oval(x, y, 0.4 * size, 1.3 * size, 0.7), 3: oval(x, y, size)[:, ::6]}[motif]
        canvas.fill_all(shapes, [print_] * len(x))
        canvas.fill_all(oval(x + step / height, y + step / height, 0.3 * size), [mix(ground, print_, 0.6)] * len(x))
    canvas.paste(picture)
    return picture


def _two_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    palette: list[Colour] = [
        (236, 226, 206),
        (200, 60, 56),
        (60, 110, 170),
        (250, 206, 90),
        (90, 150, 110),
        (240, 240, 236),
    ]
    first, second = rng.choice(len(palette), 2, replace=False)
    return palette[int(first)], palette[int(second)]


def _gradient(picture: UInt8, top: Colour, bottom: Colour) -> None:
    share = np.linspace(0, 1, picture.shape[0])[:, None, None]
    picture[...] = (np.array(top) * (1 - share) + np.array(bottom) * share).astype(np.uint8)


def _blobs(
    picture: UInt8,
    rng: np.random.Generator,
    colours: list[Colour],
    count: int,
    sizes: tuple[float, float],
    rows: tuple[float, float],
) -> None:
    """Scatter ovals over the rows between two shares of the height; sizes are shares of the height."""
    height, width = picture.shape[:2]
    canvas = Canvas(width, height, np.array([[height, 0.0, 0.0], [0.0, height, 0.0]]))
    x, y = rng.uniform(0, width / height, count), rng.uniform(*rows, count)
    size = rng.uniform(*sizes, count)
    tones = [lit(colours[int(rng.integers(len(colours)))], float(rng.uniform(0.75, 1.2))) for _ in range(count)]
    canvas.fill_all(oval(x, y, size, size * rng.uniform(0.7, 1.2, count), rng.uniform(0, 3, count)), tones)
    canvas.paste(picture)


def _forest(picture: UInt8, rng: np.random.Generator) -> None:
    _gradient(picture, (122, 158, 108), (36, 66, 40))
    width = picture.shape[1]
    _blobs(picture, rng, [(64, 108, 58), (44, 84, 48), (92, 136, 70)], 50, (0.05, 0.16), (0, 1))
    for _ in range(4):
        x, thick = int(rng.uniform(0, width)), int(rng.uniform(4, 11))
        picture[:, x : x + thick] = (62, 52, 42)
    _blobs(picture, rng, [(74, 124, 60), (108, 152, 76), (40, 80, 46)], 45, (0.03, 0.1), (0, 1))
    _blobs(picture, rng, [(206, 224, 150), (236, 240, 190)], 14, (0.015, 0.05), (0, 0.6))


def _sky(picture: UInt8, rng: np.random.Generator) -> None:
    blue = mix((92, 160, 224), (240, 176, 140), float(rng.uniform(0, 0.5)))
    _gradient(picture, blue, mix(blue, (255, 248, 236), 0.75))
    for _ in range(int(rng.integers(2, 5))):
        row = float(rng.uniform(0.05, 0.6))
        _blobs(picture, rng, [(252, 252, 254)], 6, (0.04, 0.1), (row, row + 0.07))
    _blobs(picture, rng, [(86, 124, 96), (104, 140, 100)], 16, (0.08, 0.14), (0.98, 1.05))


def _garden(picture: UInt8, rng: np.random.Generator) -> None:
    _gradient(picture, (188, 216, 232), (216, 228, 206))
    picture[66:] = (124, 172, 78)
    _blobs(picture, rng, [(70, 124, 66), (88, 142, 74), (58, 108, 62)], 40, (0.08, 0.16), (0.38, 0.58))
    _blobs(picture, rng, [(132, 182, 84), (112, 160, 70)], 30, (0.04, 0.12), (0.65, 1))
    _blobs(
        picture,
        rng,
        [(232, 84, 100), (250, 206, 80), (246, 240, 246), (170, 110, 200)],
        40,
        (0.012, 0.03),
        (0.45, 0.95),
    )


def _terrace(picture: UInt8, rng: np.random.Generator) -> None:
    wall = mix((222, 208, 186), (188, 146, 118), float(rng.random()))
    _gradient(picture, lit(wall, 1.06), lit(wall, 0.86))
    for y in range(0, 120, 12):
        picture[y : y + 1] = lit(wall, 0.82)
        for x in range((y // 12 % 2) * 10, 160, 20):
            picture[y : y + 12, x : x + 1] = lit(wall, 0.84)
    _blobs(picture, rng, [(82, 136, 78), (106, 158, 88)], 30, (0.04, 0.1), (0.72, 1.0))
    _blobs(picture, rng, [(226, 90, 80), (250, 180, 90)], 10, (0.02, 0.035), (0.72, 0.95))


def _night(picture: UInt8, rng: np.random.Generator) -> None:
    _gradient(picture, (34, 38, 40), (58, 62, 62))
    _blobs(picture, rng, [(70, 76, 74), (50, 56, 54), (88, 94, 90)], 50, (0.05, 0.14), (0, 1))
    _blobs(picture, rng, [(112, 118, 114)], 16, (0.02, 0.05), (0.3, 1))


def _branch(picture: UInt8, x: float, y: float, rng: np.random.Generator) -> None:
    """A branch across the picture with its top at (x, y)."""
    canvas = place(picture, x, y, picture.shape[0] / 2, reach=3)
    bark = mix((126, 96, 68), (92, 78, 66), float(rng.random()))
    slope, thick = float(rng.normal(0, 0.05)), float(rng.uniform(0.07, 0.12))
    across = np.linspace(-2.6, 2.6, 9)
    middle = slope * across + rng.normal(0, 0.014, 9) + thick
    middle[4] = thick
    upper, lower = np.stack([across, middle - thick], 1), np.stack([across, middle + thick * rng.uniform(0.7, 1, 9)], 1)
    canvas.fill(spline(np.vstack([upper, lower[::-1]])), bark)
    for _ in range(10):
        start, row = float(rng.uniform(-1.6, 1.3)), float(rng.uniform(-0.6, 0.6)) * thick + thick
        canvas.line(
            [(start, row + slope * start), (start + 0.28, row + slope * (start + 0.28))],
            lit(bark, float(rng.uniform(0.72, 0.9))),
            0.012,
        )
    canvas.rounded(0.45).paste(picture)


def _table(picture: UInt8, x: float, y: float, rng: np.random.Generator) -> None:
    """A feeder: a wooden board on a post, with seeds."""
    canvas = place(picture, x, y, picture.shape[0] / 2, reach=3)
    wood = mix((178, 132, 84), (146, 112, 82), float(rng.random()))
    canvas.fill([(-0.09, 0.1), (0.09, 0.1), (0.11, 1.4), (-0.11, 1.4)], lit(wood, 0.7))
    canvas.fill([(-0.72, -0.02), (0.72, -0.02), (0.8, 0.09), (-0.8, 0.09)], wood)
    canvas.fill([(-0.8, 0.09), (0.8, 0.09), (0.8, 0.17), (-0.8, 0.17)], lit(wood, 0.78))
    for row in (0.015, 0.055):
        canvas.line([(-0.75, row), (0.75, row)], lit(wood, 0.88), 0.008)
    seeds = 26
    spots = oval(
        rng.uniform(-0.68, 0.68, seeds), rng.uniform(-0.01, 0.07, seeds), 0.018, 0.011, rng.uniform(0, 3, seeds)
    )
    canvas.fill_all(spots, [lit((222, 188, 120), float(tone)) for tone in rng.uniform(0.6, 1.1, seeds)])
    canvas.paste(picture)


_PAINTERS: dict[str, Painter] = {
    "forest": _forest, "sky": _sky, "garden": _garden, "feeder": _garden, "terrace": _terrace, "night": _night,
}  # fmt: skip
PLACES = tuple(_PAINTERS)
