"""One picture, ready for the cascade: pixels and the feature engine's input. Decoder threads and children share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from edge.records import UInt8
from engines import ImageLimits, InputSpec, decode_image, prepare_input
from engines.image_header import ImageFormat


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels`` is uint8 (h, w, 3) RGB, upright, possibly at a reduced scale of the original ``width``, ``height``.

    ``features_input`` has the shape and dtype of the feature engine's input. Both arrays are the caller's own.
    """

    width: int
    height: int
    format: ImageFormat
    pixels: UInt8
    features_input: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PictureOpener:
    """Opens pictures in the calling thread.

    Args:
        features: the feature engine's input.
        minimum: (height, width) in pixels of the largest engine input; a reduced-scale decode keeps twice that.
        limits: what kinds and sizes of pictures are taken.
    """

    features: InputSpec
    minimum: tuple[int, int]
    limits: ImageLimits

    def __call__(self, image: bytes, digest: str) -> Picture:
        """Decode and prepare ``image``; ``digest`` names it where opening it can fail for good.

        Raises:
            ImageError: no picture, damaged, too large.
        """
        del digest
        decoded = decode_image(image, minimum=self.minimum, limits=self.limits)
        prepared = prepare_input(decoded.pixels, self.features)
        return Picture(decoded.width, decoded.height, decoded.format, decoded.pixels, prepared)

    def close(self) -> None:
        """Nothing to free."""
