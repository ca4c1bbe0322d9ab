"""Which names of an outside library a module of ours uses, found in its syntax tree.

What a variable holds is followed from where it comes from: an annotation (``config: trt.IBuilderConfig``), a call whose
result the golden files know, ``bindings()``, or a function of ours with an annotated result. A branch behind
``if has("Class.member"):`` counts only in versions that have that name, its ``else`` only in those that lack it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["call", "static", "read", "write", "override"]
Guard = tuple[str, bool]
MODULE = "<module>"
CLASS = "<class> "
Returns = Callable[[str, str], str | None]


@dataclass(frozen=True)
class Use:
    """One use: ``owner`` is a class, or empty for the module itself; a constructor is a call of ``__init__``."""

    where: str
    owner: str
    member: str
    kind: Kind
    positional: int = 0
    keywords: frozenset[str] = frozenset()
    guards: tuple[Guard, ...] = ()

    @property
    def name(self) -> str:
        """``Class.member`` as people write it."""
        if not self.owner:
            return self.member
        return self.owner if self.member == "__init__" else f"{self.owner}.{self.member}"


@dataclass
class Library:
    """How a library is recognised: names of its module, functions that return it, results of its own methods."""

    modules: tuple[str, ...]
    loaders: tuple[str, ...]
    returns: Returns
    members: frozenset[str]
    ordinary: frozenset[str]


@dataclass
class Found:
    """What a walk has found; ``unresolved`` are uses that look like the library's and whose receiver is unknown."""

    uses: list[Use] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)


def find(sources: dict[str, str], library: Library) -> Found:
    """Every use of ``library`` in ``sources``, texts of Python files by their name."""
    trees = {name: ast.parse(text, name) for name, text in sources.items()}
    functions = {
        node.name: _annotated(node.returns)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    found = Found()
    for name, tree in trees.items():
        aliases = _aliases(tree, library)
        attributes = _attributes(tree)
        _Walk(name, library, found, functions, attributes).block(tree.body, dict.fromkeys(aliases, MODULE), ())
    return found


def _aliases(tree: ast.Module, library: Library) -> set[str]:
    """The names under which the module is imported anywhere in the file."""
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name in library.modules}
        elif isinstance(node, ast.ImportFrom):
            named = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            aliases |= {name for name, target in named.items() if target in library.modules}
    return aliases


def _attributes(tree: ast.Module) -> dict[str, str]:
    """Types of ``self._x: trt.X`` and of annotated class attributes, over all classes of the file."""
    typed = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and (kind := _annotated(node.annotation)):
            typed[node.target.attr if isinstance(node.target, ast.Attribute) else ast.unparse(node.target)] = kind
    return typed


def _annotated(annotation: ast.expr | None) -> str | None:
    """``trt.X`` or ``trt.X | None`` as ``X``; module aliases are told by having one dot."""
    if annotation is None:
        return None
    text = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    if not isinstance(text, str):
        return None
    parts = [part.strip() for part in text.split("|")]
    known = [part for part in parts if part.startswith(("trt.", "tensorrt.", "drv.", "driver."))]
    return known[0].partition(".")[2] if known else None


