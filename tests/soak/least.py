"""Row 36: tests of the box in a namespace whose whole file system is read-only but for one folder, as a user without
a name, without capabilities, unable to gain any."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import SHARED
from tests.edge.worker_process import ROOT
from tests.soak.fleet import must_fail
from tests.soak.ledger import Effort, Outcome

NOBODY = "65534"
ROOMS = ("edge", "engines")  # the others run on a workstation
FILE_S = 1800.0  # for one test file on a busy machine
# An interpreter that lies in a closed home is shown in an empty one; every mount becomes read-only; then the rights go.
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/own /mnt/python /mnt/tree /mnt/venv /mnt/shared /mnt/env /mnt/env/bin
mount --bind "$BASE" /mnt/python
mount --bind "$TREE" /mnt/tree
mount --bind "$VENV" /mnt/venv
ln -s /mnt/venv/bin/* /mnt/env/bin
ln -s /mnt/venv/lib /mnt/env/lib
ln -sf "$BASE/bin/python3" /mnt/env/bin/python3
ln -sf python3 /mnt/env/bin/python
echo "home = $BASE/bin" > /mnt/env/pyvenv.cfg
closed= place=$BASE
while place=$(dirname "$place"); [ "$place" != / ]; do
    setpriv --reuid $USER --regid $USER --clear-groups test -x "$place" || closed=$place
done
if [ -n "$closed" ]; then
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    mkdir -p "$BASE"
    mount --bind /mnt/python "$BASE"
fi
[ ! -d "$SHARED" ] || mount --bind "$SHARED" /mnt/shared
[ -d "$SHARED" ] || rmdir /mnt/shared
mount -t tmpfs -o mode=777 tmpfs /mnt/own
for place in $(awk '{print $5}' /proc/self/mountinfo | grep -v -e '^/proc' -e '^/sys' -e '^/dev' -e '^/mnt/own'); do
    mount -o remount,bind,ro "$place" 2>/dev/null || true
done
cd /mnt/tree
exec setpriv --reuid $USER --regid $USER --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
    env HOME=/mnt/own TMPDIR=/mnt/own PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/mnt/tree PATH="/mnt/env/bin:$PATH" /mnt/env/bin/python3 "$@"
"""
PROBE = """
import os
status = open("/proc/self/status").read()
assert os.geteuid() == 65534, "not an unprivileged user"
assert "CapEff:\\t0000000000000000" in status and "CapBnd:\\t0000000000000000" in status, "capabilities are left"
assert "NoNewPrivs:\\t1" in status, "privileges may be gained"
for place in ("/mnt/tree", "/tmp", "/", "/var/tmp"):
    try:
        open(place + "/probe", "w")
    except OSError:
        continue
    raise AssertionError(place + " may be written")
open("/mnt/own/probe", "w")
"""


def locked(arguments: list[str], within_s: float, *, user: str = NOBODY) -> subprocess.CompletedProcess[str]:
    """Run Python with ``arguments`` in the namespace."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv"))):
        pytest.skip("root, unshare and setpriv are needed to give rights away")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PARROTGATE_SHARED"},
        "BASE": sys.base_prefix,
        "TREE": str(ROOT),
        "VENV": sys.prefix,
        "SHARED": str(SHARED),
        "USER": user,
    }
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", *arguments]
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=within_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def box_tests() -> list[str]:
    """The units of the row: the box's test files."""
    return sorted(str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / "tests" / room).glob("test_*.py"))


def least_privilege(effort: Effort) -> Outcome:
    """The probe that the rights are gone, then one test file after the other, from where the last run ended."""
    outcome = Outcome()
    _probe(outcome, NOBODY)
    for name in box_tests()[effort.seed % 1000 :]:
        if not effort.goes_on(outcome.done):
            break
        _run_file(outcome, name)
        outcome.done += 1
    return outcome


def _run_file(outcome: Outcome, name: str) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--basetemp=/mnt/own/pytest", "--tb=line", "-o", "timeout=600"]
    done = locked(["-m", "pytest", *options, name], FILE_S)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    for end in ("passed", "failed", "error", "skipped"):
        found = re.search(rf"(\d+) {end}", last)
        outcome.add(end, int(found[1]) if found else 0)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    nothing = done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED  # all of it needs a browser, say
    outcome.demand(done.returncode == 0 or nothing, f"{name}: {last}: {', '.join(failed[:6])}")


def _probe(outcome: Outcome, user: str) -> None:
    done = locked(["-c", PROBE], 60.0, user=user)
    outcome.demand(done.returncode == 0, done.stderr.strip().rpartition("\n")[2])


def least_privilege_control(effort: Effort) -> str:
    return f"as root: {must_fail(lambda outcome: _probe(outcome, '0'))}"
