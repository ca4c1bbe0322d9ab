"""Whether the worker judges frames now, and the sentence that says so or what to mend. Pure: no clock, no I/O.

Rights may be taken away in the middle of a connection. That we may not write is known from the broker's answers to
our verdicts (not with MQTT 3.1.1, which has no answer but yes). That we may not read is known only from what does not
come: a broker goes on to grant the subscription and keeps the messages. So our own test frame is sent again when
nothing has come for a while.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge.wire import Topics

CANARY_TIMEOUT_S = 5.0
REFUSALS = 3  # in a row after which verdicts that were taken before prove nothing any more
PASSING = ("not subscribed at the broker yet", "waiting for our own test frame")
Name = Literal["starting", "ready", "not-ready"]


@dataclass(slots=True)
class Readiness:
    """What is known of this connection; ``warm`` and ``topics`` outlive it.

    ``obstacle`` says why there is no subscription. ``proven``: a message has come, so we may read. ``confirmed``: the
    broker has taken a verdict; ``refusal`` is its reason for not taking the last one that it refused, and ``refused``
    how many it refused since it took one. ``rival`` is the link's suspicion that another client uses our id.
    """

    topics: Topics
    warm: bool = False
    subscribed: bool = False
    proven: bool = False
    canary: Literal["none", "sent", "refused", "lost"] = "none"
    obstacle: str | None = None
    confirmed: bool = False
    refusal: str | None = None
    refused: int = 0
    rival: str | None = None

    def connect(self) -> None:
        """A connection begins, of which nothing is known."""
        self.subscribed = self.proven = self.confirmed = False
        self.canary, self.obstacle, self.refusal, self.refused = "none", None, None, 0

    def disconnect(self, reason: str) -> None:
        """The connection is gone, or could not be made."""
        self.subscribed = self.proven = False
        self.obstacle = f"no connection to the broker: {reason}"

    def verdict_taken(self) -> bool:
        """The broker has confirmed a verdict. Returns whether that may change the state."""
        changes = self.refused > 0
        self.confirmed, self.refused = True, 0
        return changes

    def verdict_refused(self, reason: str) -> None:
        """The broker has refused a verdict: one camera's, or all of them."""
        self.refusal, self.refused = reason, self.refused + 1

    def state(self) -> tuple[Name, str]:
        """The state's name and its sentence."""
        if not self.warm:
            return "starting", "engines are being loaded" if self.obstacle is None else self.obstacle
        obstacle = self.obstacle or self._mute()
        if obstacle is not None:
            return "not-ready", obstacle
        if self.canary == "refused":
            return "ready", f"judging; the broker refuses our test frame to {self.topics.canary}"
        if self.proven:
            return "ready", "judging" if self.rival is None else f"judging; {self.rival}"
        return "not-ready", self._unproven()

    def _mute(self) -> str | None:
        if self.refused < (REFUSALS if self.confirmed else 1):
            return None
        return (
            f"the broker refuses our verdicts ({self.refusal}): give this worker write access to "
            f"{self.topics.verdicts} in its access list"
        )

    def _unproven(self) -> str:
        if not self.subscribed:
            return PASSING[0]
        if self.canary == "lost":
            return (
                f"the broker accepted our test frame but did not deliver it within {CANARY_TIMEOUT_S:g} s: "
                f"does its access list let us read {self.topics.frames}?"
            )
        return PASSING[1]
