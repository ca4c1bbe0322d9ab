"""Whether the worker judges frames now, and the sentence that says so or what to mend. Pure: no clock, no I/O.

Rights may be taken away in the middle of a connection. That we may not write is known from the broker's answers to
our verdicts (not with MQTT 3.1.1, which has no answer but yes); one camera's may be refused while others' are taken.
That we may not read is known only from what does not come: a broker goes on to grant the subscription and keeps the
messages. So our own test frame is sent again when nothing has come for a while (``edge.canary``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from edge.wire import Topics

CANARY_TIMEOUT_S = 5.0
REFUSALS = 3  # in a row after which verdicts that were taken before prove nothing any more,
TAKEN_COUNTS_S = 60.0  # but for one of a camera that was not refused since, for so long
PASSING = ("not subscribed at the broker yet", "waiting for our own test frame")
Name = Literal["starting", "ready", "not-ready"]


@dataclass(slots=True)
class Readiness:
    """What is known of this connection; ``warm`` and ``topics`` outlive it.

    ``obstacle`` says why there is no subscription. ``proven``: a message has come, so we may read. ``canary_taken``:
    the broker has taken our test frame; ``canary_refusal`` is its reason for not taking the last one that it refused.
    ``confirmed``: the broker has taken a verdict; ``refusal`` is its reason for not taking the last one that it
    refused, ``refused`` how many it refused since it took one, and ``is_mute`` that it refuses them all. ``rival`` is
    the link's suspicion that another client uses our id.
    """

    topics: Topics
    warm: bool = False
    subscribed: bool = False
    proven: bool = False
    canary: Literal["none", "sent", "refused", "lost"] = "none"
    canary_taken: bool = False
    canary_refusal: str | None = None
    obstacle: str | None = None
    confirmed: bool = False
    refusal: str | None = None
    refused: int = 0
    is_mute: bool = False
    rival: str | None = None
    _taken_s: OrderedDict[str, float] = field(default_factory=OrderedDict)  # of cameras whose last verdict was taken

    def connect(self) -> None:
        """A connection begins, of which nothing is known."""
        self.subscribed = self.proven = self.confirmed = self.canary_taken = self.is_mute = False
        self.canary, self.obstacle, self.refusal, self.refused = "none", None, None, 0
        self._taken_s.clear()

    def disconnect(self, reason: str) -> None:
        """The connection is gone, or could not be made."""
        self.subscribed = self.proven = False
        self.obstacle = f"no connection to the broker: {reason}"

    def verdict_taken(self, camera: str, now: float) -> bool:
        """The broker has confirmed a verdict at ``now``, monotonic seconds; returns whether the state may change."""
        changes = self.is_mute
        self.confirmed, self.refused, self.is_mute = True, 0, False
        self._taken_s[camera] = now
        self._taken_s.move_to_end(camera)
        self._forget_old(now)
        return changes

    def verdict_refused(self, reason: str, camera: str, now: float) -> None:
        """The broker has refused a verdict at ``now``: one camera's, or all of them."""
        self.refusal, self.refused = reason, self.refused + 1
        self._taken_s.pop(camera, None)
        self._forget_old(now)
        self.is_mute = not self._taken_s and self.refused >= (REFUSALS if self.confirmed else 1)

    def _forget_old(self, now: float) -> None:
        while self._taken_s and now - next(iter(self._taken_s.values())) > TAKEN_COUNTS_S:
            self._taken_s.popitem(last=False)

    def state(self) -> tuple[Name, str]:
        """The state's name and its sentence."""
        if not self.warm:
            return "starting", "engines are being loaded" if self.obstacle is None else self.obstacle
        obstacle = self.obstacle or self._mute()
        if obstacle is not None:
            return "not-ready", obstacle
        if self.canary == "refused" and (self.proven or not self.canary_taken):
            return "ready", f"judging; the broker refuses our test frame to {self.topics.canary}"
        if self.proven:
            return "ready", "judging" if self.rival is None else f"judging; {self.rival}"
        return "not-ready", self._unproven()

    def _mute(self) -> str | None:
        if not self.is_mute:
            return None
        return (
            f"the broker refuses our verdicts ({self.refusal}): give this worker write access to "
            f"{self.topics.verdicts} in its access list"
        )

    def _unproven(self) -> str:
        if not self.subscribed:
            return PASSING[0]
        if self.canary == "refused":
            return (
                f"rights were taken away: the broker took our test frame to {self.topics.canary} and refuses it now "
                f"({self.canary_refusal}), and nothing comes; check its access list, and whether it lets us read "
                f"{self.topics.frames}"
            )
        if self.canary == "lost":
            return (
                f"the broker accepted our test frame but did not deliver it within {CANARY_TIMEOUT_S:g} s: "
                f"does its access list let us read {self.topics.frames}?"
            )
        return PASSING[1]
