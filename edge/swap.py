"""Another configuration for a worker that runs: loaded aside, tried, and taken between two batches or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.config import Config
from edge.errors import ConfigError
from edge.parts import Parts, load_parts
from edge.plan_build import ROLES, planned
from edge.plan_probe import PlanCrashError, plans_of, probe
from edge.poison import PoisonJournal
from engines import ModelError

# What the connection, the memory bounds and the page are built from; only a new process can change it.
NEEDS_RESTART = ("worker", "mqtt", "mailbox", "decode", "status", "spool", "watchdog")


@dataclass(frozen=True, slots=True)
class Successor:
    """A configuration and its parts: loaded, self-tested and warm."""

    config: Config
    parts: Parts


def load_successor(current: Config, read: Callable[[], Config], journal: PoisonJournal | None) -> Successor:
    """Read the configuration anew and load what it names beside what runs; needs the memory of both for a while.

    Plans are tried in a child process first. ``journal`` is that of the decoders which run.

    Raises:
        ConfigError: it has faults, or changes what only a restart can change.
        ModelError, GateError, EngineRunError: an artifact cannot be used.
    """
    config = read()
    changed = [key for key in NEEDS_RESTART if getattr(config, key) != getattr(current, key)]
    if changed:
        raise ConfigError(f"worker {current.worker}", [f"{key}: a change needs a restart" for key in changed])
    _try_plans(config)
    parts = load_parts(config, journal=journal)
    try:
        parts.warm_up(config.batch.max)
    except BaseException:
        parts.close()
        raise
    return Successor(config, parts)


def _try_plans(config: Config) -> None:
    wanted = {role: planned(config, role) for role in ROLES}
    missing = [
        f"{role}.build: this box has no plan yet of {one}; a restart builds it"
        for role, one in wanted.items()
        if one is not None and one.plan is None
    ]
    if missing:
        raise ConfigError(f"worker {config.worker}", missing)
    for plan, is_named in plans_of(config):
        _try_plan(plan, is_named)
    for one in wanted.values():
        if one is not None and one.plan is not None:
            probe(one.plan)


def _try_plan(plan: Path, is_named: bool) -> None:
    try:
        probe(plan)
    except ModelError as error:
        if is_named or isinstance(error, PlanCrashError):
            raise
