"""``engines pull``: a known public network, fetched, checked against its hash, with its manifest beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from engines.base import open_engine
from engines.console import stderr, stdout, track_bytes
from engines.errors import ModelError, UsageError
from engines.fetch import Wanted, fetch, is_whole
from engines.registry import KnownModel, Remote, find_model, known_models
from engines.spec import load_spec, write_spec

Notify = Callable[[str], None]


def pull_model(
    model: KnownModel, folder: Path, *, mirror: str | None = None, http: bool = False, notify: Notify = lambda _: None
) -> Path:
    """Have ``model`` with manifest and labels in ``folder``, and return the file's path.

    What is there with the right hash is not fetched again, and a manifest that is there and speaks of this file is
    left alone.

    Args:
        mirror: a folder of the web in which the files lie under their names; it is asked first.
        http: allow plain http; the hash decides either way.
        notify: told in words what is done.

    Raises:
        FetchError: no address gave a file.
        ModelError: a manifest is there that belongs to another file; nothing was fetched or changed then.
        UsageError: ``folder`` cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be made ({error.strerror or error}); give another folder with --to"
        ) from error
    path = folder / model.file
    has_manifest = path.with_name(f"{path.name}.json").exists()
    if has_manifest and load_spec(path).sha256 != model.sha256:
        raise ModelError(f"{path}.json: the manifest speaks of another file; remove it, and pull again")
    _have(model, path, path.name, mirror, http, notify)
    if has_manifest:
        return path
    labels = None
    if model.labels is not None:
        text = path.with_name(f"{path.name}.labels.txt")
        _have(model.labels, text, model.labels.urls[0].rpartition("/")[2], mirror, http, notify)
        labels = tuple(text.read_text(encoding="utf-8").splitlines())
    write_spec(path, model.spec(labels))
    return path


def _have(remote: Remote, path: Path, name: str, mirror: str | None, http: bool, notify: Notify) -> None:
    """Fetch one file unless it is there; ``name`` is how a mirror calls it."""
    wanted = Wanted(remote.size, remote.sha256)
    if is_whole(path, wanted):
        notify(f"{path}: already there, SHA-256 verified")
        return
    urls = (f"{mirror.rstrip('/')}/{quote(name)}", *remote.urls) if mirror else remote.urls
    with track_bytes(name, remote.size) as advance:
        fetch(urls, path, wanted, http=http, advance=advance)
    notify(f"{path}: {remote.size / 1e6:.1f} MB, SHA-256 verified")


def registry_table() -> Table:
    """Every known network for a terminal."""
    table = Table("name", "MB", "what it is", "licence", "SHA-256", box=None)
    for model in known_models():
        table.add_row(model.name, f"{model.size / 1e6:.1f}", model.about, model.licence, model.sha256[:12] + "…")
    return table


def pull(
    name: Annotated[str | None, typer.Argument(help="a name of --list", metavar="NAME")] = None,
    to: Annotated[Path, typer.Option(help="folder for network, manifest and labels")] = Path("models"),
    show: Annotated[bool, typer.Option("--list", help="show the known networks and fetch nothing")] = False,
    mirror: Annotated[str | None, typer.Option(help="https folder that holds the files, asked first")] = None,
    allow_http: Annotated[bool, typer.Option(help="plain http too; the hash is checked either way")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --list: one JSON array on stdout")] = False,
) -> None:
    """Fetch a known public network NAME, check its hash and write its manifest; a second time nothing is fetched."""
    if show:
        if as_json:
            typer.echo(json.dumps([model.model_dump(mode="json", by_alias=True) for model in known_models()], indent=2))
        else:
            stdout.print(registry_table())
        return
    if name is None:
        raise UsageError("which network? engines pull NAME; engines pull --list shows the names")
    model = find_model(name)
    path = pull_model(
        model,
        to,
        mirror=mirror,
        http=allow_http,
        notify=lambda words: stderr.print(words, markup=False, soft_wrap=True),
    )
    _try(path)
    typer.echo(path)


def _try(path: Path) -> None:
    """Say so at once where the network cannot be used on this machine as it is."""
    try:
        open_engine(path, "cpu").close()
    except ModelError as error:
        stderr.print(f"it is whole, but cannot be opened here: {error}", markup=False, soft_wrap=True)
