"""Drawn pictures of plain colours in folders, and a tiny true network that tells the colours apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engines import OutputSpec
from tests.engines import networks

COLOURS = {
    "red/a": (40, 60, 200),
    "red/b": (60, 40, 200),
    "other/green": (40, 190, 60),
    "other/blue": (200, 50, 60),
}
FIT = ("--model", "tiny.onnx", "--positives", "red", "--negatives", "other")


def draw(folder: Path, colours: Mapping[str, tuple[int, int, int]] = COLOURS, count: int = 14, seed: int = 0) -> Path:
    """``count`` pictures of each colour (B, G, R) in a folder of its name; returns ``folder``."""
    rng = np.random.default_rng(seed)
    for name, bgr in colours.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            tint = np.array(bgr) + rng.integers(-25, 25, 3)
            pixels = np.clip(tint + rng.integers(-9, 9, (24, 32, 3)), 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(folder / name / f"{i}.png"), pixels)
    return folder


def place(folder: Path) -> Path:
    """``folder`` with the network ``tiny.onnx`` and two kinds of red and two families of other pictures."""
    networks.save(folder, networks.graph(), output=OutputSpec(kind="features", size=4))
    return draw(folder)
