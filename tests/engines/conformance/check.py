"""Uses against golden files: what is wrong, and the table of versions by calls.

python -m tests.engines.conformance.check    the tables, on this machine's source tree
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.engines.conformance.golden import Api, load
from tests.engines.conformance.usage import Found, Library, Use, find

ENGINES = Path(__file__).resolve().parents[3] / "engines"
# Names that much else has too; a receiver that nobody knows is believed to be something else.
ORDINARY = frozenset(
    {"name", "shape", "size", "dtype", "flags", "reset", "log", "parse", "location", "free", "push"}
    | {name for kind in (list, dict, str, bytes, set) for name in dir(kind)}
)
ABSENT, FINE = "–", "yes"


def library(kind: str, apis: Iterable[Api]) -> Library:
    """How ``tensorrt`` or ``pycuda`` is recognised in our sources."""
    known = list(apis)

    def returns(owner: str, member: str) -> str | None:
        results = {signature.result for api in known for signature in api.signatures(owner, member)}
        return next((result for result in sorted(results) if any(result in api.classes for api in known)), None)

    members = frozenset(name for api in known for name in api.members)
    if kind == "tensorrt":
        return Library(("tensorrt",), ("bindings",), returns, members, ORDINARY)
    return Library(("pycuda.driver",), ("_pycuda",), returns, members, ORDINARY)


def sources(kind: str) -> dict[str, str]:
    """The files of ``engines/`` that may use the library."""
    pattern = "tensorrt*.py" if kind == "tensorrt" else "cuda*.py"
    return {path.name: path.read_text() for path in sorted(ENGINES.glob(pattern))}


def examine(kind: str, changed: dict[str, str] | None = None) -> tuple[Found, dict[str, Api]]:
    """Every use of the library in our sources, or in ``changed`` ones, and the versions to hold them against."""
    apis = load(kind)
    return find(changed or sources(kind), library(kind, apis.values())), apis


def faults(found: Found, apis: dict[str, Api]) -> list[str]:
    """A sentence for each use that some version would refuse, and for each that cannot be followed."""
    wrong = [
        f"{use.where} {use.name}: {sentence} in {api.version}"
        for use in found.uses
        for api in apis.values()
        if (sentence := verdict(use, api)) not in (FINE, ABSENT)
    ]
    return wrong + found.unresolved


def verdict(use: Use, api: Api) -> str:
    """``yes``, ``–`` where a capability check keeps this version out, or what is wrong."""
    if any(api.knows(name) is not wanted for name, wanted in use.guards):
        return ABSENT
    if use.owner and use.owner not in api.classes:
        return f"no class {use.owner}"
    if use.kind in ("read", "write"):
        return _attribute(use, api)
    overloads = api.signatures(use.owner, use.member)
    if not overloads:
        return "no such method" if use.owner else "no such function"
    if use.kind == "override":
        fits = any(len(overload.names) == use.positional for overload in overloads)
        return FINE if fits else f"overridden with {use.positional} parameters"
    if "**" in use.keywords:
        return "keywords that cannot be followed"
    given = [use.positional, use.positional - 1] if use.kind == "static" else [use.positional]
    if any(overload.takes(count, use.keywords) for overload in overloads for count in given if count >= 0):
        return FINE
    return f"does not take {use.positional} arguments and {sorted(use.keywords) or 'no'} keywords"


def _attribute(use: Use, api: Api) -> str:
    if not use.owner:
        return FINE if api.knows(use.member) else "no such name"
    if use.kind == "write":
        return FINE if api.is_attribute(use.owner, use.member, written=True) else "cannot be assigned"
    return FINE if api.knows(f"{use.owner}.{use.member}") else "no such member"


def capabilities(found: Found, apis: dict[str, Api]) -> dict[str, dict[str, bool]]:
    """Each name that the code asks for with ``has``, and what every version answers."""
    names = sorted({name for use in found.uses for name, _ in use.guards})
    return {name: {version: api.knows(name) for version, api in apis.items()} for name in names}


def table(kind: str) -> Table:
    """Versions by calls: ``yes``, ``–`` behind a capability check that is false there, or the fault."""
    found, apis = examine(kind)
    shown = Table(title=f"{kind}: {len(found.uses)} uses in {', '.join(sources(kind))}", title_justify="left")
    shown.add_column("use")
    for version in apis:
        shown.add_column(version, justify="center")
    for name in sorted({(use.name, use.kind) for use in found.uses}):
        uses = [use for use in found.uses if (use.name, use.kind) == name]
        shown.add_row(f"{name[0]} ({name[1]} ×{len(uses)})", *(_joined(uses, api) for api in apis.values()))
    for name, answers in capabilities(found, apis).items():
        shown.add_row(f"has({name})", *("yes" if answers[version] else "no" for version in apis))
    return shown


def _joined(uses: list[Use], api: Api) -> str:
    told = {verdict(use, api) for use in uses}
    return "; ".join(sorted(told - {FINE, ABSENT})) or (FINE if FINE in told else ABSENT)


def main() -> int:
    """Print both tables; 1 where there is a fault."""
    console = Console(width=160)
    wrong = []
    for kind in ("tensorrt", "pycuda"):
        if load(kind) and sources(kind):
            console.print(table(kind))
            wrong += faults(*examine(kind))
    for sentence in wrong:
        console.print(sentence, style="red")
    console.print("every use exists in every version" if not wrong else f"{len(wrong)} faults")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
