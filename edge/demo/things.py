"""What is no parrot and comes before the camera all the same: duck doll, aeroplane, toy, elephant, face.

Every drawer takes a canvas in unit coordinates, facing left, standing at y = 0.5, and a generator for its varieties.
"""

from __future__ import annotations

import math

import numpy as np

from edge.demo.paint import Canvas, Colour, feather, lit, mix, oval, spline

_DARK: Colour = (26, 22, 24)
_WHITE: Colour = (255, 255, 255)


def _pick(rng: np.random.Generator, *colours: Colour) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def draw_duck(canvas: Canvas, rng: np.random.Generator) -> None:
    """A rubber duck."""
    yellow = _pick(rng, (255, 214, 38), (255, 204, 24), (252, 222, 70), (255, 190, 40))
    body = canvas.layer()
    body.fill(
        spline(
            [
                (-0.5, 0.1),
                (-0.42, 0.42),
                (-0.1, 0.52),
                (0.32, 0.5),
                (0.56, 0.3),
                (0.64, -0.1),
                (0.42, 0.02),
                (0.1, -0.02),
                (-0.3, -0.12),
            ]
        ),
        yellow,
    )
    canvas.add(body.rounded(0.6))
    wing = canvas.layer()
    wing.fill(
        spline([(-0.16, 0.12), (0.1, 0.02), (0.4, 0.08), (0.42, 0.2), (0.2, 0.36), (-0.08, 0.32)]), lit(yellow, 0.96)
    )
    canvas.add(wing.rounded(0.7))
    bill = canvas.layer()
    bill.fill(spline([(-0.5, -0.44), (-0.7, -0.46), (-0.82, -0.4), (-0.74, -0.32), (-0.52, -0.28)]), (246, 120, 24))
    bill.fill(spline([(-0.5, -0.34), (-0.68, -0.32), (-0.72, -0.26), (-0.6, -0.22), (-0.48, -0.24)]), (222, 92, 20))
    canvas.add(bill.rounded(0.5))
    head = canvas.layer()
    head.fill(oval(-0.3, -0.38, 0.3, 0.29), yellow)
    head.fill(spline([(-0.3, -0.66), (-0.22, -0.76), (-0.16, -0.7), (-0.2, -0.62)]), yellow)
    canvas.add(head.rounded(0.6))
    _round_eye(canvas, -0.4, -0.45, 0.055)
    canvas.fill(oval(-0.36, -0.55, 0.09, 0.04, -0.4), mix(yellow, _WHITE, 0.7))
    canvas.fill(oval(-0.3, 0.06, 0.1, 0.035, -0.5), mix(yellow, _WHITE, 0.55))


def _round_eye(canvas: Canvas, x: float, y: float, size: float) -> None:
    canvas.fill(oval(x, y, size, 1.15 * size), _WHITE)
    canvas.fill(oval(x - 0.2 * size, y, 0.66 * size, 0.8 * size), _DARK)
    canvas.fill(oval(x - 0.4 * size, y - 0.35 * size, 0.24 * size), _WHITE)


