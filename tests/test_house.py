"""The rules of the house: who may import whom, one file per outside library, short files, light imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "engines": {"engines"},
    "edge": {"edge", "engines"},
    "calibrate": {"calibrate", "edge", "engines"},
    "deploy": {"deploy", "edge", "engines"},
}
LONGEST_FILE = 400

# Outside library -> the files that may import it.
OWNERS = {
    "ai_edge_litert": ["engines/tflite_runtime.py"],
    "amqtt": ["edge/demo/broker.py"],
    "onnxruntime": ["engines/onnx*.py"],
    "paho": ["edge/link.py"],
    "prometheus_client": ["edge/metrics.py"],
    "pycuda": ["engines/cuda.py"],
    "starlette": ["edge/web.py", "calibrate/review_server.py"],
    "tensorrt": ["engines/tensorrt*.py"],
    "uvicorn": ["edge/web.py"],
    "yaml": ["edge/config_file.py"],
    "onnx": ["calibrate/*.py", "engines/onnx_*.py"],
    "timm": ["engines/torch_export.py"],
    "torch": ["calibrate/*.py", "engines/torch_export.py"],
    "torchvision": ["engines/torch_export.py"],
    **{name: ["calibrate/*.py"] for name in ("joblib", "jinja2", "matplotlib", "scipy", "sklearn")},
}
THREADS = ["_thread", "concurrent", "multiprocessing", "queue", "signal", "threading"]
THREAD_FILES = ["edge/worker.py", "edge/pool.py"]
SIGNAL_FILES = [
    "engines/build_command.py",  # no KeyboardInterrupt may pass through TensorRT's own frames
    "edge/decode_child.py",  # an alarm ends a child that hangs when its worker is gone
]
LOCKS = {"threading.Lock", "threading.RLock"}  # a lock starts nothing
UNPICKLERS = ["pickle", "shelve", "dill", "cloudpickle", "joblib", "marshal"]
PURE = ["edge/cascade.py", "edge/pipeline.py", "edge/gate*.py", "edge/records.py", "edge/delivery.py"]
IMPURE = ["paho", "time", "asyncio", "socket", "subprocess", *THREADS]
# Files of the box's rooms that rewrite models on a workstation: commands import them when they are called.
WORKBENCH = [
    *(f"engines/onnx_{name}.py" for name in ("equalize", "fold", "fuse", "graph", "layers", "quantize", "stem", "tap")),
    "engines/quantize.py",
    "engines/torch_export.py",
]
WORKSTATION = ["sklearn", "scipy", "torch", "matplotlib", "joblib", "jinja2", "onnx", "pandas", "timm", "torchvision"]


@cache
def sources() -> dict[str, ast.Module]:
    """Every Python file of the four rooms, by its path below the root."""
    paths = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path)) for path in paths}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that the tree imports, ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def offenders(library: str, allowed: list[str]) -> list[str]:
    """Files that import the library, or a name in it, although they may not."""
    return [
        f"{path} imports {name}"
        for path, tree in sources().items()
        for name in imported(tree)
        if name.split(".")[0] == library and not any(fnmatch(path, pattern) for pattern in allowed)
    ]


def test_rooms_import_only_downwards() -> None:
    found = [
        f"{path} imports {name}"
        for path, tree in sources().items()
        for name in imported(tree)
        if name.split(".")[0] in {*ROOMS, "tests", ""} - ROOMS[path.split("/")[0]]
    ]
    assert not found


@pytest.mark.parametrize("library", OWNERS)
def test_outside_library_is_imported_by_its_owner_alone(library: str) -> None:
    assert not offenders(library, OWNERS[library])


def test_threads_processes_queues_and_signals_live_in_worker_and_pool() -> None:
    homes = {library: THREAD_FILES + SIGNAL_FILES * (library == "signal") for library in THREADS}
    found = [offence for library, files in homes.items() for offence in offenders(library, files)]
    assert not [offence for offence in found if offence.split()[-1] not in LOCKS]


def test_box_never_imports_an_unpickler() -> None:
    assert not [offence for library in UNPICKLERS for offence in offenders(library, ["calibrate/*.py"])]


def test_decision_and_delivery_rules_know_no_clock_thread_or_socket() -> None:
    found = [
        f"{path} imports {name}"
        for path, tree in sources().items()
        if any(fnmatch(path, pattern) for pattern in PURE)
        for name in imported(tree)
        if name.split(".")[0] in IMPURE
    ]
    assert not found


def test_modules_import_each_other_without_cycles() -> None:
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources()}
    graph = {name: _neighbours(name, sources()[path], set(names)) for name, path in names.items()}
    while leaves := {name for name, below in graph.items() if not below}:
        graph = {name: below - leaves for name, below in graph.items() if name not in leaves}
    assert not graph


def _neighbours(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of ours that a module imports when it is loaded; a package's façade is not counted within it."""
    at_load = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
    below: set[str] = set()
    for target in imported(at_load):
        module = target if target in known else target.rpartition(".")[0]
        if module in known and module != name and module != name.split(".")[0]:
            below.add(module)
    return below


def test_no_file_is_long() -> None:
    rooms = [ROOT / room for room in (*ROOMS, "tests")]
    files = [path for room in rooms for suffix in ("py", "js", "css", "html") for path in room.rglob(f"*.{suffix}")]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert len(lengths) > 20
    assert not {path: length for path, length in lengths.items() if length > LONGEST_FILE}


def loaded_after(statements: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``statements``."""
    code = f"{statements}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_all_of_the_box_loads_no_workstation_library() -> None:
    boxes = [path for path in sources() if path.split("/")[0] in ("edge", "engines") and "/demo/" not in path]
    boxes = [path for path in boxes if path not in WORKBENCH]
    modules = sorted(path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in boxes)
    loaded = loaded_after("".join(f"import {name}\n" for name in modules if not name.endswith("__main__")))
    assert {"edge", "engines", "paho", "numpy"} <= loaded
    assert not loaded & {*WORKSTATION, "amqtt", "tensorrt", "pycuda"}


def test_facades_load_no_backend() -> None:
    assert not loaded_after("import edge, engines") & {*WORKSTATION, "onnxruntime", "paho", "starlette", "yaml"}
