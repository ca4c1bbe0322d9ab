"""pycuda itself, compiled, over a stand-in for libcuda: the tests of ``tests/gpu`` that need no TensorRT."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.conformance import fetch, pycuda_fetch
from tests.standin import ROOT, SITE

PYCUDA_NEEDS = ("pycuda", "pytools", "mako", "markupsafe", "platformdirs", "siphash24*.so", "typing_extensions.py")


def driver_for(extension: Path, folder: Path) -> Path:
    """``libcuda.so.1`` from ``libcuda.c``, with a stub for whatever else ``extension`` asks for; returns its folder."""
    folder.mkdir()
    source, library, stubs = SITE / "libcuda.c", folder / "libcuda.so.1", folder / "stubs.c"
    wanted = _symbols(extension, "--undefined-only") - set(re.findall(r"\b(cu[A-Z]\w*)\(", source.read_text()))
    stubs.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(wanted)))
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        str(library),
        str(source),
        str(stubs),
        "-ldl",
    ]
    subprocess.run(command, check=True, timeout=60)
    return folder


def _symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(["nm", "-D", which, str(library)], capture_output=True, text=True, check=True, timeout=60)
    return set(re.findall(r"\b(cu[A-Z]\w*)", listed.stdout))


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("integrated", [False, True])
def test_our_cuda_code_runs_on_pycuda_itself(tmp_path: Path, integrated: bool) -> None:
    pycuda_fetch.members()  # builds it, where that was not done before
    home = fetch.CACHE / f"pycuda-{pycuda_fetch.VERSION}"
    (built,) = home.glob("lib/python3.*/site-packages")
    (extension,) = built.glob("pycuda/_driver*.so")
    site = tmp_path / "site"
    site.mkdir()
    for pattern in PYCUDA_NEEDS:
        for found in built.glob(pattern):
            (site / found.name).symlink_to(found)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "STANDIN_SHARED"},
        **({"STANDIN_SHARED": "1"} if integrated else {}),
        "PARROTGATE_REQUIRE_GPU": "1",
        "LD_LIBRARY_PATH": str(driver_for(extension, tmp_path / "driver")),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu/test_cuda.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
