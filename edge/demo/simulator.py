"""Simulated cameras: drawn frames whose truth is known, the same for the same seed.

A camera looks at one place with a perch. Visitors come, stay a few seconds, move a little and leave; between visits
the perch is empty. ``draw`` makes single, unrelated pictures of the same world, for training and calibration.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.demo.backdrops import PLACES, Place, paint_place, paint_wallpaper
from edge.demo.birds import FOOT, Pose, any_pose, draw_bird, moved
from edge.demo.camera import Sensor, any_sensor, drifted, encode_jpeg, expose
from edge.demo.paint import Canvas, UInt8, place
from edge.demo.things import draw_aeroplane, draw_duck, draw_elephant, draw_face, draw_leaves, draw_toy

SPECIES: dict[str, str] = {
    "scarlet_macaw": "Ara macao (Scarlet Macaw)",
    "blue_and_yellow_macaw": "Ara ararauna (Blue-and-yellow Macaw)",
    "cockatoo": "Cacatua galerita (Sulphur-crested Cockatoo)",
    "african_grey": "Psittacus erithacus (African Grey Parrot)",
    "lorikeet": "Trichoglossus moluccanus (Rainbow Lorikeet)",
}
"""The parrots: kind -> label."""

_THINGS: dict[str, Callable[[Canvas, np.random.Generator], None]] = {
    "duck": draw_duck, "aeroplane": draw_aeroplane, "toy": draw_toy, "elephant": draw_elephant, "face": draw_face,
}  # fmt: skip
KINDS: tuple[str, ...] = (*SPECIES, "eagle", *_THINGS, "wallpaper", "perch")
"""Everything that is drawn; those in ``SPECIES`` are positive."""

_ROUND = (*SPECIES, *SPECIES, *(kind for kind in KINDS if kind not in SPECIES and kind != "perch"))
"""The visitors of one round, which each camera mixes anew: parrots come twice."""

_MOVING_SHARE = 0.4  # of the frames; between them a visitor holds still, and the scene need not be drawn again
_RESTLESS = ("aeroplane",)
_OFF_THE_PERCH = ("aeroplane", "face")


@dataclass(frozen=True)
class Drawn:
    """One frame and its truth. ``species`` is a label of ``SPECIES`` for a parrot, else None."""

    jpeg: bytes
    kind: str
    positive: bool
    species: str | None

    @property
    def truth(self) -> str:
        """The truth as a person would say it."""
        return self.species or {"perch": "empty perch", "duck": "duck doll"}.get(self.kind, self.kind)


@dataclass(frozen=True)
class _Visit:
    """A visitor: ``size`` in pixels a unit, ``dx`` and ``dy`` in pixels off the perch, ``look`` seeds its varieties."""

    kind: str
    look: int
    size: float
    dx: float
    dy: float
    mirror: bool
    turn: float
    pose: Pose
    leaves: tuple[float, float] | None


def draw(kind: str, rng: np.random.Generator, width: int = 640, height: int = 480) -> UInt8:
    """One picture of ``kind`` (of ``KINDS``) in a place, light and camera of its own, uint8 (height, width, 3) RGB."""
    where = paint_place(PLACES[int(rng.integers(len(PLACES)))], rng, width, height)
    scene = _compose(where, _new_visit(kind, rng, height))
    return expose(scene, any_sensor(rng, where.infrared), rng)


class Simulator:
    """One camera. Equal ``camera`` and ``seed`` give equal frames, byte for byte, on the same libraries.

    A camera named after one of ``PLACES`` looks at that place, any other at a place of its own choice.
    """

    def __init__(self, camera: str, seed: int, width: int = 640, height: int = 480) -> None:
        self._rng = np.random.default_rng([seed, zlib.crc32(camera.encode())])
        where = camera if camera in PLACES else PLACES[int(self._rng.integers(len(PLACES)))]
        self._place = paint_place(where, self._rng, width, height)
        self._sensor: Sensor = any_sensor(self._rng, self._place.infrared)
        self._waiting: list[str] = []
        self._show(_new_visit("perch", self._rng, height))
        self._frames_left = int(self._rng.integers(2, 8))

    def next(self) -> Drawn:
        """The camera's next frame; made for about five frames a second."""
        if self._frames_left == 0:
            self._change_visitor()
        self._frames_left -= 1
        if self._visit.kind in _RESTLESS or self._rng.random() < _MOVING_SHARE:
            self._show(_later(self._visit, self._rng))
        self._sensor = drifted(self._sensor, self._rng)
        picture = expose(self._scene, self._sensor, self._rng)
        kind = self._visit.kind
        return Drawn(encode_jpeg(picture, self._sensor.quality), kind, kind in SPECIES, SPECIES.get(kind))

    def _change_visitor(self) -> None:
        leaves = self._visit.kind != "perch"
        self._show(_new_visit("perch" if leaves else self._next_visitor(), self._rng, self._place.picture.shape[0]))
        self._frames_left = int(self._rng.integers(4, 14) if leaves else self._rng.integers(14, 40))

    def _next_visitor(self) -> str:
        if not self._waiting:
            self._waiting = [_ROUND[i] for i in self._rng.permutation(len(_ROUND))]
        return self._waiting.pop()

    def _show(self, visit: _Visit) -> None:
        self._visit, self._scene = visit, _compose(self._place, visit)


