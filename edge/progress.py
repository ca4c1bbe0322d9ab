"""What tells that a worker gets on: signs of life of its threads, and verdicts while frames wait. No clock; not locked.

Every time is monotonic seconds, given by the caller: a wall clock that jumps means nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Part = Literal["link", "engine"]


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds a silence is a hang.

    ``link_s``: of the link's thread while connected; ``stall_s``: of the engine's thread, and without a verdict while
    frames wait; ``away_s``: of the link's thread without a connection, since a name that no server resolves keeps it
    for minutes, and without the broker's answer to what was published.
    """

    link_s: float = 30.0
    stall_s: float = 30.0
    away_s: float = 300.0


@dataclass(slots=True)
class Progress:
    """Signs of life as they came. ``waiting`` holds frames, their bytes, and the age of the oldest in seconds."""

    began_s: float
    fault: str | None = None
    beats: dict[str, float] = field(default_factory=dict)
    waiting: tuple[int, int, float] = (0, 0, 0.0)
    judged_s: float = 0.0
    waiting_since_s: float = 0.0
    unconfirmed: int = 0
    confirmed_s: float = 0.0

    def __post_init__(self) -> None:
        self.judged_s = self.waiting_since_s = self.confirmed_s = self.began_s

    def beat(self, part: Part, now: float) -> None:
        """The thread that owns ``part`` lives."""
        self.beats[part] = now

    def wait(self, frames: int, nbytes: int, oldest_s: float, now: float) -> None:
        """So many frames wait or are being judged."""
        if frames > 0 and self.waiting[0] == 0:
            self.waiting_since_s = now
        self.waiting = (frames, nbytes, oldest_s)

    def hold(self, publications: int, now: float) -> None:
        """So many publications have no answer of the broker yet; fewer than before, or the first one, is progress."""
        if self.unconfirmed == 0 or publications < self.unconfirmed:
            self.confirmed_s = now
        self.unconfirmed = publications

    def is_live(self, now: float, connected: bool, patience: Patience) -> tuple[bool, str]:
        """Whether the worker gets on, with a sentence."""
        if self.fault:
            return False, self.fault
        limit = patience.link_s if connected else patience.away_s
        silence = now - self.beats.get("link", now)
        if silence > limit:
            return False, f"the link to the broker gave no sign of life for {silence:.0f} s (limit {limit:g} s)"
        limit = patience.stall_s
        silence = now - max(self.beats.get("engine", now), self.judged_s)  # a batch judged frame by frame is no hang
        if silence > limit:
            return False, f"the engine's thread gave no sign of life for {silence:.0f} s (limit {limit:g} s)"
        if not connected:
            return True, "alive"
        stalled = now - max(self.judged_s, self.waiting_since_s)
        if self.waiting[0] and stalled > limit:
            waiting = f"{self.waiting[0]} frame{'s wait' if self.waiting[0] > 1 else ' waits'}"
            return False, f"{waiting} and no verdict came for {stalled:.0f} s (limit {limit:g} s)"
        silence = now - self.confirmed_s
        if self.unconfirmed and silence > patience.away_s:
            return False, f"the broker confirmed no publication for {silence:.0f} s (limit {patience.away_s:g} s)"
        return True, "alive"
