"""The stand-in offers nothing that the real bindings do not, with the same parameters in the same order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests import standin
from tests.engines.conformance.golden import Api, load

VERSIONS = ["10.3.0", "11.4.0.106"]
OWN = {"write_plan", "read_plan", "plan_header", "log"}  # what the stand-in shows of itself, for tests

TELL = """
import inspect, json, sys
module = __import__(sys.argv[1], fromlist=["x"])
def parameters(function):
    try:
        own = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    return [p.name + ("=" if p.default is not p.empty else "") for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
told = {}
for name, value in vars(module).items():
    if name.startswith("_") or not getattr(value, "__module__", "").startswith(("tensorrt", "pycuda")):
        continue
    if inspect.isclass(value):
        methods = {m: f for m, f in vars(value).items() if inspect.isfunction(f) and not m.startswith("_")}
        told[name] = {m: parameters(f) for m, f in methods.items()}
    elif inspect.isfunction(value):
        told[name] = parameters(value)
print(json.dumps(told))
"""


def told(module: str, **settings: str) -> dict[str, Any]:
    """Classes with their methods' parameters, and functions, of a stand-in module."""
    command = [sys.executable, "-c", TELL, module]
    environment = standin.environment(**settings)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def strange(shown: dict[str, Any], api: Api) -> Iterator[str]:
    """What is there and should not be, or takes other parameters."""
    for name, own in shown.items():
        if isinstance(own, dict):
            if name not in api.classes:
                yield f"class {name}"
            for method, parameters in own.items():
                if (sentence := _fault(api, name, method, (parameters or [])[1:])) is not None:
                    yield f"{name}.{method}{sentence}"
        elif (sentence := _fault(api, "", name, own or [])) is not None:
            yield f"{name}{sentence}"


def _fault(api: Api, owner: str, member: str, parameters: list[str]) -> str | None:
    signatures = api.signatures(owner, member)
    if not signatures:
        return " is no method of the real one"
    names = [name.rstrip("=") for name in parameters]
    required = sum(not name.endswith("=") for name in parameters)
    if any(_alike(s.names, names) and s.required == required for s in signatures):
        return None
    return f"{tuple(parameters)} is not {signatures[0].names}, {signatures[0].required} required"


def _alike(real: Sequence[str], names: Sequence[str]) -> bool:
    """The same names; one that Boost.Python only numbers may be called anything."""
    pairs = zip(real, names, strict=False)
    return len(real) == len(names) and all(a == b or re.fullmatch(r"arg\d+", a) for a, b in pairs)


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_stand_in_has_the_shape_of_the_bindings(version: str) -> None:
    shown = told("tensorrt", STANDIN_TENSORRT=version)
    assert {"Builder", "Runtime", "IExecutionContext"} <= set(shown)
    wrong = list(strange({n: v for n, v in shown.items() if n not in OWN}, load("tensorrt")[version]))
    assert wrong == []


def test_pycuda_stand_in_has_the_shape_of_the_bindings() -> None:
    shown = told("pycuda.driver")
    assert {"Stream", "Event", "Device"} <= set(shown)
    assert list(strange(shown, load("pycuda")["2026.1"])) == []


def test_difference_is_seen() -> None:
    api = load("tensorrt")["10.3.0"]
    assert list(strange({"Builder": {"create_networks": ["self"]}, "Biulder": {}}, api)) == [
        "Builder.create_networks is no method of the real one",
        "class Biulder",
    ]
    assert list(strange({"Builder": {"create_network": ["self", "flags"]}}, api))
