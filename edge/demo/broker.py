"""A broker inside the process, for the demo and for machines without mosquitto: amqtt, MQTT 3.1.1, loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from types import TracebackType

from amqtt.broker import Broker
from amqtt.errors import AMQTTError

from edge.errors import LinkError


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# From Python 3.12 on asyncio's servers wait for their connections, and amqtt leaves some open for good.
SHUTDOWN_S = 2.0


class EmbeddedBroker:
    """``async with EmbeddedBroker() as broker``: a broker at ``broker.url``, gone afterwards."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        logging.getLogger("amqtt").setLevel(logging.ERROR)
        logging.getLogger("transitions").setLevel(logging.ERROR)
        self._broker = Broker(_settings(self.port), loop=asyncio.get_event_loop())

    async def __aenter__(self) -> EmbeddedBroker:
        try:
            await self._broker.start()
        except AMQTTError as exc:
            raise LinkError(f"the embedded broker does not start on port {self.port}: {exc}") from exc
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._broker.shutdown(), SHUTDOWN_S)


def _settings(port: int) -> dict[str, object]:
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 200}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
