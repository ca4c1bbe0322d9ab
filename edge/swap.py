"""Another configuration for a worker that runs: loaded aside, tried, and taken between two batches or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge.config import Config
from edge.errors import ConfigError
from edge.parts import Parts, load_parts

# What the connection, the memory bounds and the page are built from; only a new process can change it.
NEEDS_RESTART = ("worker", "mqtt", "mailbox", "decode", "status", "spool", "watchdog")


@dataclass(frozen=True, slots=True)
class Successor:
    """A configuration and its parts: loaded, self-tested and warm."""

    config: Config
    parts: Parts


def load_successor(current: Config, read: Callable[[], Config]) -> Successor:
    """Read the configuration anew and load what it names beside what runs; needs the memory of both for a while.

    Raises:
        ConfigError: it has faults, or changes what only a restart can change.
        ModelError, GateError, EngineRunError: an artifact cannot be used.
    """
    config = read()
    changed = [key for key in NEEDS_RESTART if getattr(config, key) != getattr(current, key)]
    if changed:
        raise ConfigError(f"worker {current.worker}", [f"{key}: a change needs a restart" for key in changed])
    parts = load_parts(config)
    try:
        parts.warm_up(config.batch.max)
    except BaseException:
        parts.close()
        raise
    return Successor(config, parts)
