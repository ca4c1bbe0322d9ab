"""Set up the real bindings without TensorRT's libraries, and write down what they offer.

    python -m tests.engines.conformance.fetch            compare with the golden files
    python -m tests.engines.conformance.fetch --write    write them anew

The packages with the bindings are small and come from the package index; the libraries they load (gigabytes, and of no
use without a GPU) are replaced by empty ones. The golden files in ``golden/`` are what this project's own scripts wrote
down: names, parameters and results, no text of the bindings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrotgate" / "conformance"

# TensorRT version -> package with its bindings. 10.3 is JetPack 6, 10.13 and above JetPack 7, 11.4 the newest.
PACKAGES = {
    "10.3.0": "tensorrt-cu12-bindings",
    "10.7.0": "tensorrt-cu12-bindings",
    "10.13.3.9": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu13-bindings",
}
EXPORTS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


def members_of(version: str, cache: Path = CACHE) -> dict[str, Any]:
    """What the bindings of ``version`` offer, told by themselves (see ``tensorrt_members.py``)."""
    told: dict[str, Any] = json.loads(run_with(version, (HERE / "tensorrt_members.py").read_text(), cache))
    return told


def run_with(version: str, script: str, cache: Path = CACHE) -> str:
    """What ``script`` prints in a Python that can import ``tensorrt_bindings`` of ``version``, and our own rooms."""
    path = os.pathsep.join([str(_unpacked(version, cache)), str(HERE.parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "LD_LIBRARY_PATH": str(_stubs(cache))}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def golden_text(members: dict[str, Any]) -> str:
    """``members`` as a golden file: JSON with a line for each class, so that differences can be read."""
    lines = ["{", f'"version": {json.dumps(members["version"])},']
    lines += [f'"functions": {json.dumps(members["functions"])},', f'"constants": {json.dumps(members["constants"])},']
    rows = [f"{json.dumps(name)}: {json.dumps(own)}" for name, own in members["classes"].items()]
    return "\n".join([*lines, '"classes": {', ",\n".join(rows), "}", "}", ""])


def golden_path(version: str) -> Path:
    """Where the golden file of ``version`` is."""
    return GOLDEN / f"tensorrt-{version}.json"


def _unpacked(version: str, cache: Path) -> Path:
    folder = cache / f"{PACKAGES[version]}-{version}-py{sys.version_info.major}{sys.version_info.minor}"
    if not folder.is_dir():
        wheels = cache / "wheels"
        wanted = f"{PACKAGES[version]}=={version}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "-d", str(wheels), wanted], check=True, timeout=300)
        name = (
            f"{PACKAGES[version].replace('-', '_')}-{version}-cp{sys.version_info.major}{sys.version_info.minor}-*.whl"
        )
        (wheel,) = wheels.glob(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def _stubs(cache: Path) -> Path:
    """Empty libraries that export what the bindings want to find while they are imported."""
    for major in sorted({version.split(".")[0] for version in PACKAGES}):
        for library in LIBRARIES:
            folder = compile_empty(cache / "libraries", f"lib{library}.so.{major}", EXPORTS)
    return folder


def compile_empty(folder: Path, name: str, exports: Iterable[str]) -> Path:
    """Make the shared library ``name`` in ``folder``, whose every export does nothing; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.c"
    source.write_text("".join(f"void *{export}(void) {{ return 0; }}\n" for export in exports))
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return folder


def main(arguments: list[str]) -> int:
    """Compare or write every golden file; 1 where one differs."""
    differing = 0
    for version in PACKAGES:
        text, path = golden_text(members_of(version)), golden_path(version)
        if "--write" in arguments:
            path.write_text(text)
        same = path.is_file() and path.read_text() == text
        differing += not same
        print(f"{version:<12} {'as the golden file says' if same else 'DIFFERS from the golden file'}")  # noqa: T201
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
