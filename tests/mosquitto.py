"""A real mosquitto on a free loopback port, in a folder of its own, that a test may stop, kill and start again."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

START_S = 10.0
CLIENTS = all(shutil.which(name) for name in ("mosquitto_pub", "mosquitto_sub"))
MOSQUITTO = (
    shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") if CLIENTS else None
)


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One mosquitto process. ``lines`` follow the listener's own; ``environment`` is added to ours.

    Persistence is on and saved after each change; ``kill`` can still lose what was acknowledged milliseconds before.
    """

    version = 5

    def __init__(self, folder: Path, lines: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.lines = list(lines)
        self.environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address as ``mqtt.url`` wants it."""
        tls = any(line.startswith("certfile ") for line in self.lines)
        return f"mqtts://localhost:{self.port}" if tls else f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running broker's process number."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def log(self) -> str:
        """What the broker has written so far."""
        path = self.folder / "mosquitto.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start and wait until connections are accepted."""
        assert MOSQUITTO is not None, "mosquitto is not installed"
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(self._configuration()) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        deadline = time.monotonic() + START_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"mosquitto did not start on port {self.port}:\n{self.log()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end, and wait; nothing happens when it is not running."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
            self._process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)
            self._process = None

    def restart(self) -> None:
        """Stop and start on the same port with what was persisted."""
        self.stop()
        self.start()

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _configuration(self) -> list[str]:
        given = {line.split()[0] for line in self.lines if line.strip()}
        defaults = {
            "allow_anonymous": "true",
            "persistence": "true",
            "persistence_location": f"{self.folder}/",
            "autosave_interval": "1",
            "autosave_on_changes": "true",
            "max_queued_messages": "100000",
            "log_dest": "stderr",
        }
        if os.geteuid() == 0:
            defaults["user"] = "root"  # else it drops to its own user, which cannot write our folder
        own = [f"{key} {value}" for key, value in defaults.items() if key not in given]
        return [f"listener {self.port} 127.0.0.1", *own, *self.lines]


def password_lines(folder: Path, users: dict[str, str]) -> list[str]:
    """Configuration lines that let in only ``users`` (name to password)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "passwords"
    path.write_text("".join(f"{name}:{_hashed(password)}\n" for name, password in users.items()))
    path.chmod(0o600)
    return ["allow_anonymous false", f"password_file {path}"]


def _hashed(password: str) -> str:
    """As mosquitto_passwd writes it, which wants to write into /tmp itself: PBKDF2 with SHA-512."""
    salt, rounds = os.urandom(12), 101
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"
