"""The commands on a machine that has only some of the extras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("library", "entry", "arguments", "extra"),
    [
        ("amqtt", "edge.__main__", ["demo"], "demo"),
        ("sklearn", "calibrate.command", ["--help"], "calibrate"),
    ],
)
def test_command_without_its_library_names_the_extra(
    library: str, entry: str, arguments: list[str], extra: str
) -> None:
    script = f"import sys; sys.modules[{library!r}] = None; from {entry} import main; main()"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert f"install parrotgate[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr
