"""The systemd unit: systemd's own check, and the promises that it makes."""

from __future__ import annotations

import shutil
import subprocess
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
    (environment,) = [line for line in settings() if line.startswith("Environment=")]
    assert "PASSWORD_FILE=/run/credentials/" in environment
    assert "PASSWORD=" not in environment
