"""The systemd unit: systemd's own check, and the promises that it makes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.errors import EXIT_CONFIG, EXIT_USAGE

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "parrotgate.service"


def settings() -> set[str]:
    return {line for line in UNIT.read_text().splitlines() if line and line[0] not in "#["}


def verify(unit: Path, folder: Path) -> str:
    """What systemd complains of; keys that only newer releases know are no complaint."""
    copy = folder / unit.name
    copy.write_text(unit.read_text().replace("/opt/parrotgate/bin/edge", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    newer = ("'RestartSteps'", "'RestartMaxDelaySec'")
    return "\n".join(line for line in done.stderr.splitlines() if not any(key in line for key in newer))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_in_the_unit_and_something_in_a_broken_one(tmp_path: Path) -> None:
    assert verify(UNIT, tmp_path) == ""
    broken = tmp_path / "broken.service"
    broken.write_text(UNIT.read_text().replace("Restart=on-failure", "Restart=sometimes"))
    assert "sometimes" in verify(broken, tmp_path.parent)


def test_bad_configuration_is_not_tried_again_and_all_else_backs_off() -> None:
    assert {"Restart=on-failure", "RestartSec=5", "RestartSteps=8", "RestartMaxDelaySec=60"} <= settings()
    assert f"RestartPreventExitStatus={EXIT_CONFIG} {EXIT_USAGE}" in settings()


def test_worker_is_watched_by_signs_of_life() -> None:
    assert {"Type=notify", "WatchdogSec=30"} <= settings()


def test_worker_has_no_right_that_it_does_not_need() -> None:
    locked = {"DynamicUser=yes", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "UMask=0077"}
    assert locked <= settings()


def test_no_password_stands_in_the_unit() -> None:
    environment = " ".join(line for line in settings() if line.startswith("Environment="))
    assert "PASSWORD_FILE=/run/credentials/" in environment
    assert "PASSWORD=" not in environment


def test_pictures_are_decoded_in_child_processes() -> None:
    assert "Environment=EDGE_DECODE__MODE=isolated" in settings()


def filtered() -> set[str]:
    """The system calls that the unit's filter lets pass, by systemd's own groups."""
    done = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, timeout=60, check=True)
    groups: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            groups[line.strip()] = []
        elif line.startswith("    ") and groups and "#" not in line:
            groups[list(groups)[-1]].append(line.strip())

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for member in groups[name] for call in calls(member)}

    assert {"SystemCallFilter=@system-service", "SystemCallFilter=~@privileged"} <= settings()
    return calls("@system-service") - calls("@privileged")


DECODING = """
import cv2, hashlib, numpy as np, sys
from edge.isolated import IsolatedOpener
from edge.picture import PictureOpener
from edge.poison import PoisonJournal
from engines import ImageLimits, InputSpec
opener = PictureOpener(InputSpec(layout="NCHW", height=32, width=32), (32, 32), ImageLimits(max_pixels=10_000_000))
children = IsolatedOpener(opener, 1 << 20, 1, PoisonJournal())
picture = cv2.imencode(".png", np.zeros((2500, 2500, 3), np.uint8))[1].tobytes()
children(picture, hashlib.sha256(picture).hexdigest())
children.close()
"""


@pytest.mark.skipif(
    not all(map(shutil.which, ("strace", "systemd-analyze"))), reason="strace or systemd-analyze is not installed"
)
def test_system_calls_of_decoder_processes_pass_the_filter_of_the_unit(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    command = ["strace", "-f", "-qq", "-e", "signal=none", "-o", str(log), sys.executable, "-c", DECODING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=UNIT.parents[1])
    assert done.returncode == 0, done.stderr
    used = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)", log.read_text(), re.M))
    assert {"memfd_create", "prctl", "prlimit64", "alarm", "madvise"} <= used, "the log is not what it should be"
    assert used <= filtered()
