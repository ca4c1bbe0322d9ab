"""What arrivals alone make of frames' ages: the real mailbox before an engine that loses no time (row 12)."""

from __future__ import annotations

from edge.mailbox import Mailbox
from edge.records import RawFrame, Ticket

QOS_0 = Ticket(0, 0, 0, 0)


def ages(frames: list[tuple[float, str]], service_s: float) -> list[float]:
    """Seconds from arrival to judgement of those of ``frames`` (second, camera) that are judged.

    As in a worker with batches of one, the next frame leaves the mailbox as soon as the engine takes the one before it,
    and waits there decoded.
    """
    mailbox = Mailbox("latest", 1000, 1 << 20)
    judged: list[float] = []
    ahead: RawFrame | None = None
    free_s = 0.0
    for due_s, camera in [*frames, (float("inf"), "")]:
        while ahead is not None and free_s <= due_s:
            free_s = max(free_s, ahead.received_s) + service_s
            judged.append(free_s - ahead.received_s)
            ahead = mailbox.take()
        if camera:
            mailbox.put(RawFrame(camera, b"x", QOS_0, due_s))
        if ahead is None:
            ahead = mailbox.take()
    return judged