class _Walk:
    def __init__(
        self,
        file: str,
        library: Library,
        found: Found,
        functions: dict[str, str | None],
        attributes: dict[str, str],
    ) -> None:
        self.file, self.library, self.found = file, library, found
        self.functions, self.attributes = functions, dict(attributes)

    def block(self, body: Iterable[ast.stmt], names: dict[str, str], guards: tuple[Guard, ...]) -> None:
        """Walk statements in order; ``names`` grows by what they assign."""
        for statement in body:
            self.statement(statement, names, guards)
            if isinstance(statement, ast.If) and _leaves(statement.body):
                guards = (*guards, *_guards(statement.test)[1])

    def statement(self, node: ast.stmt, names: dict[str, str], guards: tuple[Guard, ...]) -> None:
        if isinstance(node, ast.FunctionDef) and node.name == "has":
            return  # the capability check itself
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.function(node, dict(names), guards)
        elif isinstance(node, ast.ClassDef):
            self.class_(node, dict(names), guards)
        elif isinstance(node, ast.If):
            self.expression(node.test, names, guards)
            held, refuted = _guards(node.test)
            self.block(node.body, names, (*guards, *held))
            self.block(node.orelse, names, (*guards, *refuted))
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            self.assignment(node, names, guards)
        else:
            self.other(node, names, guards)

    def other(self, node: ast.stmt, names: dict[str, str], guards: tuple[Guard, ...]) -> None:
        for item in getattr(node, "items", []):
            self.bind(item.optional_vars, self.expression(item.context_expr, names, guards), names)
        for _, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    self.block([child], names, guards)
                elif isinstance(child, ast.ExceptHandler):
                    self.block(child.body, names, guards)
                elif isinstance(child, ast.expr):
                    self.expression(child, names, guards)

    def function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, names: dict[str, str], guards: tuple[Guard, ...]
    ) -> None:
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            names.pop(argument.arg, None)
            if kind := _annotated(argument.annotation):
                names[argument.arg] = kind
        for default in (*arguments.defaults, *arguments.kw_defaults):
            self.expression(default, names, guards)
        self.block(node.body, names, guards)

    def class_(self, node: ast.ClassDef, names: dict[str, str], guards: tuple[Guard, ...]) -> None:
        bases = [self.expression(base, names, guards) for base in node.bases]
        owner = next((base.removeprefix(CLASS) for base in bases if base and base.startswith(CLASS)), None)
        for method in node.body if owner else []:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                count = len(method.args.args) - 1
                self.use(method, owner or "", method.name, "override", guards, positional=count)
        self.block(node.body, {**names, "super()": owner} if owner else names, guards)

    def assignment(
        self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, names: dict[str, str], guards: tuple[Guard, ...]
    ) -> None:
        pairs = _pairs(node)
        if pairs:
            kinds = [self.expression(value, names, guards) for _, value in pairs]
            for (target, _), kind in zip(pairs, kinds, strict=True):
                self.bind(target, kind, names)
            return
        kind = self.expression(node.value, names, guards) if node.value is not None else None
        if isinstance(node, ast.AnnAssign):
            kind = _annotated(node.annotation) or kind
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Attribute) and (owner := self.expression(target.value, names, guards)):
                self.use(target, owner, target.attr, "write", guards)
            self.bind(target, kind, names)

    def bind(self, target: ast.expr | None, kind: str | None, names: dict[str, str]) -> None:
        if isinstance(target, ast.Name):
            names.pop(target.id, None)
            if kind:
                names[target.id] = kind
        elif isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self" and kind:
            self.attributes[target.attr] = kind

    def expression(self, node: ast.expr | None, names: dict[str, str], guards: tuple[Guard, ...]) -> str | None:
        """Walk an expression; what it is of the library's, if that is known."""
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if isinstance(node, ast.Call):
            return self.call(node, names, guards)
        if isinstance(node, ast.Attribute):
            return self.attribute(node, names, guards)
        if isinstance(node, ast.NamedExpr):
            kind = self.expression(node.value, names, guards)
            self.bind(node.target, kind, names)
            return kind
        if isinstance(node, ast.IfExp):
            return self.choice(node, names, guards)
        if isinstance(node, ast.BoolOp):
            return self.chain(node, names, guards)
        kinds = [self.expression(child, names, guards) for child in _operands(node)] if node is not None else []
        return kinds[0] if isinstance(node, ast.Await) else None

    def choice(self, node: ast.IfExp, names: dict[str, str], guards: tuple[Guard, ...]) -> str | None:
        self.expression(node.test, names, guards)
        held, refuted = _guards(node.test)
        yes = self.expression(node.body, names, (*guards, *held))
        no = self.expression(node.orelse, names, (*guards, *refuted))
        return yes or no

    def chain(self, node: ast.BoolOp, names: dict[str, str], guards: tuple[Guard, ...]) -> str | None:
        kinds = []
        for value in node.values:
            kinds.append(self.expression(value, names, guards))
            guards = (*guards, *_guards(value)[isinstance(node.op, ast.Or)])
        return next((kind for kind in kinds if kind), None)

    def call(self, node: ast.Call, names: dict[str, str], guards: tuple[Guard, ...]) -> str | None:
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self.expression(argument.value if isinstance(argument, ast.Starred) else argument, names, guards)
        counts = (len(node.args), frozenset(keyword.arg or "**" for keyword in node.keywords))
        target = node.func
        if isinstance(target, ast.Name) and target.id not in names:
            return self.ours(target.id, node, names)
        if isinstance(target, ast.Attribute):
            owner = self.owner(target.value, names, guards)
            if owner == MODULE:
                return self.construct(node, target.attr, counts, guards)
            if owner:
                kind: Kind = "static" if owner.startswith(CLASS) else "call"
                self.use(node, owner.removeprefix(CLASS), target.attr, kind, guards, *counts)
                return self.library.returns(owner.removeprefix(CLASS), target.attr)
            if owner is None and isinstance(target.value, ast.Name) and target.value.id == "self":
                return self.functions.get(target.attr)
        made = self.expression(target, names, guards)
        if made and made.startswith(CLASS):
            return self.construct(node, made.removeprefix(CLASS), counts, guards)
        return None

    def ours(self, function: str, node: ast.Call, names: dict[str, str]) -> str | None:
        if function in self.library.loaders:
            return MODULE
        if function in ("getattr", "hasattr", "setattr") and node.args:
            kind = self.expression(node.args[0], dict(names), ())
            if kind is not None:
                self.found.unresolved.append(f"{self.file}:{node.lineno} {function} hides a name from this suite")
        return self.functions.get(function)

    def construct(
        self, node: ast.Call, name: str, counts: tuple[int, frozenset[str]], guards: tuple[Guard, ...]
    ) -> str | None:
        if name[:1].isupper():
            self.use(node, name, "__init__", "call", guards, *counts)
            return name
        self.use(node, "", name, "call", guards, *counts)
        return self.library.returns("", name)

    def owner(self, node: ast.expr, names: dict[str, str], guards: tuple[Guard, ...]) -> str | None:
        if isinstance(node, ast.Call) and ast.unparse(node) == "super()":
            return names.get("super()")
        return self.expression(node, names, guards)

    def attribute(self, node: ast.Attribute, names: dict[str, str], guards: tuple[Guard, ...]) -> str | None:
        owner = self.owner(node.value, names, guards)
        if owner == MODULE:
            if node.attr[:1].isupper():
                return CLASS + node.attr
            self.use(node, "", node.attr, "read", guards)
            return None
        if owner:
            self.use(node, owner.removeprefix(CLASS), node.attr, "read", guards)
            return None
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return self.attributes.get(node.attr)
        if node.attr in self.library.members - self.library.ordinary:
            self.found.unresolved.append(f"{self.file}:{node.lineno} {ast.unparse(node)}: annotate what it belongs to")
        return None

    def use(
        self,
        node: ast.AST,
        owner: str,
        member: str,
        kind: Kind,
        guards: tuple[Guard, ...],
        positional: int = 0,
        keywords: frozenset[str] = frozenset(),
    ) -> None:
        where = f"{self.file}:{getattr(node, 'lineno', 0)}"
        self.found.uses.append(Use(where, owner, member, kind, positional, keywords, guards))


