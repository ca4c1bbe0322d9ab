"""From a YAML file and ``EDGE_SECTION__KEY`` variables to a checked ``Config``; the only file that imports yaml.

Values of variables are read as YAML, so that ``EDGE_GATE__ABSTAIN='[0.4, 0.6]'`` and ``EDGE_GATE__THRESHOLD=null``
mean what they look like; where text is expected, ``EDGE_MQTT__USERNAME=0123`` stays text.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edge.config import CameraConfig, Config, MqttConfig, Section
from edge.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 12
MAX_PASSWORD_BYTES = 4096
ENV_PREFIX = "EDGE_"
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"

_LAST = 1 << 31  # variables are reported after the file's lines
KeyPath = tuple[str, ...]
log = logging.getLogger(__name__)


def load_config(path: Path | str, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in the YAML file ``path``, overridden by the ``EDGE_*`` variables of ``environ``.

    Relative paths, in the file and in variables, are relative to the file's folder. Raises ConfigError with every
    fault at once: each names its line, or its variable, and what to do.
    """
    source = _Source()
    data = _read_file(Path(path), source)
    _apply_environment(data, environ, source)
    try:
        config = Config.model_validate(data, context={"folder": Path(path).absolute().parent})
    except ValidationError as error:
        source.faults += [_explain(dict(fault), source) for fault in error.errors(include_url=False)]
    if source.faults:
        unique = sorted(set(source.faults), key=lambda fault: (fault.line, fault.sentence))
        raise ConfigError(str(path), [fault.sentence for fault in unique])
    return config


def config_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the configuration file."""
    return {"$schema": SCHEMA_ID, **Config.model_json_schema(), "title": "Parrotgate worker configuration"}


def read_password(mqtt: MqttConfig) -> str | None:
    """The broker password from ``mqtt.password_file``, less one newline at its end; None when no file is named.

    Logs a warning when other users may read the file. Raises ConfigError when it cannot be used.
    """
    if mqtt.password_file is None:
        return None
    path = mqtt.password_file
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_PASSWORD_BYTES + 1)
        password = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ConfigError(str(path), [f"mqtt.password_file cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), ["mqtt.password_file should be UTF-8 text"]) from error
    if not password or len(data) > MAX_PASSWORD_BYTES:
        raise ConfigError(str(path), [f"mqtt.password_file should hold 1 to {MAX_PASSWORD_BYTES} bytes of password"])
    if mode & stat.S_IROTH:
        log.warning("password file %s can be read by every user: chmod 600 it", path)
    return password


@dataclass(frozen=True)
class _Fault:
    line: int
    sentence: str


@dataclass
class _Source:
    """Where each value came from, and the faults found on the way."""

    lines: dict[KeyPath, int] = field(default_factory=dict)
    variables: dict[KeyPath, str] = field(default_factory=dict)
    faults: list[_Fault] = field(default_factory=list)

    def fault(self, path: KeyPath, text: str) -> _Fault:
        """A fault at ``path`` or, when that is not written anywhere, at the nearest section that is."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.variables:
                return _Fault(_LAST, f"{self.variables[path[:length]]}: {text}")
            if path[:length] in self.lines:
                return self.at(self.lines[path[:length]], text)
            below = [name for key, name in self.variables.items() if length and key[:length] == path[:length]]
            if below:
                return _Fault(_LAST, f"{below[0]}: {text}")
        return _Fault(0, text)

    def at(self, line: int, text: str) -> _Fault:
        return _Fault(line, f"line {line}: {text}")


