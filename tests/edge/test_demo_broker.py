"""The demo's own broker ends, whatever its clients do."""

from __future__ import annotations

import asyncio
import time

from edge.demo.broker import EmbeddedBroker


async def _leave_connected() -> float:
    """Seconds that leaving takes while a client stays connected."""
    async with EmbeddedBroker() as broker:
        _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        await asyncio.sleep(0.1)
        began = time.monotonic()
    took = time.monotonic() - began
    writer.close()
    return took


def test_broker_ends_although_a_client_stays_connected() -> None:
    # Python 3.12 and later wait for it, for good; the demo hung at its end.
    assert asyncio.run(asyncio.wait_for(_leave_connected(), 20)) < 5
