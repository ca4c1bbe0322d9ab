"""Row 38: one small change at a time to the delivery core, each of which a test must notice."""

from __future__ import annotations

import ast
import copy
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hypothesis
import pytest

from engines.console import stdout
from tests.edge.worker_process import ROOT
from tests.soak.ledger import Effort, Outcome

MODULE = ROOT / "edge" / "delivery.py"
TESTS = ["tests/edge/test_delivery_core.py", "tests/edge/test_courier.py", "tests/edge/test_delivery.py"]
LIMIT_S = 60
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
EDGE: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.GtE: ast.Gt, ast.Gt: ast.GtE, ast.Lt: ast.LtE, ast.LtE: ast.Lt}


def _comparison(node: ast.Compare) -> Iterator[ast.AST | None]:
    for table in (OPPOSITE, EDGE):
        if type(node.ops[0]) in table:
            yield ast.Compare(node.left, [table[type(node.ops[0])](), *node.ops[1:]], node.comparators)


def _connective(node: ast.BoolOp) -> Iterator[ast.AST | None]:
    yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    yield from node.values


def _sum(node: ast.BinOp) -> Iterator[ast.AST | None]:
    if isinstance(node.op, (ast.Add, ast.Sub)):
        yield ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)


def _constant(node: ast.Constant) -> Iterator[ast.AST | None]:
    if isinstance(node.value, int):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)


def _call(node: ast.Expr) -> Iterator[ast.AST | None]:
    if not isinstance(node.value, ast.Constant):
        yield None


def _answer(node: ast.Return) -> Iterator[ast.AST | None]:
    if node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(ast.Constant(None))


# Kind of node -> what may stand in its place; None deletes a statement.
CHANGES: dict[type[ast.AST], Callable[[Any], Iterable[ast.AST | None]]] = {
    ast.Compare: _comparison,
    ast.BoolOp: _connective,
    ast.UnaryOp: lambda node: [node.operand] if isinstance(node.op, ast.Not) else [],
    ast.IfExp: lambda node: [node.body, node.orelse],
    ast.BinOp: _sum,
    ast.AugAssign: lambda node: [ast.AugAssign(node.target, ast.Sub(), node.value), None],
    ast.Constant: _constant,
    ast.Assign: lambda _: [None],
    ast.Delete: lambda _: [None],
    ast.Break: lambda _: [None],
    ast.Expr: _call,
    ast.Return: _answer,
}


def _changes(node: ast.AST) -> list[ast.AST | None]:
    return list(CHANGES.get(type(node), lambda _: [])(node))


def mutants() -> list[tuple[str, str]]:
    """Each mutant's description and source; declarations and annotations are left alone."""
    source = MODULE.read_text()
    count = sum(1 for _ in ast.walk(ast.parse(source)))
    found = []
    for index in range(count):
        node = list(ast.walk(ast.parse(source)))[index]
        for number, _ in enumerate(_changes(node)):
            tree = ast.parse(source)
            target = list(ast.walk(tree))[index]
            if not _inside_a_method(tree, target):
                continue
            new = _changes(copy.deepcopy(target))[number]
            before = ast.unparse(target)
            _replace(tree, target, ast.Pass() if new is None else new)
            line = getattr(target, "lineno", 0)
            after = "nothing" if new is None else ast.unparse(ast.fix_missing_locations(new))
            found.append((f"line {line}: {before} -> {after}", ast.unparse(ast.fix_missing_locations(tree))))
    return found


def _inside_a_method(tree: ast.Module, target: ast.AST) -> bool:
    methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return any(target in set(ast.walk(statement)) for method in methods for statement in method.body)


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and old in value:
                value[value.index(old)] = new


def survives(source: str) -> bool:
    """Whether no test notices; each try is a process of its own, with a limit on its time."""
    pid = os.fork()
    if pid == 0:
        os._exit(_try(source))
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _try(source: str) -> int:
    """Exit code of the tests with ``source`` in the place of the module."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.chdir(ROOT)
        for name in [name for name in sys.modules if name.startswith(("edge.", "tests.edge.", "tests.soak.model"))]:
            del sys.modules[name]  # whoever knows the real module is loaded anew
        module = types.ModuleType("edge.delivery")
        module.__file__ = str(MODULE)
        sys.modules["edge.delivery"] = module
        exec(compile(source, str(MODULE), "exec"), module.__dict__)  # noqa: S102 - our own source, changed
        existing = [name for name in TESTS if (ROOT / name).exists()]
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *existing]))
        if code == 0:
            from tests.soak.model import explore

            explore(38, 60)
    except BaseException:  # noqa: BLE001 - whatever a mutant does, it was noticed
        code = 1
    return code


def score(effort: Effort) -> Outcome:
    """Row 38: the next ``effort.count`` mutants, in the order of the module."""
    outcome, everything = Outcome(), mutants()
    assert hypothesis.__version__, "imported here, so that no child has to"
    for description, source in everything[effort.seed % 1000 :]:
        if not effort.goes_on(outcome.done):
            break
        outcome.done += 1
        if survives(source):
            outcome.add("survived")
            stdout.print(f"  survived {description}", highlight=False, soft_wrap=True, markup=False)
        else:
            outcome.add("killed")
    survived = outcome.sums.get("survived", 0)
    outcome.demand(10 * survived <= len(everything), f"{survived} of {len(everything)} mutants survived")
    return outcome


def score_control(_effort: Effort) -> str:
    """The unchanged module must survive: a mutant is not killed by a test that fails anyway."""
    assert survives(MODULE.read_text()), "the unchanged module is noticed: the tests fail by themselves"
    return "the unchanged module survives its tests, in the same way of running them"