def draw_aeroplane(canvas: Canvas, rng: np.random.Generator) -> None:
    """An airliner in a bright livery, nose to the left."""
    paint = _pick(rng, (214, 36, 40), (30, 92, 188), (250, 190, 40), (40, 150, 80), (230, 100, 30))
    hull = _pick(rng, (246, 247, 250), (236, 240, 246), (252, 244, 226))
    back = canvas.layer()
    back.fill(spline([(0.06, -0.08), (0.3, -0.36), (0.38, -0.38), (0.26, -0.06)], steps=2), (176, 184, 196))
    back.fill([(0.62, -0.08), (0.78, -0.52), (0.98, -0.54), (0.9, -0.06)], paint)
    back.fill([(0.7, -0.3), (0.76, -0.46), (0.94, -0.48), (0.92, -0.36)], mix(paint, _WHITE, 0.7))
    canvas.add(back.rounded(0.3))
    body = canvas.layer()
    body.fill(
        spline(
            [
                (-0.98, 0.03),
                (-0.86, -0.09),
                (-0.6, -0.15),
                (0.5, -0.14),
                (0.98, -0.1),
                (0.94, -0.04),
                (0.5, 0.12),
                (-0.6, 0.15),
                (-0.88, 0.11),
            ]
        ),
        hull,
    )
    body.fill(
        spline([(-0.93, 0.07), (-0.3, 0.07), (0.4, 0.04), (0.8, -0.03), (0.5, 0.12), (-0.6, 0.15), (-0.86, 0.12)]),
        paint,
    )
    canvas.add(body.rounded(0.6))
    canvas.fill(spline([(-0.88, -0.05), (-0.8, -0.1), (-0.72, -0.1), (-0.76, -0.03)]), (40, 60, 92))
    x = np.linspace(-0.6, 0.52, 15)
    canvas.fill_all(oval(x, -0.03, 0.02, 0.03), [(64, 92, 134)] * 15)
    wing = canvas.layer()
    wing.fill([(-0.2, 0.06), (0.2, 0.03), (0.62, 0.5), (0.48, 0.52)], (204, 210, 220))
    wing.fill([(0.66, 0.0), (0.86, -0.04), (1.04, 0.14), (0.96, 0.16)], (190, 198, 210))
    canvas.add(wing.rounded(0.35))
    engine = canvas.layer()
    engine.fill(spline([(-0.06, 0.2), (0.14, 0.17), (0.24, 0.23), (0.14, 0.31), (-0.06, 0.31)]), paint)
    engine.fill(oval(-0.06, 0.255, 0.03, 0.055), (60, 64, 76))
    canvas.add(engine.rounded(0.5))


def draw_toy(canvas: Canvas, rng: np.random.Generator) -> None:
    """A teddy bear in a striped jumper of parrot colours."""
    fur = _pick(rng, (196, 140, 84), (164, 108, 64), (222, 184, 132), (206, 152, 110))
    first, second = (
        _pick(rng, (214, 36, 40), (30, 104, 196), (50, 164, 66)),
        _pick(rng, (252, 200, 44), (246, 244, 238)),
    )
    limbs = canvas.layer()
    limbs.fill_all(oval(np.array([-0.34, 0.34]), 0.4, 0.2, 0.17), [fur] * 2)
    limbs.fill_all(oval(np.array([-0.43, 0.43]), 0.02, 0.15, 0.24, np.array([0.6, -0.6])), [first] * 2)
    limbs.fill_all(oval(np.array([-0.53, 0.53]), 0.18, 0.11), [fur] * 2)
    canvas.add(limbs.rounded(0.55))
    canvas.fill_all(oval(np.array([-0.37, 0.37]), 0.42, 0.1, 0.08), [mix(fur, _WHITE, 0.4)] * 2)
    body = canvas.layer()
    body.fill(oval(0, 0.14, 0.37, 0.4), first)
    for y in (-0.06, 0.12, 0.3):
        half = 0.36 * math.sqrt(max(0.0, 1 - ((y - 0.14) / 0.42) ** 2))
        body.line(spline([(-half, y - 0.02), (0, y + 0.03), (half, y - 0.02)], closed=False), second, 0.075)
    canvas.add(body.rounded(0.6))
    ears = canvas.layer()
    ears.fill_all(oval(np.array([-0.3, 0.3]), -0.72, 0.14), [fur] * 2)
    canvas.add(ears.rounded(0.5))
    canvas.fill_all(oval(np.array([-0.3, 0.3]), -0.71, 0.08), [mix(fur, (250, 200, 180), 0.6)] * 2)
    head = canvas.layer()
    head.fill(oval(0, -0.46, 0.4, 0.35), fur)
    canvas.add(head.rounded(0.55))
    canvas.fill(oval(-0.02, -0.36, 0.17, 0.13), mix(fur, _WHITE, 0.5))
    canvas.fill(oval(-0.02, -0.42, 0.06, 0.042), _DARK)
    canvas.line(
        spline([(-0.1, -0.33), (-0.06, -0.3), (-0.02, -0.34), (0.02, -0.3), (0.06, -0.33)], closed=False), _DARK, 0.016
    )
    _button_eyes(canvas, 0.15, -0.53, 0.042)


