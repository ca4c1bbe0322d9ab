"""``edge check``: everything a worker needs, tried in the order in which it needs it, each fault with its sentence."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge.config import Config
from edge.config_file import load_config
from edge.errors import LinkError, LinkRefused
from edge.link import Link
from edge.link_handler import LinkSettings, Message, QuietHandler
from edge.parts import Parts, link_settings, load_parts
from edge.plan_build import ROLES, planned
from edge.plan_probe import PlanCrashError, plans_of, probe
from edge.spool_lock import is_taken, taken
from edge.wire import Topics
from engines import ModelError, ParrotgateError, load_spec
from engines.errors import EXIT_CONFIG, EXIT_OK, EXIT_TRANSIENT
from engines.spec import manifest_sha256

BROKER_TIMEOUT_S = 10.0
CANARY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one stage; ``exit_code`` is 0 when it went well, ``warning`` marks what can be lived with."""

    stage: str
    sentence: str
    exit_code: int = EXIT_OK
    warning: bool = False


def check(path: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Try everything that the configuration at ``path`` asks for; later stages are tried even when one fails."""
    try:
        config = load_config(path, environ)
    except ParrotgateError as error:
        yield Finding("config", str(error), error.exit_code)
        return
    yield Finding("config", f"{path}: worker {config.worker}")
    yield from _check_spool(config)
    yield from _check_artifacts(config)
    yield from _check_broker(config)


def pins(config: Config) -> dict[str, str]:
    """The SHA-256 of every artifact that ``config`` names, by configuration key."""
    with closing(load_parts(config)) as parts:
        gate = parts.gate.sha256 or ""
    found = {"features.sha256": load_spec(config.features.model).sha256, "gate.sha256": gate}
    found["features.manifest_sha256"] = manifest_sha256(config.features.model)
    if config.species is not None:
        found["species.sha256"] = load_spec(config.species.model).sha256
        found["species.manifest_sha256"] = manifest_sha256(config.species.model)
    return found


def _check_spool(config: Config) -> Iterator[Finding]:
    folder = config.spool.folder
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        yield Finding("spool", f"{folder} cannot be made ({error.strerror}); mend spool.folder", EXIT_CONFIG)
        return
    if not os.access(folder, os.W_OK):
        yield Finding("spool", f"{folder} cannot be written by this user; mend its rights", EXIT_CONFIG)
    elif is_taken(folder / config.worker):
        sentence = f"{taken(folder / config.worker)}. All is well if that is the worker on this box"
        yield Finding("spool", sentence, warning=True)
    else:
        yield Finding("spool", f"{folder}: at most {config.spool.max_mib} MiB")


def _check_artifacts(config: Config) -> Iterator[Finding]:
    for finding in (*_check_builds(config), *(_try_plan(plan, is_named=named) for plan, named in plans_of(config))):
        yield finding
        if finding.exit_code:
            return
    began = time.monotonic()
    try:
        with closing(load_parts(config)) as parts:
            loaded = time.monotonic()
            parts.warm_up(config.batch.max)
            warm = time.monotonic()
            found = list(_describe(parts))
    except ParrotgateError as error:
        yield Finding("models", str(error), error.exit_code or EXIT_CONFIG)
        return
    yield from found
    sentence = f"loaded in {loaded - began:.1f} s, warm after another {warm - loaded:.1f} s"
    yield Finding("self-test", f"gate answers its golden vectors; engines {sentence}")


def _check_builds(config: Config) -> Iterator[Finding]:
    """What would be built for this box, and whether what was built loads."""
    for role in ROLES:
        try:
            build = planned(config, role)
        except ParrotgateError as error:
            yield Finding("build", str(error), error.exit_code or EXIT_CONFIG)
            return
        if build is not None and build.plan is None:
            sentence = f"edge run builds a plan first, which takes minutes: {build}; what follows runs without it"
            yield Finding("build", sentence, warning=True)
        elif build is not None and build.plan is not None:
            yield _try_plan(build.plan, is_named=True)


def _try_plan(plan: Path, *, is_named: bool) -> Finding:
    try:
        probe(plan)
    except PlanCrashError as error:
        return Finding("plan", str(error), error.exit_code)
    except ModelError as error:
        return Finding("plan", str(error), error.exit_code if is_named else EXIT_OK, warning=True)
    return Finding("plan", f"{plan} loads in a child process")


def _describe(parts: Parts) -> Iterator[Finding]:
    for role, facts in parts.describe().items():
        name = parts.gate.manifest.name if role == "gate" else facts["name"]
        engine = f"; {facts['engine']}" if "engine" in facts else ""
        yield Finding(role, f"{name} on {facts['device']}, sha256 {facts['sha256'][:16]}…{engine}")


def _check_broker(config: Config) -> Iterator[Finding]:
    mqtt = config.mqtt
    where = f"{mqtt.host}:{mqtt.port}"
    try:
        addresses = socket.getaddrinfo(mqtt.host, mqtt.port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        yield Finding("name", f"{mqtt.host} does not resolve ({exc.strerror}); mend mqtt.url or DNS", EXIT_TRANSIENT)
        return
    yield Finding("name", f"{mqtt.host} is {addresses[0][4][0]}")
    try:
        socket.create_connection((mqtt.host, mqtt.port), timeout=5.0).close()
    except OSError as exc:
        sentence = f"{where} does not answer ({exc.strerror or exc}): is the broker running, is the port right?"
        yield Finding("tcp", sentence, EXIT_TRANSIENT)
        return
    yield Finding("tcp", f"{where} answers")
    try:
        settings = link_settings(config, client_id=f"{config.client_id}-check-{os.getpid()}")
        topics = Topics(mqtt.prefix, f"{config.worker}-check")
        yield from _Probe(settings, topics, Topics(mqtt.prefix, config.worker).status, config.client_id).run()
    except ParrotgateError as error:
        yield Finding("login", str(error), error.exit_code)


class _Probe(QuietHandler):
    """A ``LinkHandler`` that logs in, subscribes, sends a test frame to itself, and leaves.

    ``status`` is where the worker proper, under ``client_id``, says whether it is there.
    """

    def __init__(self, settings: LinkSettings, topics: Topics, status: str, client_id: str) -> None:
        self._topics, self._status, self._client_id = topics, status, client_id
        self._link = Link(settings, self, (topics.frames, topics.canary, status))
        self._told_status = b""
        self._deadline = time.monotonic() + BROKER_TIMEOUT_S
        self._up = False
        self._down: str | None = None
        self._refused: list[str] | None = None
        self._canary_mid: int | None = None
        self._canary_failure: str | None = None
        self._seen = False

    def run(self) -> Iterator[Finding]:
        try:
            self._link.run()
        except LinkRefused as error:
            yield Finding("login", str(error), error.exit_code)
            return
        if not self._up:
            yield Finding("login", self._down or "the broker did not answer in time", LinkError.exit_code)
            return
        yield Finding("login", "accepted")
        if self._told_status == b"online":
            sentence = (
                f"{self._client_id} is connected now. Unless that is the worker on this box, give one of the two "
                "another name (worker, mqtt.client_id): they would take the connection from each other for ever"
            )
            yield Finding("client id", sentence)
        yield from self._subscription()

    def _subscription(self) -> Iterator[Finding]:
        if self._refused is None:
            yield Finding("subscribe", self._down or "the broker did not answer the subscription", EXIT_TRANSIENT)
        elif self._refused:
            sentence = f"denied: {'; '.join(self._refused)}; give this worker read access in the broker's access list"
            yield Finding("subscribe", sentence, EXIT_CONFIG)
        else:
            yield Finding("subscribe", f"granted: {self._topics.frames}")
            yield self._canary()

    def _canary(self) -> Finding:
        if self._seen:
            return Finding("test frame", "sent and received: frames will arrive")
        if self._canary_failure is not None:
            sentence = f"the broker refuses our own test frame ({self._canary_failure}); frames may arrive all the same"
            return Finding("test frame", sentence, warning=True)
        sentence = (
            f"sent but not delivered within {CANARY_TIMEOUT_S:g} s: the broker grants the subscription and keeps the "
            f"messages; give this worker read access to {self._topics.frames} in its access list"
        )
        return Finding("test frame", sentence, EXIT_CONFIG)

    def link_up(self, session_present: bool, window: int, max_packet: int | None) -> None:
        del session_present, window, max_packet
        self._up = True

    def link_subscribed(self, refused: list[str]) -> None:
        self._refused = refused = [sentence for sentence in refused if not sentence.startswith(f"{self._status}: ")]
        if refused:
            self._link.stop()
            return
        self._deadline = time.monotonic() + CANARY_TIMEOUT_S
        self._canary_mid = self._link.publish(self._topics.canary, b"canary")

    def link_down(self, reason: str) -> None:
        self._down = reason
        self._link.stop()

    def link_message(self, message: Message) -> None:
        if message.topic == self._status:
            self._told_status = message.payload
        elif message.topic == self._topics.canary:
            self._seen = True
            self._link.stop()

    def link_confirmed(self, mid: int, failure: str | None) -> None:
        if mid == self._canary_mid and failure is not None:
            self._canary_failure = failure
            self._link.stop()

    def link_turn(self) -> float | None:
        if time.monotonic() > self._deadline:
            self._link.stop()
        return None
