"""What a cheap camera does to a scene: light, white balance, soft focus, infrared, sensor noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge.demo.paint import UInt8

_GREY_WEIGHTS = np.full((3, 3), (0.42, 0.38, 0.2), np.float32)  # near infrared shows red brighter than the eye does
_GAIN_MIN, _GAIN_MAX = 0.65, 1.25


@dataclass(frozen=True)
class Sensor:
    """The state of one camera: ``gain`` scales all pixels, ``balance`` each of R, G, B; ``blur_px`` and
    ``noise`` (grey levels) are standard deviations; ``quality`` is JPEG's.
    """

    gain: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_px: float = 0.0
    noise: float = 3.0
    vignette: float = 0.2
    infrared: bool = False
    quality: int = 88


def any_sensor(rng: np.random.Generator, infrared: bool) -> Sensor:
    """A camera as one may buy it, in some weather."""
    warmth = float(rng.normal(0, 0.05))
    return Sensor(
        gain=float(np.clip(rng.normal(1.0, 0.12), _GAIN_MIN, _GAIN_MAX)) * _usual_gain(infrared),
        balance=(1 + warmth, 1.0, 1 - warmth),
        blur_px=float(rng.uniform(0.6, 2.2)) if rng.random() < 0.3 else 0.0,
        noise=float(rng.uniform(5, 11) if infrared else rng.uniform(1, 7)),
        vignette=float(rng.uniform(0.5, 0.8) if infrared else rng.uniform(0, 0.35)),
        infrared=infrared,
        quality=int(rng.integers(70, 93)),
    )


def drifted(sensor: Sensor, rng: np.random.Generator) -> Sensor:
    """The same camera a moment later: clouds move."""
    usual = _usual_gain(sensor.infrared)
    gain = sensor.gain / usual
    gain += 0.02 * (1 - gain) + float(rng.normal(0, 0.006))
    return replace(sensor, gain=usual * float(np.clip(gain, _GAIN_MIN, _GAIN_MAX)))


def expose(scene: UInt8, sensor: Sensor, rng: np.random.Generator) -> UInt8:
    """The picture that ``sensor`` takes of ``scene``, both uint8 (h, w, 3) RGB."""
    height, width = scene.shape[:2]
    colour = _GREY_WEIGHTS if sensor.infrared else np.diag(np.array(sensor.balance, np.float32))
    picture = cv2.transform(scene, sensor.gain * colour)
    if sensor.blur_px > 0:
        size = 2 * round(1.5 * sensor.blur_px * width / 640) + 1
        picture = cv2.blur(cv2.blur(picture, (size, size)), (size, size))
    if sensor.vignette > 0:
        picture = cv2.multiply(picture, _vignette(width, height, round(20 * sensor.vignette)), scale=1 / 255)
    return _noisy(picture, sensor.noise, rng)


def encode_jpeg(picture: UInt8, quality: int) -> bytes:
    """``picture`` uint8 (h, w, 3) RGB as JPEG of ``quality`` 1-100."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def _usual_gain(infrared: bool) -> float:
    return 1.25 if infrared else 1.0


def _noisy(picture: npt.NDArray[Any], level: float, rng: np.random.Generator) -> UInt8:
    height, width = picture.shape[:2]
    grain = _grain(height, width, max(1, round(level)))
    y, x = int(rng.integers(grain.shape[0] - height)), int(rng.integers(grain.shape[1] - width))
    noise = grain[y : y + height, x : x + width]
    return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), dtype=np.uint8)


@lru_cache(maxsize=16)
def _grain(height: int, width: int, level: int) -> npt.NDArray[np.int16]:
    """Noise larger than a picture by 64 pixels; a random part of it is laid over each (drawing it anew costs 20 ms)."""
    rng = np.random.default_rng(level)
    grey = rng.normal(0, 0.8 * level, (height + 64, width + 64, 1))
    return (grey + rng.normal(0, 0.6 * level, (height + 64, width + 64, 3))).round().astype(np.int16)


@lru_cache(maxsize=64)
def _vignette(width: int, height: int, twentieths: int) -> UInt8:
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    fall = 1 - twentieths / 20 * np.clip((x**2 + y**2) / 2, 0, 1)
    return np.repeat((255 * fall)[..., None], 3, axis=2).astype(np.uint8)
