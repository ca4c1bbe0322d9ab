"""What the installed ``tensorrt_bindings`` offer, as JSON on stdout; standard library only.

Run by an interpreter for which the wheel was built. Each class lists its members: a method as its parameters and what
it returns (``flags= -> INetworkDefinition``; ``=`` marks what may be left out, overloads stand in a list), an attribute
as ``r`` or ``rw``, an enumeration's value as ``value``. Layers and plugins, which this project never touches, are left
out.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import sys
from typing import Any

import tensorrt_bindings as trt  # type: ignore[import-not-found]  # only there where the wheel is unpacked

UNUSED = re.compile(
    r"Layer$|Plugin|Attention|MoE|Loop|KVCache|Quick|Sym|Expr|Refitter|Iterator|TripLimit|"
    r"Operation$|Algorithm|Calibrat|Dims.+|IIf|Permutation|Resize|Kernel|Scale|Scatter|Sample|Gather|Padding|Pooling"
)
UNUSED_MEMBER = re.compile(r"^add_(?!optimization_profile$)|^_(?!_init__$)")
TYPE = re.compile(r"tensorrt_bindings\.(?:tensorrt\.)?|nvonnxparser::I(?=ParserError)")
LEFT_OVER = {"attr", "value"}  # loop variables of the package itself


def signatures(name: str, doc: str) -> list[str]:
    """``parameters -> result`` of each overload that pybind11 wrote into a docstring."""
    found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (.+)$", doc, re.MULTILINE)
    return [f"{_parameters(text)} -> {TYPE.sub('', result)}".strip() for text, result in found]


def _parameters(text: str) -> str:
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text + ","):
        depth += letter in "[(<{"
        depth -= letter in "])>}"
        if letter == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    own = [part for part in parts if part and not part.startswith("self")]
    return ", ".join(
        re.sub(r":.*?(?= = |$)", "", part).split(" = ")[0] + ("=" if " = " in part else "") for part in own
    )


def _plain(function: Any) -> str:
    """A function that the package wrote in Python."""
    own = [p for name, p in inspect.signature(function).parameters.items() if name not in ("self", "this")]
    names = ", ".join(p.name + ("=" if p.default is not p.empty else "") for p in own)
    return f"{names} -> Any".strip()


def _member(name: str, value: Any) -> Any:
    if isinstance(value, property):
        return "rw" if value.fset is not None else "r"
    if callable(value) and (found := signatures(name, value.__doc__ or "")):
        return found[0] if len(found) == 1 else found
    return _plain(value) if inspect.isfunction(value) else None


def _class(kind: type) -> dict[str, Any]:
    values = set(getattr(kind, "__members__", ()))
    members: dict[str, Any] = {}
    for name in sorted(dir(kind)):
        value = inspect.getattr_static(kind, name)
        if UNUSED_MEMBER.search(name) or getattr(object, name, None) is value:
            continue
        told = "value" if name in values or type(value).__name__ == "Severity" else _member(name, getattr(kind, name))
        if isinstance(value, type) and hasattr(value, "__members__"):
            told = dict.fromkeys(sorted(value.__members__), "value")
        if told is not None:
            members[name] = told
    if values:
        members = {name: told for name, told in members.items() if told == "value"}
    return members


def collect() -> dict[str, Any]:
    """Every class, function and constant of the bindings that could matter here."""
    classes, functions, constants = {}, {}, ["__version__"]
    for name in sorted(dir(trt)):
        value = getattr(trt, name)
        if name.startswith("_") or name in LEFT_OVER or UNUSED.search(name) or inspect.ismodule(value):
            continue
        if isinstance(value, type) and not issubclass(value, enum.Enum):
            classes[name] = _class(value)
        elif callable(value):
            functions[name] = _member(name, value)
        elif type(value).__module__.startswith("tensorrt"):
            constants.append(name)
    return {"version": trt.__version__, "classes": classes, "functions": functions, "constants": constants}


if __name__ == "__main__":
    json.dump(collect(), sys.stdout)
