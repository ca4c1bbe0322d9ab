"""What the installed ``pycuda.driver`` offers, as JSON on stdout, in the form of ``tensorrt_members``.

Boost.Python writes each function's parameters into its docstring; ``arg1`` and the like have no name and are given by
position alone. Textures, surfaces, arrays, modules and the profiler are left out.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any

import pycuda
import pycuda.driver as driver

UNUSED = re.compile(
    r"rray|exture|urface|ilter|ddress|inker|jit|Launch(?!Error)|rofil|odule|unction|memcpy_[^hd]|memset|MPS|[123]D"
)
UNUSED_MEMBER = re.compile(r"^_(?!_init__$)|^(?:values|names|mro)$")


def signatures(name: str, doc: str) -> list[str]:
    """``parameters -> result`` of each overload."""
    found = re.findall(rf"^{name}\((.*)\) -> (.+) :$", doc, re.MULTILINE)
    return [f"{_parameters(text)} -> {result}".strip() for text, result in found]


def _parameters(text: str) -> str:
    required, _, optional = text.partition("[")
    parts = [part.strip() for part in required.split(",") if part.strip()]
    parts += [f"{part.strip()}=" for part in re.sub(r"=[^,\]]*|[\[\]]", "", optional).split(",") if part.strip()]
    return ", ".join(re.sub(r"\([^)]*\)", "", part) for part in parts)


def _member(name: str, value: Any, *, method: bool) -> Any:
    if isinstance(value, property):
        return "rw" if value.fset is not None else "r"
    if inspect.isfunction(value):
        names = [
            p.name + ("=" if p.default is not p.empty else "") for p in inspect.signature(value).parameters.values()
        ]
        return f"{', '.join(names[method:])} -> Any".strip()
    found = signatures(name, getattr(value, "__doc__", None) or "")
    if method:
        found = [_without_self(text) for text in found]
    return (found[0] if len(found) == 1 else found) or None


def _without_self(text: str) -> str:
    parameters, _, result = text.rpartition("->")
    return f"{', '.join(parameters.strip().split(', ')[1:])} ->{result}".strip()


def _class(kind: type) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name in sorted(dir(kind)):
        value = inspect.getattr_static(kind, name)
        if UNUSED_MEMBER.search(name) or getattr(object, name, None) is value:
            continue
        if isinstance(value, staticmethod):
            told = _member(name, getattr(kind, name), method=False)
        elif isinstance(value, (int, kind)):
            told = "value"
        else:
            told = _member(name, value, method=True)
        if told is not None:
            members[name] = told
    return members


def collect() -> dict[str, Any]:
    """Every class, function and constant of ``pycuda.driver`` that could matter here."""
    classes, functions, constants = {}, {}, []
    for name in sorted(dir(driver)):
        value = getattr(driver, name)
        if name.startswith("_") or UNUSED.search(name) or inspect.ismodule(value):
            continue
        if isinstance(value, type):
            classes[name] = _class(value)
        elif callable(value) and (told := _member(name, value, method=False)):
            functions[name] = told
        elif not callable(value):
            constants.append(name)
    version = ".".join(str(part) for part in pycuda.VERSION)
    return {"version": version, "classes": classes, "functions": functions, "constants": constants}


if __name__ == "__main__":
    json.dump(collect(), sys.stdout)
