"""Build pycuda against NVIDIA's headers and an empty libcuda, and write down what it offers; two or three minutes.

    python -m tests.engines.conformance.pycuda_fetch [--write]

pycuda comes as source alone. Neither toolkit nor driver is needed: headers come from the package index, and an empty
library that exports what pycuda asks for lets it be imported. The environment is kept in the cache folder.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.engines.conformance.fetch import CACHE, GOLDEN, HERE, compile_empty, golden_text

VERSION = "2026.1"
HEADERS = ("nvidia-cuda-runtime-cu12", "nvidia-cuda-nvcc-cu12", "nvidia-cuda-profiler-api-cu12")
NEEDS = ("setuptools<80", "wheel", "numpy", "pytools", "platformdirs", "mako")
PATH = GOLDEN / f"pycuda-{VERSION}.json"


def members(cache: Path = CACHE) -> dict[str, Any]:
    """What pycuda ``VERSION`` offers, told by itself (see ``pycuda_members.py``)."""
    python = cache / f"pycuda-{VERSION}" / "bin" / "python"
    if not (cache / f"pycuda-{VERSION}" / "built").is_file():
        _build(cache, python)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(_empty_driver(cache, python)), "PYTHONPATH": ""}
    command = [str(python), str(HERE / "pycuda_members.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _build(cache: Path, python: Path) -> None:
    home = python.parents[1]
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *NEEDS, *HEADERS], check=True, timeout=600)
    download = [str(python), "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    subprocess.run([*download, "-d", str(home), f"pycuda=={VERSION}"], check=True, timeout=600)
    with tarfile.open(home / f"pycuda-{VERSION}.tar.gz") as archive:
        archive.extractall(home, filter="data")
    source, headers = home / f"pycuda-{VERSION}", _headers(python)
    linked = compile_empty(home / "driver", "libcuda.so.1", ["cuInit"])
    (linked / "libcuda.so").symlink_to("libcuda.so.1")
    configure = [str(python), "configure.py", f"--cuda-root={headers[0].parent}", f"--cudadrv-lib-dir={linked}"]
    subprocess.run([*configure, f"--cuda-inc-dir={','.join(map(str, headers))}"], cwd=source, check=True, timeout=60)
    with (source / "siteconf.py").open("a") as settings:
        settings.write("CUDA_ENABLE_CURAND = False\n")
    environment = {**os.environ, "CPATH": os.pathsep.join(map(str, headers))}
    install = [str(python), "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "."]
    subprocess.run(install, cwd=source, env=environment, check=True, timeout=900)
    (home / "built").touch()


def _headers(python: Path) -> list[Path]:
    (site,) = python.parents[1].glob("lib/python3.*/site-packages")
    names = ("cuda_runtime", "cuda_nvcc", "cuda_profiler_api")
    return [site / "nvidia" / name / "include" for name in names]


def _empty_driver(cache: Path, python: Path) -> Path:
    """A libcuda with every symbol that the built extension leaves open."""
    (extension,) = python.parents[1].glob("lib/python3.*/site-packages/pycuda/_driver*.so")
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], capture_output=True, text=True, check=True, timeout=60
    )
    return compile_empty(cache / "libcuda", "libcuda.so.1", re.findall(r"\b(cu[A-Z]\w*)", listed.stdout))


def main(arguments: list[str]) -> int:
    """Compare or write the golden file; 1 where it differs."""
    text = golden_text(members())
    if "--write" in arguments:
        PATH.write_text(text)
    same = PATH.is_file() and PATH.read_text() == text
    print(f"pycuda {VERSION} {'as the golden file says' if same else 'DIFFERS from the golden file'}")  # noqa: T201
    return int(not same)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
