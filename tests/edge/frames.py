"""Frames and tickets for the tests of the box."""

from __future__ import annotations

from edge.records import RawFrame, Ticket

serials = iter(range(1, 1_000_000_000))


def raw_frame(
    camera: str = "feeder", payload: bytes = b"x", *, epoch: int = 1, qos: int = 1, at: float = 0.0
) -> RawFrame:
    """A raw frame with a ticket of its own."""
    serial = next(serials)
    return RawFrame(camera, payload, Ticket(epoch, serial, serial % 65_535 + 1, qos), at)
