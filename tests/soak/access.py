"""Row 33: what certificates and access lists forbid, each with its sentence in ``edge check``, log and ``/readyz``."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from edge.check import check
from edge.link_handler import LinkSettings
from engines.errors import EXIT_CONFIG, EXIT_OK, EXIT_TRANSIENT
from tests.authority import Authority, Certificate
from tests.edge.worker_process import Camera, client, demo_config
from tests.mosquitto import Broker, password_lines
from tests.soak.fleet import Forked, Zygote
from tests.soak.ledger import Effort, Outcome

WITHIN_S = 10.0
EXPIRED, TO_COME = (-48.0, -24.0), (24.0, 48.0)
ONLY_TLS_1_1 = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = old
[old]
MinProtocol = TLSv1.1
MaxProtocol = TLSv1.1
CipherString = DEFAULT@SECLEVEL=0
"""


@dataclass
class Stage:
    """Where a case is set up: the broker's lines and environment, and the worker's ``mqtt`` section."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    mqtt: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    host: str | None = None

    def __post_init__(self) -> None:
        self.authority, self.stranger = Authority(self.folder / "ours"), Authority(self.folder / "strange")

    def secure(
        self, server: Certificate | None = None, own: Certificate | None = None, *, mutual: bool = False
    ) -> None:
        """A broker with TLS; ``mutual``: it wants a certificate of the worker, which has ``own``."""
        server = server or self.authority.issue("broker")
        self.lines += [f"cafile {self.authority.ca_file}", f"certfile {server.cert}", f"keyfile {server.key}"]
        self.lines += ["require_certificate true"] if mutual else []
        self.mqtt["ca_file"] = str(self.authority.ca_file)
        if own is not None:
            self.mqtt |= {"cert_file": str(own.cert), "key_file": str(own.key)}

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path


@dataclass(frozen=True)
class Case:
    """What is wrong (``arrange``), the words that ``edge check`` and the worker must say, and how they end.

    ``stage`` is the finding of ``edge check`` and ``code`` its exit code; ``ends`` is the worker's, None for one that
    stays and tries again; ``ready`` what ``/readyz`` answers then. ``frames``: a camera must send some.
    """

    name: str
    arrange: Callable[[Stage], None]
    said: str
    code: int
    stage: str = "login"
    told: str = ""
    ends: int | None = None
    ready: bool = False
    frames: bool = False
    rival: bool = False

    @property
    def told_by_worker(self) -> str:
        return self.told or self.said


def _strange_broker(stage: Stage) -> None:
    stage.secure()
    stage.mqtt["ca_file"] = str(stage.stranger.ca_file)


def _revoked(stage: Stage) -> None:
    own = stage.authority.issue("orin-07")
    stage.secure(own=own, mutual=True)
    stage.lines.append(f"crlfile {stage.authority.revoke(own)}")


def _only_tls_1_1(stage: Stage) -> None:
    stage.secure()
    stage.lines.append("tls_version tlsv1.1")
    stage.environment["OPENSSL_CONF"] = str(stage.write("openssl.cnf", ONLY_TLS_1_1))


def _plain_to_tls(stage: Stage) -> None:
    stage.secure()
    stage.mqtt = {"url": "mqtt://127.0.0.1:{port}"}


def _wrong_password(stage: Stage) -> None:
    stage.lines += password_lines(stage.folder / "users", {"orin": "secret"})
    stage.mqtt |= {"username": "orin", "password_file": str(stage.write("password", "wrong"))}


def _access(*rights: str) -> Callable[[Stage], None]:
    def arrange(stage: Stage) -> None:
        stage.lines.append(f"acl_file {stage.write('acl', ''.join(f'{right}{chr(10)}' for right in rights))}")

    return arrange


CASES = [
    Case("broker of a strange authority", _strange_broker, "mqtt.ca_file should hold", EXIT_CONFIG, ends=EXIT_CONFIG),
    Case(
        "broker's certificate for another host",
        lambda stage: stage.secure(stage.authority.issue("broker", "elsewhere.example")),
        "mqtt.url should name the host",
        EXIT_CONFIG,
        ends=EXIT_CONFIG,
    ),
    Case(
        "broker's certificate expired",
        lambda stage: stage.secure(stage.authority.issue("broker", hours=EXPIRED)),
        "certificate has expired; renew it at the broker",
        EXIT_TRANSIENT,
    ),
    Case(
        "broker's certificate to come, or this clock behind",
        lambda stage: stage.secure(stage.authority.issue("broker", hours=TO_COME)),
        "not yet valid; renew it at the broker, unless this box's clock is wrong",
        EXIT_TRANSIENT,
    ),
    Case(
        "no certificate of ours",
        lambda stage: stage.secure(mutual=True),
        "wants a client certificate: set mqtt.cert_file",
        EXIT_CONFIG,
        ends=EXIT_CONFIG,
    ),
    Case(
        "our certificate by a strange authority",
        lambda stage: stage.secure(own=stage.stranger.issue("orin-07"), mutual=True),
        "does not know who signed our certificate",
        EXIT_CONFIG,
        ends=EXIT_CONFIG,
    ),
    Case(
        "our certificate expired",
        lambda stage: stage.secure(own=stage.authority.issue("orin-07", hours=EXPIRED), mutual=True),
        "has expired: renew it",
        EXIT_CONFIG,
        ends=EXIT_CONFIG,
    ),
    Case(
        "our certificate to come, or the broker's clock behind",
        lambda stage: stage.secure(own=stage.authority.issue("orin-07", hours=TO_COME), mutual=True),
        "is it valid yet by the broker's clock",
        EXIT_TRANSIENT,
    ),
    Case("our certificate revoked", _revoked, "is revoked: have a new one issued", EXIT_CONFIG, ends=EXIT_CONFIG),
    Case("TLS 1.1", _only_tls_1_1, "offers no TLS 1.2 or later", EXIT_TRANSIENT),
    Case("plain connection to a TLS port", _plain_to_tls, "does it want TLS (mqtts://)?", EXIT_TRANSIENT),
    Case(
        "TLS connection to a plain port",
        lambda stage: stage.mqtt.update(url="mqtts://localhost:{port}"),
        "is it a port without TLS (mqtt://)?",
        EXIT_TRANSIENT,
    ),
    Case("wrong password", _wrong_password, "user orin): mend mqtt.username", EXIT_CONFIG, ends=EXIT_CONFIG),
    Case(
        "no user where one is wanted",
        lambda stage: stage.lines.extend(password_lines(stage.folder / "users", {"orin": "secret"})),
        "user none): mend mqtt.username",
        EXIT_CONFIG,
        ends=EXIT_CONFIG,
    ),
    Case(
        "reading denied",
        _access("topic write cameras/#", "topic readwrite edge/#"),
        "give this worker read access",
        EXIT_CONFIG,
        stage="test frame",
        told="does its access list let us read cameras/+/frame?",
    ),
    Case(
        "writing denied",
        _access("topic read cameras/#", "topic readwrite edge/#", "user cam", "topic readwrite cameras/#"),
        "the broker refuses our own test frame (Not authorized)",
        EXIT_OK,
        stage="test frame",
        told="the broker refuses our verdicts (Not authorized): give this worker write access",
        frames=True,
    ),
    Case(
        "client id used twice",
        lambda stage: None,
        "box is connected now. Unless that is the worker on this box",
        EXIT_OK,
        stage="client id",
        told="does another client use our client id box?",
        ready=True,
        rival=True,
    ),
]


class Scene(ExitStack):
    """One case: its broker, its worker, and where there must be one, a rival or a camera."""

    def __init__(self, zygote: Zygote, folder: Path, case: Case) -> None:
        super().__init__()
        self.case, self._zygote, self._folder = case, zygote, folder
        stage = Stage(folder)
        case.arrange(stage)
        self._broker = Broker(folder / "broker", stage.lines, stage.environment)
        self._broker.start()
        self.callback(self._broker.kill)
        given = {"url": self._broker.url, **stage.mqtt}
        given["url"] = given["url"].replace("{port}", str(self._broker.port))
        self._config = demo_config(self._broker.url, worker="box", mqtt=given, mailbox={"policy": "every"})
        self.worker = self._worker("first")

    def _worker(self, name: str) -> Forked:
        worker = Forked(self._zygote, self._folder / name, self._config)
        self.callback(worker.kill)
        return worker

    def check(self) -> str:
        """What ``edge check`` says, in a worker's presence if the case is about that; else a fault."""
        if self.case.rival:
            self.worker.start()
            self.worker.wait_connected()
        path = self._folder / "edge.yaml"
        path.write_text(yaml.safe_dump(self._config))
        findings = {finding.stage: finding for finding in check(path, {})}
        found = findings.get(self.case.stage)
        if found is None or self.case.said not in found.sentence or found.exit_code != self.case.code:
            return f"{self.case.name}: edge check says {found}"
        return ""

    def listen(self) -> tuple[str, float]:
        """Start the worker and wait for its sentence: a fault or nothing, and after how many seconds it came."""
        began = time.monotonic()
        if self.case.rival:
            self._worker("second").start()
        else:
            self.worker.start()
        if self.case.frames:
            settings: LinkSettings = replace(client(self._broker, "cam"), username="cam", password="-")
            self.enter_context(Camera(settings, "a", 5))
        while (missing := self._missing()) and time.monotonic() < began + WITHIN_S:
            time.sleep(0.05)
        return (f"{self.case.name}: {missing}" if missing else ""), time.monotonic() - began

    def _missing(self) -> str:
        log = self.worker.log()
        if self.case.told_by_worker not in log:
            return f"the log does not say {self.case.told_by_worker!r}: {log[-600:]}"
        if self.case.ends is not None:
            return "the worker stays" if self.worker.is_running() else self._ended()
        status, sentence = readyz(log)
        if self.case.told_by_worker not in sentence:
            return f"/readyz says {status} {sentence}"
        return "" if self.case.ready or status == 503 else f"/readyz says {status}"

    def _ended(self) -> str:
        code = self.worker.wait()
        return "" if code == self.case.ends else f"exit code {code} instead of {self.case.ends}"


