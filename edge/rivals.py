"""Whether another client seems to use our client id. Pure; the caller has the clock.

A broker gives a client id to whoever comes last, and both come back for ever. MQTT 5 has a reason code for the one that
is put out, but mosquitto 2.0 does not send it: what is left to see is a broker that accepts us and hangs up again.
"""

from __future__ import annotations

from collections import deque

MANY = 3
WITHIN_S = 60.0


class Rivals:
    """Counts the connections that ended without a reason, for client ``client_id``."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._ends: deque[float] = deque(maxlen=MANY)
        self._told = float("-inf")

    def ended(self, now: float) -> None:
        """The broker accepted us, and the connection ended at ``now`` (monotonic seconds) without a reason."""
        self._ends.append(now)

    def taken_over(self, now: float) -> None:
        """The broker said at ``now`` that another client has taken our session over."""
        self._told = now

    def suspicion(self, now: float) -> str | None:
        """The sentence for people, None while there is nothing to suspect."""
        mend = "give each worker a name of its own (worker, mqtt.client_id)"
        if now - self._told < WITHIN_S:
            return f"another client uses our client id {self._client_id}: {mend}"
        if len(self._ends) < MANY or now - self._ends[0] >= WITHIN_S:
            return None
        seen = f"the broker accepted us and the connection ended {MANY} times in {self._ends[-1] - self._ends[0]:.0f} s"
        return f"{seen}: does another client use our client id {self._client_id}? Then {mend}"
