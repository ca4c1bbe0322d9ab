"""The documents keep their word: commands, flags, links, configuration and JSON in them are real."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from edge.config_file import load_config
from edge.verdict import verdict_schema

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
ROOMS = ("edge", "engines", "calibrate", "deploy")


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


def commands() -> list[str]:
    """Each line of a shell block that calls make or a room, and each such call in the running text."""
    texts = {document: (ROOT / document).read_text() for document in DOCUMENTS}
    lines = [line for document in DOCUMENTS for block in blocks(document, "sh") for line in block.splitlines()]
    inline = [word for text in texts.values() for word in re.findall(r"`([^`\n]+)`", text)]
    calls = [line.split(" #")[0].rstrip(" &") for line in lines + inline]
    return sorted({call for call in calls if re.match(rf"(make|{'|'.join(ROOMS)}) [a-z]", call)})


def made_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The click command that the words name, and the words after its name."""
    command: Any = typer.main.get_command(importlib.import_module(f"{words[0]}.__main__").app)
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@pytest.mark.parametrize("call", commands())
def test_command_in_the_documents_exists_with_its_options(call: str) -> None:
    words = shlex.split(call)
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= made_targets()
        return
    command, rest = find_command(words)
    assert not hasattr(command, "commands"), f"{words[1]} is no command of {words[0]}"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", re.sub(r"<!--.*?-->", "", (ROOT / document).read_text(), flags=re.S))
    assert links
    assert not [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]


@pytest.mark.parametrize("text", blocks("README.md", "yaml"))
def test_configuration_in_the_readme_loads(tmp_path: Path, text: str) -> None:
    (tmp_path / "edge.yaml").write_text(text)
    load_config(tmp_path / "edge.yaml", {})


def test_readme_lists_every_key_with_its_default(tmp_path: Path) -> None:
    full = next(text for text in blocks("README.md", "yaml") if "share_group" in text)
    (tmp_path / "edge.yaml").write_text(full)
    listed = load_config(tmp_path / "edge.yaml", {})
    for name in type(listed).model_fields:
        section = getattr(listed, name)
        keys = set(getattr(type(section), "model_fields", {}))
        assert keys <= getattr(section, "model_fields_set", set()), name
    small = {"worker": "orin-07", "features": listed.features, "gate": listed.gate, "species": listed.species}
    assert listed == type(listed).model_validate({**small, "cameras": listed.cameras})


@pytest.mark.parametrize("text", blocks("README.md", "json"))
def test_json_in_the_readme_is_json(text: str) -> None:
    assert json.loads(text)


def test_verdict_in_the_readme_shows_every_field() -> None:
    shown = json.loads(next(text for text in blocks("README.md", "json") if "parrotgate.verdict/1" in text))
    assert set(shown) == set(verdict_schema()["properties"])