def _button_eyes(canvas: Canvas, half: float, y: float, size: float) -> None:
    x = np.array([-half, half])
    canvas.fill_all(oval(x, y, size, 1.1 * size), [_DARK] * 2)
    canvas.fill_all(oval(x - 0.3 * size, y - 0.4 * size, 0.32 * size), [_WHITE] * 2)


def draw_elephant(canvas: Canvas, rng: np.random.Generator) -> None:
    """An elephant, trunk down or raised."""
    skin = _pick(rng, (142, 146, 156), (128, 130, 138), (150, 140, 136))
    lift = float(rng.uniform(-0.05, 0.5))
    far = canvas.layer()
    for x in (-0.12, 0.5):
        far.fill(spline([(x - 0.1, 0.1), (x - 0.11, 0.5), (x + 0.11, 0.5), (x + 0.12, 0.1)], steps=3), lit(skin, 0.7))
    far.line(spline([(0.74, -0.2), (0.86, 0.0), (0.84, 0.22)], closed=False), lit(skin, 0.7), 0.035)
    canvas.add(far.rounded(0.3))
    body = canvas.layer()
    body.fill(
        spline(
            [
                (-0.3, -0.42),
                (0.1, -0.5),
                (0.5, -0.46),
                (0.76, -0.2),
                (0.76, 0.12),
                (0.5, 0.24),
                (0.0, 0.26),
                (-0.34, 0.14),
            ]
        ),
        skin,
    )
    for x in (-0.26, 0.64):
        body.fill(spline([(x - 0.11, 0.0), (x - 0.12, 0.52), (x + 0.12, 0.52), (x + 0.13, 0.0)], steps=3), skin)
    canvas.add(body.rounded(0.6))
    for x in (-0.26, 0.64):
        canvas.fill_all(oval(x + np.array([-0.07, 0.0, 0.07]), 0.49, 0.03, 0.026), [mix(skin, _WHITE, 0.5)] * 3)
    head = canvas.layer()
    head.fill(oval(-0.42, -0.28, 0.27, 0.28), skin)
    trunk = [(-0.64, -0.2), (-0.76, 0.04), (-0.8, 0.24 - 0.5 * lift), (-0.9, 0.34 - lift)]
    for (x0, y0), (x1, y1), width in zip(trunk, trunk[1:], (0.2, 0.16, 0.12), strict=False):
        head.line([(x0, y0), (x1, y1)], skin, width)
    canvas.add(head.rounded(0.6))
    canvas.fill(spline([(-0.56, -0.04), (-0.62, 0.12), (-0.74, 0.18), (-0.64, 0.06), (-0.62, -0.06)]), (250, 246, 232))
    ear = canvas.layer()
    ear.fill(
        spline([(-0.36, -0.5), (-0.14, -0.56), (0.04, -0.36), (0.0, -0.06), (-0.16, 0.08), (-0.3, -0.1)]),
        lit(skin, 0.93),
    )
    canvas.add(ear.rounded(0.75))
    _round_eye(canvas, -0.53, -0.32, 0.035)


