"""When our own test frame is sent, and what its answers say of our rights. Pure: the caller has the clock.

It goes out when a connection begins, again after a while in which nothing has come, and again and again while the
broker refuses it or does not bring it back: rights may be given as well as taken away in mid-connection.
"""

from __future__ import annotations

from edge.readiness import CANARY_TIMEOUT_S, Readiness

CANARY_RETRY_S = 30.0
CANARY_AGAIN_S = 60.0  # of silence, after which our right to read is tried anew


class Canary:
    """Keeps ``readiness.canary`` and ``readiness.proven`` by what happens at ``now``, monotonic seconds."""

    def __init__(self, readiness: Readiness) -> None:
        self._known = readiness
        self._sent_s = self._heard_s = 0.0

    def connect(self, now: float) -> None:
        """A connection begins."""
        self._known.connect()
        self._sent_s = self._heard_s = now

    def sent(self, now: float) -> None:
        """It is on its way; one that was lost or refused counts as such until it is answered."""
        known, self._sent_s = self._known, now
        if known.canary != "refused" and (known.canary != "lost" or known.proven):
            known.canary = "sent"

    def taken(self) -> bool:
        """The broker has confirmed it. Returns whether that may change the state."""
        known = self._known
        was_refused, known.canary_taken = known.canary == "refused", True
        if was_refused:
            known.canary = "sent"
        return was_refused

    def refused(self, reason: str, now: float) -> bool:
        """The broker refuses it; returns whether that is new.

        Where it took one before in this connection, and has brought nothing for a while, what came before proves
        nothing any more.
        """
        known = self._known
        before = known.canary, known.proven
        known.canary, known.canary_refusal = "refused", reason
        if known.canary_taken and now - self._heard_s > CANARY_RETRY_S:
            known.proven = False
        return before != (known.canary, known.proven)

    def heard(self, now: float) -> bool:
        """A message has come: we may read. Returns whether that may change the state.

        Behind a backlog our own frame and the broker's answer come late; any frame proves as well that we may read.
        """
        self._heard_s = now
        changes = not self._known.proven
        self._known.proven = True
        return changes

    def is_due(self, now: float) -> bool:
        """Whether it is to be sent now."""
        known = self._known
        if not known.subscribed:
            return False
        if known.canary == "refused" or (known.canary == "lost" and not known.proven):
            return now - self._sent_s > CANARY_RETRY_S
        return known.proven and self._answered() and now - self._heard_s > CANARY_AGAIN_S

    def is_lost(self, now: float) -> bool:
        """Whether it is overdue; it is lost then, and nothing is proven."""
        known = self._known
        if known.canary != "sent" or self._answered() or now - self._sent_s <= CANARY_TIMEOUT_S:
            return False
        known.canary, known.proven = "lost", False
        return True

    def _answered(self) -> bool:
        return self._heard_s >= self._sent_s
