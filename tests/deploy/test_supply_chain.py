"""The locked requirements: every file has its hash, no host is named, and the images install nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.test_images import DOCKERFILES, ROOT, instructions, stages

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
EXTRAS = {"deploy/Dockerfile.cpu": ["cpu", "cpu,tflite"], "Dockerfile.jetson": ["cpu", "convert"]}
PINNED = re.compile(r"([a-z0-9-]+)==([^\s;]+)(?: ; (.+?))?((?: --hash=sha256:[0-9a-f]{64})+)")


def entries(lock: Path) -> list[tuple[str, str, str]]:
    """Name, version and marker of each entry; fails on one that is not pinned and hashed."""
    text = lock.read_text().replace(" \\\n   ", "")
    found = [PINNED.fullmatch(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(found), f"{lock.name}: an entry is not pinned with hashes"
    return [(entry[1], entry[2], entry[3] or "") for entry in found if entry]


def names(requirements: str) -> set[str]:
    """Names in the lines ``name==…`` or the quoted ``"name>=…"``."""
    return {name.lower().replace("_", "-") for name in re.findall(r"^\W*([A-Za-z0-9_-]+)[=>]", requirements, re.M)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_entry_is_pinned_and_hashed_and_names_no_host(lock: Path) -> None:
    assert len(entries(lock)) >= 5
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_versions_are_those_that_the_tests_run_with(lock: Path) -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.M)
    known = {name for name, _ in pinned}
    assert not [entry for entry in entries(lock) if entry[0] in known and entry[:2] not in pinned]
    if lock.stem != "pycuda":
        assert {name for name, _, _ in entries(lock)} <= known


@pytest.mark.parametrize("name", DOCKERFILES)
def test_lock_holds_what_the_image_needs(name: str) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    core = names(project.partition("dependencies = [\n")[2].partition("]")[0])
    assert len(core) > 8
    for extras in EXTRAS[name]:
        locked = {entry[0] for entry in entries(ROOT / "requirements" / f"{extras}.txt")}
        assert core | {"onnxruntime", "setuptools"} <= locked


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_installs_only_what_is_hashed_or_lies_there(name: str) -> None:
    words = " ".join(rest for word, rest in instructions(name) if word == "RUN")
    installs = re.findall(r"pip (?:install|wheel) [^&]*", words)
    assert len(installs) >= 2
    assert all("--require-hashes" in install or "--no-index --no-deps" in install for install in installs)
    default = dict(rest.split("=", 1) for word, rest in stages(name)[-2] if word == "ARG")["EXTRAS"]
    assert default in EXTRAS[name]
    assert "!requirements" in (ROOT / ".dockerignore").read_text().splitlines()
