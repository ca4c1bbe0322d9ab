"""A real mosquitto with the configuration that ``deploy`` ships: only listener, paths and, as root, the user differ."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.mosquitto import Broker

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
PASSWORDS = {"worker": "w-secret", "viewer": "v-secret", "feeder": "f-secret", "garden": "g-secret"}
_PLACES = ("listener", "persistence_location", "password_file", "acl_file")


def settings(text: str) -> list[tuple[str, str]]:
    """The keys of a mosquitto configuration with their values, in order, without those that name a place."""
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(key, rest[0] if rest else "") for key, *rest in pairs if key not in (*_PLACES, "user")]


class ShippedBroker(Broker):
    """``deploy/mosquitto.conf`` on a free loopback port, with the users of ``PASSWORDS``."""

    def _configuration(self) -> list[str]:
        passwords, rights = self.folder / "passwords", self.folder / "mosquitto.acl"
        if not passwords.exists():
            passwords.write_text("".join(f"{name}:{password}\n" for name, password in PASSWORDS.items()))
            subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, timeout=30)
            rights.write_bytes((DEPLOY / "mosquitto.acl").read_bytes())
        passwords.chmod(0o600)
        rights.chmod(0o600)
        text = (DEPLOY / "mosquitto.conf").read_text()
        for pattern, place in (
            (r"listener 1883", f"listener {self.port} 127.0.0.1"),
            (r"persistence_location \S+", f"persistence_location {self.folder}/"),
            (r"password_file \S+", f"password_file {passwords}"),
            (r"acl_file \S+", f"acl_file {rights}"),
        ):
            text, found = re.subn(rf"^{pattern}$", place, text, flags=re.M)
            assert found, f"deploy/mosquitto.conf has no line {pattern}"
        # Started as root it would drop to a user of its own, which cannot write this folder.
        return [*text.splitlines(), *(["user root"] if os.geteuid() == 0 else [])]
