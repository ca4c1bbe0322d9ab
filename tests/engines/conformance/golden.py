"""The golden files: which names, parameters and results each version of an outside library has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "golden"


@dataclass(frozen=True)
class Signature:
    """One overload. ``required`` parameters come first; ``result`` is the name of a class, or anything."""

    names: tuple[str, ...]
    required: int
    result: str

    def takes(self, positional: int, keywords: frozenset[str]) -> bool:
        """Whether a call with so many positional arguments and these keywords fits."""
        if positional > len(self.names) or not keywords <= set(self.names[positional:]):
            return False
        return all(name in keywords for name in self.names[positional : self.required])


class Api:
    """One version of a library, as its golden file tells it."""

    def __init__(self, path: Path) -> None:
        told: dict[str, Any] = json.loads(path.read_text())
        self.version: str = told["version"]
        self.classes: dict[str, dict[str, Any]] = told["classes"]
        self.functions: dict[str, Any] = told["functions"]
        self.constants: list[str] = told["constants"]

    def knows(self, dotted: str) -> bool:
        """Whether ``Class.member``, ``Class`` or a function or constant of the module is there."""
        owner, _, member = dotted.partition(".")
        if not member:
            return owner in self.classes or owner in self.functions or owner in self.constants
        return member in self.classes.get(owner, {})

    def signatures(self, owner: str, member: str) -> list[Signature]:
        """The overloads of a method (or of a function, with ``owner`` empty); empty where it is none."""
        told = self.classes.get(owner, {}).get(member) if owner else self.functions.get(member)
        texts = told if isinstance(told, list) else [told]
        return [_signature(text) for text in texts if isinstance(text, str) and "->" in text]

    def is_attribute(self, owner: str, member: str, *, written: bool) -> bool:
        """Whether it can be read, or ``written``."""
        return self.classes.get(owner, {}).get(member) in (("rw",) if written else ("r", "rw", "value"))

    @cached_property
    def members(self) -> frozenset[str]:
        """Every name of a method or an attribute, of whatever class."""
        return frozenset(name for own in self.classes.values() for name, told in own.items() if told != "value")


def _signature(text: str) -> Signature:
    parameters, _, result = text.rpartition("->")
    names = [name.strip() for name in parameters.split(",") if name.strip()]
    required = sum(not name.endswith("=") for name in names)
    return Signature(tuple(name.rstrip("=") for name in names), required, result.strip())


def load(library: str) -> dict[str, Api]:
    """Every version of ``library`` that has a golden file, oldest first."""
    apis = [Api(path) for path in HERE.glob(f"{library}-*.json")]
    apis.sort(key=lambda api: [int(part) for part in api.version.split(".")])
    return {api.version: api for api in apis}
