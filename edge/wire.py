"""What stands on the wire: topic names and the forms in which a frame may come. Pure functions."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from edge.errors import FrameError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
CANARY = "_canary-"  # begins the name under which a worker sends its own test frame
MAX_FRAME_ID = 256
MAX_JSON_PARTS = 10_000  # marks [ { and , in an envelope, none of them base64: 8 MiB of such become 200 MiB of objects
_JSON_START = (b"{", b"[")


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one worker; ``prefix`` as configured, without a slash at either end."""

    prefix: str
    worker: str

    @property
    def frames(self) -> str:
        """The subscription filter for every camera's frames."""
        return f"{self.prefix}/+/frame"

    @property
    def verdicts(self) -> str:
        """The filter that all verdicts match."""
        return f"{self.prefix}/+/verdict"

    @property
    def canary(self) -> str:
        """Where this worker's own test frame goes; never shared, never judged."""
        return f"{self.prefix}/{CANARY}{self.worker}/frame"

    @property
    def status(self) -> str:
        return f"edge/{self.worker}/status"

    @property
    def stats(self) -> str:
        return f"edge/{self.worker}/stats"

    @property
    def deadletter(self) -> str:
        return f"edge/{self.worker}/deadletter"

    def of_camera(self, camera: str, leaf: str) -> str:
        """``<prefix>/<camera>/<leaf>``; raises FrameError when ``camera`` is no camera's name."""
        check_camera(camera)
        return f"{self.prefix}/{camera}/{leaf}"

    def camera_of(self, topic: str) -> str:
        """The camera that a frame's topic names.

        Raises:
            FrameError: the topic is not ``<prefix>/<camera>/frame`` with a well-formed camera name.
        """
        head, tail = f"{self.prefix}/", "/frame"
        if not (topic.startswith(head) and topic.endswith(tail) and len(topic) > len(head) + len(tail)):
            raise FrameError(f"topic {shorten(topic)} is not {self.prefix}/<camera>/frame")
        return check_camera(topic[len(head) : -len(tail)])


def check_camera(name: str) -> str:
    """Return ``name`` if it may name a camera, else raise FrameError; names that start with ``_`` are reserved."""
    if NAME.fullmatch(name) is None:
        raise FrameError(f"camera name {shorten(name)} must be 1 to 64 of A-Z a-z 0-9 _ -")
    return name


def is_reserved(camera: str) -> bool:
    """True for names that no camera may have."""
    return camera.startswith("_")


def is_canary(camera: str) -> bool:
    """True for a reserved name under which a worker, this or another one, sends its own test frame."""
    return camera.startswith(CANARY)


@dataclass(frozen=True, slots=True)
class Payload:
    """A picture's bytes and what came with them; ``captured_at`` is epoch seconds."""

    image: bytes
    frame_id: str | None = None
    captured_at: float | None = None


def parse_payload(payload: bytes, max_bytes: int) -> Payload:
    """Take the picture out of a frame message.

    Accepted are an image's own bytes, the envelope ``{"image": "<base64>", "frame_id": …, "captured_at": …}``
    (also with ``b64`` for ``image``), and DL Streamer's list ``[metadata, "<base64>"]``.

    Args:
        payload: the MQTT message's payload.
        max_bytes: the largest payload looked into.

    Raises:
        FrameError: the payload is empty, too large, or an envelope that cannot be read.
    """
    if not payload:
        raise FrameError("the message is empty; expected an image or a JSON envelope")
    if len(payload) > max_bytes:
        raise FrameError(f"the message has {len(payload)} bytes; at most {max_bytes} are taken (mailbox.max_frame_mib)")
    if payload[:1] not in _JSON_START:
        return Payload(payload)
    envelope = _read_json(payload)
    if isinstance(envelope, list):
        return _from_list(envelope)
    if not isinstance(envelope, dict):
        raise FrameError(f"the JSON envelope is a {type(envelope).__name__}; expected an object or [metadata, base64]")
    return _from_object(envelope)


def clean_frame_id(value: Any) -> str | None:
    """``value`` as a frame id (a string or an integer, at most 256 characters of valid Unicode) or None.

    Raises:
        FrameError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise FrameError(f"frame_id must be a string, not {type(value).__name__}")
    text = str(value)
    if len(text) > MAX_FRAME_ID or not text.isprintable():
        raise FrameError(f"frame_id must be at most {MAX_FRAME_ID} printable characters")
    return text


def clean_captured_at(value: Any) -> float | None:
    """``value`` as finite epoch seconds (a number, or a string that holds one) or None; FrameError otherwise."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FrameError(f"captured_at must be epoch seconds, not {type(value).__name__}")
    try:
        seconds = float(value)
    except (ValueError, OverflowError) as exc:
        raise FrameError(f"captured_at must be epoch seconds, not {shorten(str(value))}") from exc
    if not math.isfinite(seconds):
        raise FrameError("captured_at must be a finite number of epoch seconds")
    return seconds


def shorten(text: str, limit: int = 80) -> str:
    """``text`` quoted in ASCII and cut to ``limit`` characters: safe in a log line or a sentence."""
    quoted = ascii(text[: limit + 1])
    return quoted if len(text) <= limit else f"{text[:limit]!a}…"


def _from_object(envelope: dict[str, Any]) -> Payload:
    image = envelope.get("image", envelope.get("b64"))
    if not isinstance(image, str):
        raise FrameError('the JSON envelope has no "image" (a base64 string)')
    return Payload(
        _decode_base64(image),
        clean_frame_id(envelope.get("frame_id")),
        clean_captured_at(envelope.get("captured_at")),
    )


def _from_list(envelope: list[Any]) -> Payload:
    if len(envelope) != 2 or not isinstance(envelope[0], dict) or not isinstance(envelope[1], str):
        raise FrameError('the JSON list is not [metadata object, "<base64>"]')
    metadata, image = envelope
    return Payload(_decode_base64(image), clean_frame_id(metadata.get("frame_id")), None)


def _decode_base64(text: str) -> bytes:
    try:
        image = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise FrameError(f"the envelope's image is not base64: {exc}") from exc
    if not image:
        raise FrameError("the envelope's image is empty")
    return image


def _read_json(payload: bytes) -> Any:
    if sum(payload.count(mark) for mark in (b"[", b"{", b",")) > MAX_JSON_PARTS:
        raise FrameError(f"the JSON envelope has more than {MAX_JSON_PARTS} parts; expected an image and its metadata")
    try:
        return json.loads(payload, parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
    except FrameError:
        raise
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"the message starts like JSON but is none: {shorten(str(exc), 120)}") from exc


def _refuse_constant(name: str) -> float:
    raise FrameError(f"the JSON envelope holds {name}; only finite numbers are taken")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FrameError("the JSON envelope names a key twice")
    return found
