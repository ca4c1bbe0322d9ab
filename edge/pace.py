"""At most one of something in a while, for each camera. Pure; forgets cameras that have nothing to wait for."""

from __future__ import annotations

from collections import OrderedDict


class Pace:
    """Says for each camera whether ``every_s`` seconds have passed since it last said yes."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last: OrderedDict[str, float] = OrderedDict()

    def is_due(self, camera: str, now: float) -> bool:
        """Whether it is time for ``camera`` at ``now`` (monotonic seconds, never falling); a yes counts as done."""
        if now - self._last.get(camera, -self._every_s) < self._every_s:
            return False
        self._last[camera] = now
        self._last.move_to_end(camera)
        while now - next(iter(self._last.values())) >= self._every_s:
            self._last.popitem(last=False)
        return True
