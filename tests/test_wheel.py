"""The built wheel: complete, without tests, and deaf to folders of the same names where it is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("engines", "edge", "calibrate", "deploy")
LEFT_BEHIND = shutil.ignore_patterns(
    "__pycache__", "*.egg-info", "*.plan", "secrets", "site"
)  # the last two: compose's


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built from a copy so that nothing is left beside the sources."""
    copy, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=LEFT_BEHIND)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("parrotgate-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the wheel's packages."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(installed: Path, cwd: Path, *command: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_every_file_of_the_rooms_and_no_tests(wheel: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    sources = {path for path in files if not re.search(r"__pycache__|\.egg-info|^deploy/(secrets|site)/", path)}
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert not sources - inside
    assert not {name for name in inside if name.startswith("tests/")}


def test_wheel_runs_beside_a_folder_called_engines(installed: Path, tmp_path: Path) -> None:
    for name in ("engines", "edge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "resnet50.plan").write_bytes(b"\0")
    where = run(installed, tmp_path, "-c", "import edge, engines; print(edge.__file__, engines.__file__)").split()
    assert all(Path(path).is_relative_to(installed) for path in where)
    assert '"$schema"' in run(installed, tmp_path, "-m", "edge", "schema", "config")
    assert "parrotgate.verdict" in run(installed, tmp_path, "-m", "edge", "schema", "verdict")
    assert "info" in run(installed, tmp_path, "-m", "engines", "--help")
    assert "birds-inat" in run(installed, tmp_path, "-m", "engines", "pull", "--list")
