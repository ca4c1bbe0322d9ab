"""Row 37: hashed locks, a list of what is in them, the same wheel twice, known weaknesses where a service answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.deploy.test_supply_chain import LOCKS, entries
from tests.edge.worker_process import ROOT
from tests.soak.ledger import Effort, Outcome
from tests.test_wheel import LEFT_BEHIND, ROOMS

EPOCH = "1760000000"
MAKE_S = 1200.0


def supply_chain(effort: Effort) -> Outcome:
    """Each lock entry by entry; two builds of the wheel in two folders; `make sbom`; `make audit`."""
    outcome = Outcome()
    locked = {lock.stem: {(name, version) for name, version, _ in entries(lock)} for lock in LOCKS}
    outcome.add("packages locked with hashes", len(set().union(*locked.values())))
    first, second = (build_wheel(effort.folder / name, EPOCH) for name in ("first", "second"))
    outcome.add("equal wheels", int(first == second))
    outcome.demand(first == second, "two builds of one tree differ")
    for name, wanted in locked.items():
        listed = bill(effort.folder / "boms", name)
        outcome.add("listed", len(listed & wanted))
        outcome.demand(wanted == listed, f"{name}: the list lacks {sorted(wanted - listed)[:3]}")
    done = make("audit")
    told = " ".join((done.stdout + done.stderr).split())[:160]
    outcome.demand(done.returncode == 0, f"known weaknesses were not ruled out, make audit ended so: {told}")
    outcome.done = 1
    return outcome


def build_wheel(folder: Path, epoch: str | None) -> str:
    """SHA-256 of the wheel of a copy of this tree in ``folder``, whose files are as young as the copy."""
    copy = folder / "tree"
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=LEFT_BEHIND, copy_function=shutil.copyfile)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, copy / name)
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run(
        [*build, str(copy)],
        env=environment if epoch is None else {**environment, "SOURCE_DATE_EPOCH": epoch},
        check=True,
        timeout=MAKE_S,
    )
    return hashlib.sha256(next(folder.glob("*.whl")).read_bytes()).hexdigest()


def bill(folder: Path, name: str) -> set[tuple[str, str]]:
    """Name and version of each component in the CycloneDX list of a lock."""
    if not folder.is_dir():
        done = make("sbom", f"DIST={folder}")
        if done.returncode != 0:
            raise AssertionError(f"make sbom: {done.stderr[-300:]}")
    listed = json.loads((folder / f"sbom-{name}.json").read_text())["components"]
    return {(component["name"], component["version"]) for component in listed}


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a target of the Makefile."""
    return subprocess.run(
        ["make", "-C", ROOT, "--no-print-directory", *words],
        capture_output=True,
        text=True,
        timeout=MAKE_S,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")},
    )


def supply_chain_control(effort: Effort) -> str:
    """The wheel built twice without a time of its own."""
    first = build_wheel(effort.folder / "first", None)
    time.sleep(2.5)  # archives count in two seconds
    if first == build_wheel(effort.folder / "second", None):
        raise AssertionError("the wheels are equal without SOURCE_DATE_EPOCH")
    return "without SOURCE_DATE_EPOCH two builds of one tree differ"
