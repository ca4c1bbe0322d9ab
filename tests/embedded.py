"""The demo's broker (amqtt, MQTT 3.1.1) in a thread of the test process, for machines without mosquitto."""

from __future__ import annotations

import asyncio
import threading

from edge.demo.broker import EmbeddedBroker

START_S = 10.0


class Embedded:
    """A running broker at ``url``; it speaks MQTT 3.1.1 only, which ``version`` says."""

    version = "3.1.1"

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def start(self) -> None:
        """Start and wait until connections are accepted."""
        self._thread.start()
        if not self._ready.wait(START_S):
            raise RuntimeError("the embedded broker did not start")

    def stop(self) -> None:
        """End the broker and its thread."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(START_S)

    async def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        async with EmbeddedBroker() as broker:
            self.url, self.port = broker.url, broker.port
            self._ready.set()
            await self._ended.wait()
