"""The roster: how many cameras a worker serves, so that a flood of topics takes neither memory nor turns. Pure."""

from __future__ import annotations

from collections import OrderedDict

IDLE_S = 3600.0  # a camera that was silent for so long gives its place to a new one


class Roster:
    """At most ``most`` cameras at a time; those that are in stay in while they speak."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heard_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._heard_s)

    def admit(self, camera: str, now_s: float) -> bool:
        """Whether a frame of ``camera``, come at the monotonic ``now_s``, is taken."""
        if camera not in self._heard_s and len(self._heard_s) >= self._most:
            longest_silent, heard_s = next(iter(self._heard_s.items()))
            if now_s - heard_s < IDLE_S:
                return False
            del self._heard_s[longest_silent]
        self._heard_s[camera] = now_s
        self._heard_s.move_to_end(camera)
        return True