class _Refusal(yaml.YAMLError):
    """YAML that is well-formed but not taken."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem)
        self.problem = problem
        self.problem_mark = mark


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, which can multiply a small file into gigabytes, and without deep nests."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]  # untyped in types-PyYAML
        if isinstance(event, yaml.AliasEvent):
            raise _Refusal("aliases (*name) are not taken: write the value out", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _Refusal("nested too deep", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _read_file(path: Path, source: _Source) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(str(path), [f"the file is larger than {MAX_BYTES >> 20} MiB: this is no configuration"])
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(str(path), [f"the file cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"the file should be UTF-8 text: byte {error.start} is not"]) from error
    try:
        tree = _parse(text, source)
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [_syntax_fault(error)]) from error
    if not isinstance(tree, dict):
        raise ConfigError(str(path), ["the file should hold keys and values, such as `worker: box-1`"])
    return tree


def _parse(text: str, source: _Source) -> Any:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        return None if root is None else _construct(loader, root, (), source)
    finally:
        loader.dispose()


def _syntax_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}: {problem}" if mark is not None else problem


def _construct(loader: _Loader, node: yaml.Node, path: KeyPath, source: _Source) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(loader, node, path, source)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, str(i)), source) for i, item in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except ValueError as error:  # a date such as 2026-13-45
        raise _Refusal(str(error), node.start_mark) from error


def _construct_mapping(loader: _Loader, node: yaml.MappingNode, path: KeyPath, source: _Source) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            source.faults.append(source.at(line, "a key should be plain text"))
            continue
        key = key_node.value  # as written: a camera may be called 1 or on
        below = (*path, key)
        if key in values:
            first = source.lines[below]
            source.faults.append(source.at(line, f"'{'.'.join(below)}' stands here again, first on line {first}"))
            continue
        source.lines[below] = line
        values[key] = _construct(loader, value_node, below, source)
    return values


def _apply_environment(data: dict[str, Any], environ: Mapping[str, str], source: _Source) -> None:
    """Write each ``EDGE_*`` variable over ``data``; whole sections first, so that single keys win over them."""
    names = sorted((name for name in environ if name.startswith(ENV_PREFIX)), key=lambda name: (name.count("__"), name))
    for name in names:
        path = _path_of(name)
        problem = _unknown_variable(name, path)
        if problem is not None:
            source.faults.append(_Fault(_LAST, f"{name}: {problem}"))
        elif path in _KEYS or path[:1] == ("cameras",):
            _override(data, path, name, environ[name], source)


def _override(data: dict[str, Any], path: KeyPath, name: str, text: str, source: _Source) -> None:
    try:
        value = _parse(text, _Source())
    except yaml.YAMLError as error:
        value = text if _is_text(path) else None
        if value is None:
            source.faults.append(_Fault(_LAST, f"{name}: {_syntax_fault(error)}"))
            return
    if value is not None and _is_text(path):
        value = text
    place = data
    for key in path[:-1]:
        below = place.get(key)
        place[key] = below if isinstance(below, dict) else {}
        place = place[key]
    place[path[-1]] = value
    source.variables[path] = name


def _path_of(name: str) -> KeyPath:
    """The key path that a variable speaks of; the name of a camera keeps its case."""
    first, *rest = name.removeprefix(ENV_PREFIX).split("__")
    if first.lower() == "cameras" and rest:
        camera, *keys = "__".join(rest).rsplit("__", 1) if rest[1:] else rest
        return ("cameras", camera, *(key.lower() for key in keys))
    return (first.lower(), *(key.lower() for key in rest))


def _unknown_variable(name: str, path: KeyPath) -> str | None:
    """What is wrong with a variable's name; None for a key of ours, and for names that are clearly not meant for us.

    Kubernetes sets EDGE_PORT and the like in every pod beside a service called edge: only a name with a double
    underscore, or close to one of ours, is taken for a mistake.
    """
    if path in _KEYS or path[0] == "cameras":
        return None
    known = {ENV_PREFIX + "__".join(key).upper() for key in _KEYS}
    single = {variable.replace("__", "_"): variable for variable in known}
    close = [single[name]] if name in single else difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.85)
    if close:
        return f"no such key; did you mean {close[0]}?"
    return "no such key; `edge schema config` lists them" if len(path) > 1 else None


def _keys(model: type[Section], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, info in model.model_fields.items():
        yield (*path, name), info.annotation
        section = _section_of(info.annotation)
        if section is not None:
            yield from _keys(section, (*path, name))


def _section_of(annotation: Any) -> type[Section] | None:
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, Section) and option is not CameraConfig:
            return option
    return None


_KEYS: dict[KeyPath, Any] = dict(_keys(Config))


def _is_text(path: KeyPath) -> bool:
    """Whether the key takes any text, so that a number in a variable is text too."""
    return bool(re.search(r"\bstr\b|Path", str(_KEYS.get(path)))) and not re.search(
        "Literal|dict", str(_KEYS.get(path))
    )


def _explain(fault: dict[str, Any], source: _Source) -> _Fault:
    """pydantic's finding as our sentence."""
    is_key = fault["loc"][-1:] == ("[key]",)
    path = tuple(str(part) for part in fault["loc"] if part != "[key]") + tuple(fault.get("ctx", {}).get("below", ()))
    dotted = ".".join(path)
    if fault["type"] == "extra_forbidden":
        return source.fault(path, f"unknown key '{dotted}'{_suggestion(path)}")
    if fault["type"] == "missing":
        return source.fault(path, f"'{dotted}' is missing: {_meaning(path)}")
    if is_key:
        text = f"the camera name '{path[-1]}' should be 1 to 64 letters, digits, _ or -, and not start with _"
        return source.fault(path, text)
    if fault["type"] == "string_pattern_mismatch":
        return source.fault(path, f"{dotted} {_shown(fault['input'])} does not fit: {_meaning(path)}")
    problem = _PROBLEMS.get(fault["type"], fault["msg"].removeprefix("Value error, ").replace("Input should", "should"))
    return source.fault(path, f"{dotted} {problem}, not {_shown(fault['input'])}")


_PROBLEMS = {
    "string_type": "should be text (quote it)",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "path_type": "should be the path of a file",
    "tuple_type": "should be a list such as [0.4, 0.6]",
    "dict_type": "should hold keys and values",
    "model_type": "should hold keys and values",
}


def _shown(value: Any) -> str:
    """The value as it came, shortened, and without a password that stands in a URL."""
    text = re.sub(r"//[^/\s]*@", "//…@", "null" if value is None else repr(value))
    return text if len(text) <= 60 else text[:59] + "…"


def _suggestion(path: KeyPath) -> str:
    siblings = sorted(key[-1] for key in _KEYS if key[:-1] == path[:-1])
    if path[0] == "cameras":
        siblings = sorted(CameraConfig.model_fields)
    close = difflib.get_close_matches(path[-1].lower(), siblings, n=1, cutoff=0.6)
    elsewhere = [".".join(key) for key in _KEYS if key[-1] == path[-1] and key != path]
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; did you mean '{elsewhere[0]}'?" if elsewhere else f"; here stand {', '.join(siblings)}"


def _meaning(path: KeyPath) -> str:
    model: type[Section] = Config
    for name in path[:-1]:
        model = _section_of(model.model_fields[name].annotation) or model
    return " ".join((model.model_fields[path[-1]].description or "").split())
