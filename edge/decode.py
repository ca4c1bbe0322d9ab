"""From a message's payload to pixels: envelope, hash, picture, engine input. A bad frame becomes a sentence."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from threading import Lock

from edge.errors import DecoderError, FrameError, PoisonError
from edge.picture import Picture
from edge.records import Frame, RawFrame
from edge.wire import Payload, parse_payload
from engines import ImageError
from engines.image_header import probe_image

log = logging.getLogger(__name__)

# A decoder takes up to 8 bytes a pixel for a moment. Pictures of more pixels than 3840x2160 are opened one at a time,
# so that eight decoders stay within the memory limits of deploy/ (python -m tests.soak.decode_memory).
LARGE_PIXELS = 8_300_000


@dataclass(frozen=True, slots=True)
class Decoder:
    """Turns raw frames into frames that the cascade can judge; safe to call from several threads.

    Of pictures above ``LARGE_PIXELS`` one is opened at a time.

    Args:
        open_picture: a picture's bytes and their SHA-256 to pixels and engine input, here or in a child process.
        max_bytes: largest payload looked into.
        clock: monotonic seconds.
    """

    open_picture: Callable[[bytes, str], Picture]
    max_bytes: int
    clock: Callable[[], float] = time.monotonic
    _large: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __call__(self, raw: RawFrame) -> Frame:
        """Decode one frame; whatever is wrong with it ends up in ``Frame.error``, never in an exception.

        Raises:
            DecoderError: nothing is wrong with the frame, but no decoder can be had any more.
        """
        taken = self.clock()
        payload = Payload(raw.payload)
        try:
            payload = parse_payload(raw.payload, self.max_bytes)
            return self._decode(raw, payload, taken)
        except (FrameError, ImageError) as error:
            failed = self._failed(raw, payload, taken, str(error))
            return replace(failed, poison=isinstance(error, PoisonError))
        except DecoderError:
            raise
        except Exception:  # a bad frame never ends the process, whatever it triggers
            log.exception("decoding failed camera=%s bytes=%d", raw.camera, len(raw.payload))
            return self._failed(raw, payload, taken, "decoding failed inside the worker; see its log")

    def _decode(self, raw: RawFrame, payload: Payload, taken: float) -> Frame:
        frame = self._without_pixels(raw, payload, taken)
        with self._large if _is_large(payload.image) else nullcontext():
            picture = self.open_picture(payload.image, frame.digest)
        return replace(
            frame,
            width=picture.width,
            height=picture.height,
            content_type=f"image/{picture.format}",
            pixels=picture.pixels,
            features_input=picture.features_input,
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


def _is_large(image: bytes) -> bool:
    try:
        header = probe_image(image)
    except ImageError:  # told by what is to open it
        return False
    return header.width * header.height > LARGE_PIXELS