def readyz(log: str) -> tuple[int, str]:
    """What the status page answers whose address stands in ``log``."""
    page = log.rpartition("status page url=")[2].split()
    try:
        with urllib.request.urlopen(page[0].rstrip("/") + "/readyz", timeout=5) as answer:  # noqa: S310 - our own page
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, IndexError) as error:
        return 0, str(error)


def access(effort: Effort) -> Outcome:
    """Every case, checked and run."""
    outcome = Outcome()
    with Zygote() as zygote:
        for case in CASES:
            if not effort.goes_on(outcome.done):
                break
            one(outcome, zygote, effort.folder / str(outcome.done), case)
            outcome.done += 1
    return outcome


def one(outcome: Outcome, zygote: Zygote, folder: Path, case: Case) -> None:
    """One case into ``outcome``."""
    with Scene(zygote, folder, case) as scene:
        fault = scene.check()
        outcome.add("told by edge check", not fault)
        outcome.demand(not fault, fault)
        fault, seconds = scene.listen()
        outcome.add("told by the worker", not fault)
        outcome.demand(not fault, fault)
        outcome.see("slowest s", round(seconds, 1))


def access_control(effort: Effort) -> str:
    """Where nothing is wrong, none of the sentences may be told."""
    with (
        Zygote() as zygote,
        Scene(zygote, effort.folder, Case("nothing", lambda stage: stage.secure(), "…", 0)) as scene,
    ):
        fault, _ = scene.listen()
        assert fault, "a sentence without a cause"
        log = scene.worker.log()
        told = [case.name for case in CASES if case.told_by_worker in log + readyz(log)[1]]
        assert not told, f"told without a cause: {told}"
        assert readyz(log)[0] == 200, f"not ready although nothing is wrong: {log[-600:]}"
    return f"where nothing is wrong the worker is ready, and 0 of {len(CASES)} sentences are told"
