"""From a message's payload to pixels: envelope, hash, picture, engine input. A bad frame becomes a sentence."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge.errors import FrameError
from edge.records import Frame, RawFrame
from edge.wire import Payload, parse_payload
from engines import ImageError, ImageLimits, InputSpec, decode_image, prepare_input

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decoder:
    """Turns raw frames into frames that the cascade can judge; safe to call from several threads.

    Args:
        features: the feature engine's input; the prepared array is made here, off the engine's thread.
        minimum: (height, width) in pixels of the largest engine input; a reduced-scale decode keeps twice that.
        max_bytes: largest payload looked into.
        limits: what kinds and sizes of pictures are taken.
        clock: monotonic seconds.
    """

    features: InputSpec
    minimum: tuple[int, int]
    max_bytes: int
    limits: ImageLimits
    clock: Callable[[], float] = time.monotonic

    def __call__(self, raw: RawFrame) -> Frame:
        """Decode one frame; whatever is wrong with it ends up in ``Frame.error``, never in an exception."""
        taken = self.clock()
        payload = Payload(raw.payload)
        try:
            payload = parse_payload(raw.payload, self.max_bytes)
            return self._decode(raw, payload, taken)
        except (FrameError, ImageError) as error:
            return self._failed(raw, payload, taken, str(error))
        except Exception:  # a bad frame never ends the process, whatever it triggers
            log.exception("decoding failed camera=%s bytes=%d", raw.camera, len(raw.payload))
            return self._failed(raw, payload, taken, "decoding failed inside the worker; see its log")

    def _decode(self, raw: RawFrame, payload: Payload, taken: float) -> Frame:
        picture = decode_image(payload.image, minimum=self.minimum, limits=self.limits)
        return replace(
            self._without_pixels(raw, payload, taken),
            width=picture.width,
            height=picture.height,
            content_type=f"image/{picture.format}",
            pixels=picture.pixels,
            features_input=prepare_input(picture.pixels, self.features),
            decoded_s=self.clock(),
        )

    def _failed(self, raw: RawFrame, payload: Payload, taken: float, error: str) -> Frame:
        return replace(self._without_pixels(raw, payload, taken), decoded_s=self.clock(), error=error)

    def _without_pixels(self, raw: RawFrame, payload: Payload, taken: float) -> Frame:
        return Frame(
            raw=raw,
            image=payload.image,
            digest=hashlib.sha256(payload.image).hexdigest(),
            taken_s=taken,
            decoded_s=taken,
            frame_id=payload.frame_id if payload.frame_id is not None else raw.frame_id,
            captured_at=payload.captured_at if payload.captured_at is not None else raw.captured_at,
        )