def _new_visit(kind: str, rng: np.random.Generator, height: int) -> _Visit:
    size = height * float(rng.uniform(0.24, 0.46))
    leaves = (float(rng.choice([-0.75, 0.75])), float(rng.uniform(-0.3, 0.5))) if rng.random() < 0.22 else None
    return _Visit(
        kind=kind,
        look=int(rng.integers(2**32)),
        size=size,
        dx=size * float(rng.normal(0, 0.25)),
        dy=size * float(rng.uniform(-0.9, -0.2)) if kind == "aeroplane" else 0.0,
        mirror=bool(rng.random() < 0.5),
        turn=float(rng.normal(0, 0.12 if kind == "aeroplane" else 0.04)),
        pose=any_pose(rng),
        leaves=leaves,
    )


def _later(visit: _Visit, rng: np.random.Generator) -> _Visit:
    """The visitor a moment later; an aeroplane flies on, the perch stays as it is."""
    if visit.kind in ("perch", "wallpaper"):
        return visit
    ahead = 0.05 if visit.mirror else -0.05
    step = ahead if visit.kind == "aeroplane" else float(rng.normal(0, 0.012))
    return replace(visit, pose=moved(visit.pose, rng), dx=visit.dx + step * visit.size)


def _compose(where: Place, visit: _Visit) -> UInt8:
    """The scene before the camera's own faults, uint8 (h, w, 3) RGB, a new array."""
    look = np.random.default_rng(visit.look)
    height, width = where.picture.shape[:2]
    if visit.kind == "wallpaper":
        return paint_wallpaper(look, width, height)
    scene = where.picture.copy()
    if visit.kind != "perch":
        _paint_visitor(scene, where, visit, look)
    if visit.leaves is not None:
        _paint_leaves(scene, where, visit, look)
    return scene


def _paint_visitor(scene: UInt8, where: Place, visit: _Visit, look: np.random.Generator) -> None:
    height, width = scene.shape[:2]
    x = float(np.clip(where.x + visit.dx, 0.25 * width, 0.75 * width))
    y = height - 0.85 * visit.size if visit.kind == "face" else where.y + visit.dy - FOOT[1] * visit.size
    y = max(y, 0.6 * visit.size)
    canvas = place(scene, x, y, visit.size, visit.turn, visit.mirror)
    if visit.kind in _THINGS:
        _THINGS[visit.kind](canvas, look)
    else:
        draw_bird(canvas, visit.kind, visit.pose, look)
    _shadow(scene, x, where.y, visit)
    canvas.paste(scene)


def _shadow(scene: UInt8, x: float, y: float, visit: _Visit) -> None:
    """A soft dark spot on the perch under whoever stands there."""
    if visit.kind in _OFF_THE_PERCH:
        return
    reach_x, reach_y = int(0.4 * visit.size), int(0.07 * visit.size)
    part = scene[max(0, int(y)) : int(y) + reach_y, max(0, int(x) - reach_x) : int(x) + reach_x]
    if part.size:
        part[...] = cv2.convertScaleAbs(part, alpha=0.72)


def _paint_leaves(scene: UInt8, where: Place, visit: _Visit, look: np.random.Generator) -> None:
    side, row = visit.leaves or (0.0, 0.0)
    x, y = where.x + visit.dx + side * visit.size, where.y + (row - 0.3) * visit.size
    canvas = place(scene, x, y, 0.55 * visit.size, turn=float(look.normal(0, 0.5)), mirror=side > 0)
    draw_leaves(canvas, look, (78, 142, 66))
    canvas.paste(scene)
