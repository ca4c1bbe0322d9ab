"""Birds, drawn from their plumage: perched, leaning, turning the head, lifting or opening the wings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.demo.paint import Canvas, Colour, Points, feather, lit, mix, oval, spline
from edge.demo.plumage import PLUMAGES, Plumage

_STANCE = np.array([-0.12, 0.06])
FOOT = (0.0, 0.5)  # where a bird stands, in unit coordinates


@dataclass(frozen=True)
class Pose:
    """How a bird holds itself; angles in radians, shares in [0, 1].

    ``lean`` tips the whole bird forward, ``head`` turns the head about the neck (positive: down), ``wing`` opens
    the near wing (0 folded, 1 spread), ``crest`` raises a crest, ``fluff`` makes the bird plumper, ``lid``
    closes the eye; ``beak`` opens the bill.
    """

    lean: float = 0.0
    head: float = 0.0
    wing: float = 0.0
    tail: float = 0.0
    crest: float = 0.5
    fluff: float = 0.0
    lid: float = 0.0
    beak: float = 0.0


def any_pose(rng: np.random.Generator) -> Pose:
    """A pose as birds take it: mostly at rest, at times with a wing open."""
    wing = float(rng.uniform(0.35, 1.0)) if rng.random() < 0.18 else float(rng.uniform(0, 0.08))
    return Pose(
        lean=float(rng.normal(0.05, 0.16)),
        head=float(np.clip(rng.normal(0.0, 0.28), -0.6, 0.7)),
        wing=wing,
        tail=float(rng.normal(0, 0.08)),
        crest=float(rng.random()),
        fluff=float(rng.random()),
        lid=float(rng.random() < 0.06),
        beak=float(rng.random() * 0.8 if rng.random() < 0.2 else 0.0),
    )


def moved(pose: Pose, rng: np.random.Generator) -> Pose:
    """The same bird a fifth of a second later."""
    head = float(np.clip(0.85 * pose.head + rng.normal(0, 0.12), -0.6, 0.7))
    wing = float(np.clip(pose.wing * rng.uniform(0.6, 1.1), 0, 1))
    return replace(
        pose,
        lean=pose.lean + float(rng.normal(0, 0.012)),
        head=head,
        wing=wing,
        tail=0.9 * pose.tail + float(rng.normal(0, 0.03)),
        crest=float(np.clip(pose.crest + rng.normal(0, 0.1), 0, 1)),
        lid=float(rng.random() < 0.08),
    )


def draw_bird(canvas: Canvas, kind: str, pose: Pose, grain: np.random.Generator) -> None:
    """Paint one bird of ``kind`` (a key of ``PLUMAGES``), facing left, standing at ``FOOT``."""
    plumage = PLUMAGES[kind]
    bird = canvas.turned(-pose.lean, *FOOT)
    if pose.wing > 0.2:
        _wing(canvas, bird.turned(-0.5 * pose.wing - 0.25, 0.02, -0.3, 0.92), plumage, pose.wing, grain, far=True)
    _tail(canvas, bird, plumage, pose)
    _legs(canvas, bird, plumage)
    _body(canvas, bird, plumage, pose, grain)
    _wing(canvas, bird, plumage, pose.wing, grain)
    _toes(bird, plumage)
    _head(canvas, bird.turned(-pose.head, 0.0, -0.44, plumage.head_size), plumage, pose)


def _tail(canvas: Canvas, bird: Canvas, plumage: Plumage, pose: Pose) -> None:
    layer = canvas.layer(bird.turned(pose.tail, 0.15, 0.4))
    outer, middle, edge = plumage.tail
    length, width = plumage.tail_length, plumage.tail_width
    for step, colour in ((-2, edge), (2, edge), (-1, middle), (1, middle), (0, outer)):
        size = (0.95 - 0.1 * abs(step)) * length * 0.85
        shape = (0.15 + 0.028 * step * width, 0.36, 0.1 + size, 0.13 * width, -0.3 - 0.055 * step * width)
        vane = feather(*shape)
        layer.fill(vane, lit(colour, 0.8))
        layer.fill(feather(*shape, inner=True), colour)
        layer.line(vane[[0, 12]], lit(colour, 0.72), 0.008)
    canvas.add(layer.rounded(0.35))


def _legs(canvas: Canvas, bird: Canvas, plumage: Plumage) -> None:
    layer = canvas.layer(bird)
    layer.fill_all(oval(_STANCE, 0.4, 0.1, 0.14), [lit(plumage.belly, 0.86)] * 2)
    canvas.add(layer.rounded(0.4))


def _toes(bird: Canvas, plumage: Plumage) -> None:
    steps = np.tile([-1.0, 0.0, 1.0], 2)
    x = np.repeat(_STANCE, 3) + 0.045 * steps
    bird.fill_all(oval(x, 0.51, 0.026, 0.055, 0.25 * steps), [lit(plumage.legs, 0.75)] * 6)
    bird.fill_all(oval(x - 0.004, 0.5, 0.018, 0.042, 0.25 * steps), [plumage.legs] * 6)


def _body(canvas: Canvas, bird: Canvas, plumage: Plumage, pose: Pose, grain: np.random.Generator) -> None:
    layer = canvas.layer(bird)
    wide = plumage.body * (0.94 + 0.14 * pose.fluff)
    layer.fill(spline(_BODY * (wide, 1.0)), plumage.back)
    layer.fill(spline(_FRONT * (wide, 1.0)), plumage.breast)
    layer.fill(spline(_BELLY * (wide, 1.0)), plumage.belly)
    _scallops(layer, plumage, wide, grain)
    canvas.add(layer.rounded(0.62))


_BREAST_LINE = [(-0.16, -0.56), (-0.31, -0.27), (-0.38, -0.02), (-0.32, 0.24), (-0.12, 0.44)]
_BODY = np.array([*_BREAST_LINE, (0.13, 0.5), (0.27, 0.36), (0.3, 0.06), (0.25, -0.28), (0.15, -0.54)])
_FRONT = np.array([*_BREAST_LINE, (0.08, 0.47), (0.04, 0.1), (0.06, -0.3), (0.06, -0.56)])
_BELLY = np.array([(-0.37, 0.08), (-0.32, 0.24), (-0.12, 0.44), (0.1, 0.48), (0.1, 0.2), (-0.1, 0.1)])


def _scallops(layer: Canvas, plumage: Plumage, wide: float, grain: np.random.Generator) -> None:
    """Rows of small feathers over the breast, each with an edge a little off its colour."""
    spots, colours = [], []
    for row in range(7):
        row_y = -0.28 + 0.105 * row
        base = mix(plumage.breast, plumage.belly, 0.0 if row_y < 0.08 else 1.0)
        half = 0.3 * wide * math.sqrt(max(0.05, 1 - ((row_y - 0.02) / 0.5) ** 2))
        for column in np.arange(-half, 0.02, 0.085) + 0.042 * (row % 2):
            tone = 1 + float(grain.normal(0, 0.03))
            spots += [(column, row_y + 0.012), (column, row_y)]
            colours += [lit(base, tone + plumage.scallop), lit(base, tone)]
    x, y = np.array(spots).T
    layer.fill_all(oval(x, y, 0.047, 0.062), colours)


def _wing(
    canvas: Canvas, bird: Canvas, plumage: Plumage, spread: float, grain: np.random.Generator, far: bool = False
) -> None:
    """The wing: flight feathers below, rows of coverts over them, the shoulder on top."""
    layer = canvas.layer(bird.turned(-1.9 * spread, 0.06, -0.3, 1 + 0.15 * spread))
    dim = 0.72 if far else 1.0
    step = np.arange(7.0)
    turn = -0.34 + 0.055 * step + spread * (0.24 * step - 0.35)
    tones = dim * (1 + 0.05 * (step % 2) + grain.normal(0, 0.02, 7))
    flights = np.stack([0.13 - 0.02 * step, 0.02 - 0.025 * step, 0.78 - 0.055 * step, np.full(7, 0.13), turn])
    _vanes(layer, flights, [lit(plumage.flight, tone) for tone in tones])
    row = np.repeat(np.arange(len(plumage.coverts))[::-1], 4)
    x = -0.075 - 0.01 * row + np.tile(np.arange(4) / 3, len(plumage.coverts)) * (0.245 + 0.005 * row)
    y = -0.38 + 0.105 * row + 0.08 * x
    coverts = np.stack([x, y, np.full(len(x), 0.25), np.full(len(x), 0.13), -0.2 - 0.3 * spread * x])
    tones = dim * (1 + grain.normal(0, 0.035, len(x)))
    _vanes(layer, coverts, [lit(plumage.coverts[r], tone) for r, tone in zip(row, tones, strict=True)])
    layer.fill(spline(_SHOULDER), lit(plumage.coverts[0], dim * 1.04))
    canvas.add(layer.rounded(0.42))


_SHOULDER = ((-0.1, -0.24), (-0.04, -0.38), (0.1, -0.4), (0.19, -0.28), (0.12, -0.2), (0.0, -0.18))


def _vanes(layer: Canvas, places: Points, colours: Sequence[Colour]) -> None:
    """Feathers with a dark rim; ``places`` (5, k): x, y, length, width, turn."""
    x, y, length, width, turn = places
    pairs = np.stack([feather(x, y, length, width, turn, inner) for inner in (False, True)], axis=1)
    rims = [tone for colour in colours for tone in (lit(colour, 0.74), colour)]
    layer.fill_all(pairs.reshape(-1, *pairs.shape[2:]), rims)


def _head(canvas: Canvas, head: Canvas, plumage: Plumage, pose: Pose) -> None:
    if plumage.crest is not None:
        _crest(canvas, head, plumage, plumage.crest, pose.crest)
    _beak(canvas, head, plumage, pose.beak)
    layer = canvas.layer(head)
    layer.fill(
        spline(
            [
                (-0.21, -0.62),
                (-0.17, -0.8),
                (0.0, -0.87),
                (0.16, -0.79),
                (0.22, -0.6),
                (0.25, -0.38),
                (0.04, -0.2),
                (-0.24, -0.32),
            ]
        ),
        plumage.head,
    )
    layer.fill(
        spline([(0.06, -0.85), (0.16, -0.78), (0.22, -0.6), (0.25, -0.38), (0.14, -0.28), (0.13, -0.6)]), plumage.nape
    )
    if plumage.collar is not None:
        layer.fill(spline([(0.03, -0.5), (0.2, -0.56), (0.22, -0.46), (0.1, -0.4)]), plumage.collar)
    if plumage.chin is not None:
        layer.fill(spline([(-0.19, -0.5), (-0.08, -0.42), (0.04, -0.4), (-0.02, -0.34), (-0.15, -0.38)]), plumage.chin)
    canvas.add(layer.rounded(0.5))
    _face(head, plumage)
    _eye(head, plumage, pose.lid)


def _face(head: Canvas, plumage: Plumage) -> None:
    if plumage.cheek is not None:
        head.fill(oval(0.02, -0.52, 0.08, 0.06), plumage.cheek)
    if plumage.face is None:
        return
    head.fill(
        spline(
            [(-0.19, -0.66), (-0.1, -0.74), (0.02, -0.7), (0.05, -0.58), (0.0, -0.46), (-0.12, -0.43), (-0.2, -0.5)]
        ),
        plumage.face,
    )
    if plumage.face_lines is not None:
        for step in range(4):
            y = -0.6 + 0.042 * step
            head.line(
                spline([(-0.17, y), (-0.1, y + 0.012), (-0.01, y - 0.004)], closed=False, steps=3),
                plumage.face_lines,
                0.007,
            )


def _eye(head: Canvas, plumage: Plumage, lid: float) -> None:
    x, y = -0.07, -0.665
    head.fill(oval(x, y, 0.05), lit(plumage.head, 0.62) if plumage.face is None else (214, 206, 200))
    if lid > 0.5:
        head.fill(oval(x, y, 0.042), lit(plumage.head, 0.82))
        head.line([(x - 0.04, y), (x + 0.04, y + 0.004)], (40, 34, 32), 0.012)
        return
    head.fill(oval(x, y, 0.041), plumage.eye)
    head.fill(oval(x, y, 0.026), (14, 12, 14))
    head.fill(oval(x - 0.012, y - 0.014, 0.011), (255, 255, 255))


def _beak(canvas: Canvas, head: Canvas, plumage: Plumage, gape: float) -> None:
    layer = canvas.layer(head)
    lower = layer.turned(-0.3 * gape, -0.14, -0.55, plumage.beak)
    lower.fill(spline(_LOWER_BILL), plumage.beak_lower)
    upper = layer.turned(0.0, -0.14, -0.6, plumage.beak)
    upper.fill(spline(_UPPER_BILL), plumage.beak_upper)
    upper.fill(oval(-0.205, -0.7, 0.016, 0.011), lit(plumage.beak_upper, 0.6))
    canvas.add(layer.rounded(0.6))


_LOWER_BILL = ((-0.12, -0.56), (-0.26, -0.52), (-0.285, -0.45), (-0.22, -0.4), (-0.12, -0.42))
_UPPER_BILL = ((-0.1, -0.75), (-0.24, -0.745), (-0.35, -0.67), (-0.385, -0.56), (-0.36, -0.44), (-0.325, -0.52),
               (-0.26, -0.56), (-0.1, -0.53))  # fmt: skip


def _crest(canvas: Canvas, head: Canvas, plumage: Plumage, colour: Colour, raised: float) -> None:
    layer = canvas.layer(head)
    for step in range(6):
        turn = math.pi - 0.5 + (0.28 + 0.32 * raised) * step * 0.75 + 0.25 * (1 - raised) + 0.2
        length = 0.44 - 0.035 * step
        shape = (-0.06 + 0.03 * step, -0.78, length, 0.085, turn)
        layer.fill(feather(*shape), lit(colour, 0.84))
        layer.fill(feather(*shape, inner=True), mix(colour, plumage.head, 0.12 * (step % 2)))
    canvas.add(layer.rounded(0.3))
