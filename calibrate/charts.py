"""The report's drawings as plain coordinates; the template turns them into SVG, its style sheet into colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calibrate.samples import Float64

WIDTH, HEIGHT = 360.0, 252.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 350.0, 10.0, 210.0

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line at ``at`` in drawing units with its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline ``points`` in a series' colour; ``style`` is solid, dashed or thin."""

    points: str
    series: int
    label: str = ""
    style: str = "solid"


@dataclass(frozen=True, slots=True)
class Dot:
    """A mark with a whisker from ``low`` to ``high`` and words for the pointer."""

    x: float
    y: float
    low: float
    high: float
    words: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in drawing units."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing: axes, lines, dots, bars, and ``alt`` for who cannot see it."""

    alt: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    rule: float | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bars of one group on an axis shared with other groups, in a box of 240 by 44."""

    bars: list[Bar]
    rule: float


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Numbers in [low, high] to drawing units in [start, end]."""
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 2)


def shares_chart(alt: str, x_label: str, y_label: str, *, x_max: float = 1.0) -> tuple[Chart, Scale, Scale]:
    """An empty chart of two shares, and its scales."""
    x, y = scale(0.0, x_max, LEFT, RIGHT), scale(0.0, 1.0, BOTTOM, TOP)
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    x_ticks = [Tick(x(q * x_max), f"{q * x_max:g}") for q in quarters]
    return Chart(alt, x_label, y_label, x_ticks, [Tick(y(q), f"{q:g}") for q in quarters]), x, y


def points(curve: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    """SVG points of ``curve``."""
    return " ".join(f"{x(a):g},{y(b):g}" for a, b in curve)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a deciding number goes on a histogram: ``place`` (n,) to [0, 1], with labelled ticks."""

    place: Callable[[Float64], Float64]
    ticks: list[tuple[float, str]]


def logit_axis(edge: float = 0.002) -> Axis:
    """Probabilities by their logit, so that the ends are not one bar each; beyond ``edge`` they share the end."""
    span = float(np.log((1.0 - edge) / edge))

    def place(p: Float64) -> Float64:
        clipped = np.clip(p, edge, 1.0 - edge)
        return np.asarray(0.5 + np.log(clipped / (1.0 - clipped)) / (2.0 * span))

    marks = np.array([0.01, 0.1, 0.5, 0.9, 0.99])
    return Axis(place, [(float(at), f"{mark:g}") for at, mark in zip(place(marks), marks, strict=True)])


def log_axis(lowest: float) -> Axis:
    """p-values from ``lowest`` to 1 by their logarithm."""
    span = float(-np.log(lowest))

    def place(p: Float64) -> Float64:
        return np.asarray(1.0 + np.log(np.clip(p, lowest, 1.0)) / span)

    marks = np.array([mark for mark in (0.001, 0.01, 0.1, 1.0) if mark >= lowest])
    return Axis(place, [(float(at), f"{mark:g}") for at, mark in zip(place(marks), marks, strict=True)])


def histogram(values: Float64, axis: Axis, threshold: float, bins: int = 30) -> Histogram:
    """Shares of ``values`` per bin in a box of 240 by 44, bars as high as the square root of their share."""
    counts, _ = np.histogram(axis.place(values), bins=bins, range=(0.0, 1.0))
    heights = np.sqrt(counts / max(int(counts.max()), 1)) * 42.0
    width = 240.0 / bins
    bars = [
        Bar(round(i * width + 0.5, 2), round(44.0 - float(height), 2), round(width - 1.0, 2), round(float(height), 2))
        for i, height in enumerate(heights)
        if height > 0
    ]
    return Histogram(bars, round(float(axis.place(np.array([threshold]))[0]) * 240.0, 2))
