"""The records that travel through the worker, from the broker's message to the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


class Outcome(str, Enum):
    """What a verdict says about its frame."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    UNCERTAIN = "uncertain"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to acknowledge one message, valid only in the connection that delivered it.

    ``epoch`` counts connections, ``serial`` counts messages over all epochs, ``mid`` is the broker's packet
    identifier (meaningless in another epoch). ``qos`` 0 needs no acknowledgement.
    """

    epoch: int
    serial: int
    mid: int
    qos: int


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One message as it came, not yet looked into.

    ``received_s`` is on the monotonic clock; ``captured_at`` is epoch seconds, from MQTT 5 user properties.
    ``dropped_before`` counts the frames of this camera dropped since the last one that was judged.
    """

    camera: str
    payload: bytes
    ticket: Ticket
    received_s: float
    redelivered: bool = False
    frame_id: str | None = None
    captured_at: float | None = None
    dropped_before: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame, or the reason why there are no pixels.

    ``image`` is the picture's own bytes (without envelope) and ``digest`` their SHA-256 as hex; ``pixels`` is
    uint8 (height, width, 3) RGB, possibly decoded at a reduced scale, while ``width`` and ``height`` are those
    of the original and ``content_type`` its form. ``features_input`` is the prepared input of the feature engine, as
    its manifest says. ``taken_s`` and ``decoded_s`` are monotonic: decoding began, decoding ended.
    ``poison`` says that the picture has killed two decoders: such a frame ends as a dead letter.
    """

    raw: RawFrame
    image: bytes
    digest: str
    taken_s: float
    decoded_s: float
    frame_id: str | None = None
    captured_at: float | None = None
    width: int | None = None
    height: int | None = None
    content_type: str | None = None
    pixels: UInt8 | None = None
    features_input: npt.NDArray[Any] | None = None
    error: str | None = None
    poison: bool = False


@dataclass(frozen=True, slots=True)
class Species:
    """One label with the species engine's probability in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the worker publishes for a frame; see ``edge schema verdict`` for the JSON.

    Times called ``*_at`` are epoch seconds; ``latency_ms`` maps stage to milliseconds.
    """

    id: str
    camera: str
    verdict: Outcome
    judged_at: float
    gate: str
    models: dict[str, str]
    worker: str
    frame_id: str | None = None
    captured_at: float | None = None
    probability: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    score: float | None = None
    species: tuple[Species, ...] = ()
    reused: bool = False
    dropped_before: int = 0
    redelivered: bool = False
    width: int | None = None
    height: int | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.verdict is Outcome.ERROR) != (self.error is not None):
            raise ValueError("a verdict has an error sentence exactly when its outcome is 'error'")

    def replace(self, **changes: Any) -> Verdict:
        """A copy with ``changes``; slots-friendly and typed for our own use."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Verdict(**{**values, **changes})
