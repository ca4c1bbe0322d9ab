"""The mailbox: frames that wait, bounded in number and bytes, and fair between cameras. Pure; the caller locks.

Under ``latest`` a newer frame of a camera takes the place of its older one still waiting, so a quiet camera is
never starved and nobody judges the past. Under ``every`` nothing is dropped; a full mailbox refuses instead.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import replace
from typing import Literal

from edge.records import RawFrame

CAMERAS_REMEMBERED = 1000
Policy = Literal["latest", "every"]


class MailboxFull(Exception):  # noqa: N818 - a condition the caller acts on, not a fault
    """The frame was not taken: one more would pass a bound, and the policy allows no drop."""


def renew(waiting: deque[RawFrame], frame: RawFrame) -> bool:
    """Give the ticket of ``frame`` to its first delivery, in an earlier connection, if that is among ``waiting``."""
    epoch = frame.ticket.epoch
    for place, earlier in enumerate(waiting):
        if earlier.ticket.epoch < epoch and _is_same(earlier, frame):
            waiting[place] = replace(earlier, ticket=frame.ticket, redelivered=frame.redelivered)
            return True
    return False


def _is_same(one: RawFrame, other: RawFrame) -> bool:
    named = (one.camera, one.frame_id, one.captured_at) == (other.camera, other.frame_id, other.captured_at)
    return named and one.ticket.qos > 0 and one.payload == other.payload


class Mailbox:
    """Waiting frames, given out camera by camera in turn.

    Args:
        policy: ``latest`` or ``every``.
        max_frames: most frames that wait.
        max_bytes: most payload bytes that wait.
    """

    def __init__(self, policy: Policy, max_frames: int, max_bytes: int) -> None:
        self.policy = policy
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        self.bytes = 0
        self._frames = 0
        self._waiting: OrderedDict[str, deque[RawFrame]] = OrderedDict()
        self._served: OrderedDict[str, int] = OrderedDict()  # camera -> the turn it was last given out in
        self._turn = 0

    def __len__(self) -> int:
        return self._frames

    def put(self, frame: RawFrame) -> list[RawFrame]:
        """Take ``frame`` in; return the frames that were dropped for it, oldest first.

        Raises:
            MailboxFull: policy ``every`` and a bound would be passed, or the frame alone is over ``max_bytes``.
        """
        if len(frame.payload) > self.max_bytes:
            raise MailboxFull
        if self.policy == "every":
            if self._frames + 1 > self.max_frames or self.bytes + len(frame.payload) > self.max_bytes:
                raise MailboxFull
            self._append(frame)
            return []
        return self._put_latest(frame)

    def take(self) -> RawFrame | None:
        """Give out a frame of the waiting camera that was served longest ago, or None when nothing waits.

        So a quiet camera's frame goes before the next one of a noisy camera, however often that one comes.
        """
        if not self._waiting:
            return None
        camera = min(self._waiting, key=lambda camera: self._served.get(camera, 0))
        self._turn += 1
        self._served[camera] = self._turn
        self._served.move_to_end(camera)
        while len(self._served) > CAMERAS_REMEMBERED:
            self._served.popitem(last=False)
        return self._remove_first(camera, self._waiting[camera])

    def renew(self, frame: RawFrame) -> bool:
        """Give the ticket of ``frame`` to its first delivery, in an earlier connection; False where that does not wait.

        So a frame that the broker delivers again is judged once, and one that a killed broker has forgotten is judged
        all the same.
        """
        waiting = self._waiting.get(frame.camera)
        return waiting is not None and renew(waiting, frame)

    @property
    def oldest_s(self) -> float | None:
        """Monotonic receive time of the frame that has waited longest, or None."""
        return min((queue[0].received_s for queue in self._waiting.values()), default=None)

    def _put_latest(self, frame: RawFrame) -> list[RawFrame]:
        dropped: list[RawFrame] = []
        queue = self._waiting.get(frame.camera)
        if queue:
            old = queue[-1]
            self.bytes += len(frame.payload) - len(old.payload)
            queue[-1] = replace(frame, dropped_before=frame.dropped_before + old.dropped_before + 1)
            dropped.append(old)
        else:
            self._append(frame)
        while self._frames > self.max_frames or self.bytes > self.max_bytes:
            victim = next(camera for camera in self._waiting if camera != frame.camera)
            dropped.append(self._remove_first(victim, self._waiting[victim]))
        return dropped

    def _append(self, frame: RawFrame) -> None:
        self._waiting.setdefault(frame.camera, deque()).append(frame)
        self._frames += 1
        self.bytes += len(frame.payload)

    def _remove_first(self, camera: str, queue: deque[RawFrame]) -> RawFrame:
        frame = queue.popleft()
        self._frames -= 1
        self.bytes -= len(frame.payload)
        if not queue:
            del self._waiting[camera]
        return frame