def _pairs(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[tuple[ast.expr, ast.expr]]:
    """``a, b = x, y`` as (a, x), (b, y); empty for other assignments."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return []
    target = node.targets[0]
    if not isinstance(target, ast.Tuple) or len(target.elts) != len(node.value.elts):
        return []
    return list(zip(target.elts, node.value.elts, strict=True))


def _operands(node: ast.expr) -> list[ast.expr]:
    """The expressions inside one, comprehensions included."""
    return [
        child
        for part in ast.iter_child_nodes(node)
        for child in ([*part.ifs, part.iter] if isinstance(part, ast.comprehension) else [part])
        if isinstance(child, ast.expr)
    ]


def _guards(test: ast.expr) -> tuple[tuple[Guard, ...], tuple[Guard, ...]]:
    """What is known of ``has("…")`` where ``test`` is true, and where it is false."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        held, refuted = _guards(test.operand)
        return refuted, held
    if isinstance(test, ast.BoolOp):
        parts = [_guards(value) for value in test.values]
        joined = tuple(guard for part in parts for guard in part[isinstance(test.op, ast.Or)])
        return (joined, ()) if isinstance(test.op, ast.And) else ((), joined)
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "has" and len(test.args) == 1:
        name = test.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return ((name.value, True),), ((name.value, False),)
    return (), ()


def _leaves(body: list[ast.stmt]) -> bool:
    return isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))