def draw_face(canvas: Canvas, rng: np.random.Generator) -> None:
    """A friendly person who looks into the camera."""
    skin = _pick(rng, (244, 206, 176), (226, 178, 138), (186, 130, 92), (134, 88, 60), (250, 220, 196))
    hair = _pick(rng, (40, 28, 24), (96, 60, 34), (212, 164, 84), (160, 70, 36), (150, 150, 154))
    shirt = _pick(rng, (206, 52, 48), (40, 98, 176), (58, 150, 84), (238, 190, 60), (110, 84, 160))
    long = rng.random() < 0.5
    back = canvas.layer()
    if long:
        back.fill(
            spline([(-0.44, -0.5), (0.0, -0.86), (0.44, -0.5), (0.48, 0.1), (0.36, 0.34), (-0.36, 0.34), (-0.48, 0.1)]),
            lit(hair, 0.86),
        )
    back.fill(
        spline(
            [
                (-0.86, 1.3),
                (-0.72, 0.62),
                (-0.26, 0.44),
                (0.26, 0.44),
                (0.72, 0.62),
                (0.86, 1.3),
                (0.8, 1.6),
                (-0.8, 1.6),
            ],
            steps=4,
        ),
        shirt,
    )
    back.fill(spline([(-0.16, 0.1), (0.16, 0.1), (0.18, 0.48), (0.0, 0.58), (-0.18, 0.48)]), lit(skin, 0.86))
    canvas.add(back.rounded(0.5))
    head = canvas.layer()
    head.fill_all(oval(np.array([-0.38, 0.38]), -0.12, 0.07, 0.11), [lit(skin, 0.92)] * 2)
    head.fill(
        spline(
            [
                (-0.37, -0.3),
                (-0.3, -0.6),
                (0, -0.72),
                (0.3, -0.6),
                (0.37, -0.3),
                (0.32, 0.06),
                (0.14, 0.28),
                (-0.14, 0.28),
                (-0.32, 0.06),
            ]
        ),
        skin,
    )
    canvas.add(head.rounded(0.42))
    top = canvas.layer()
    top.fill(
        spline(
            [
                (-0.4, -0.22),
                (-0.42, -0.56),
                (-0.2, -0.82),
                (0.2, -0.82),
                (0.42, -0.56),
                (0.4, -0.22),
                (0.3, -0.46),
                (0.0, -0.54),
                (-0.26, -0.48),
            ]
        ),
        hair,
    )
    canvas.add(top.rounded(0.5))
    _features(canvas, skin, hair, float(rng.uniform(0.03, 0.1)))


def _features(canvas: Canvas, skin: Colour, hair: Colour, smile: float) -> None:
    x = np.array([-0.15, 0.15])
    canvas.fill_all(oval(np.array([-0.22, 0.22]), 0.0, 0.08, 0.05), [mix(skin, (236, 110, 100), 0.3)] * 2)
    canvas.fill_all(oval(x, -0.17, 0.07, 0.045), [_WHITE] * 2)
    canvas.fill_all(oval(x, -0.17, 0.036), [(84, 60, 40)] * 2)
    canvas.fill_all(oval(x - 0.01, -0.185, 0.012), [_WHITE] * 2)
    for side in (-1, 1):
        canvas.line(
            spline([(side * 0.23, -0.27), (side * 0.15, -0.31), (side * 0.07, -0.28)], closed=False),
            lit(hair, 0.8),
            0.028,
        )
    canvas.line(spline([(0.0, -0.14), (-0.035, -0.0), (0.02, 0.015)], closed=False), lit(skin, 0.76), 0.02)
    lips = spline([(-0.14, 0.1), (0.0, 0.12), (0.14, 0.1), (0.0, 0.12 + 1.5 * smile)])
    canvas.fill(lips, (186, 64, 62))
    canvas.fill(oval(0.0, 0.115 + 0.25 * smile, 0.085, 0.22 * smile), _WHITE)


def draw_leaves(canvas: Canvas, rng: np.random.Generator, green: Colour) -> None:
    """A twig with leaves, to stand before a visitor's edge."""
    canvas.line(spline([(-1.0, 0.2), (-0.3, 0.05), (0.5, -0.1)], closed=False), (92, 70, 50), 0.05)
    x = np.linspace(-0.8, 0.5, 7)
    turn = np.where(np.arange(7) % 2 == 0, 2.2, -0.4) + rng.normal(0, 0.25, 7)
    tones = [lit(green, float(tone)) for tone in rng.uniform(0.8, 1.15, 7)]
    shape = (x, 0.1 - 0.18 * (x + 0.2), 0.5, 0.3, turn)
    canvas.fill_all(feather(*shape), [lit(tone, 0.75) for tone in tones])
    canvas.fill_all(feather(*shape, inner=True), tones)
    canvas.rounded(0.3)
