"""``calibrate review``: a local page for labelling pictures near the threshold, and the fit that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from calibrate.feature_cache import FeatureCache
from calibrate.options import Cache, DeviceOption, NoCache, Threads, chosen_cache
from calibrate.review_apply import WorseGateError, changes_table, worse_sentence
from calibrate.review_server import create_review
from calibrate.review_session import (
    CANDIDATE,
    Session,
    accept_candidate,
    apply_labels,
    load_session,
    make_queue,
    open_labels,
)
from edge.gate_file import load_gate
from edge.web import StatusPortError, build_server
from engines import Engine, UsageError, open_engine
from engines.base import Device
from engines.console import stderr


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(review)


def review(
    out: Annotated[Path, typer.Option(help="folder for the labels, the new gate and the comparison")],
    folders: Annotated[
        list[Path] | None, typer.Argument(help="folders of pictures without a label", metavar="FOLDER…")
    ] = None,
    gate: Annotated[Path | None, typer.Option(help="gate file")] = None,
    model: Annotated[Path | None, typer.Option(help="feature model with its manifest beside it")] = None,
    positives: Annotated[Path | None, typer.Option(help="the positives that the gate was fitted on")] = None,
    negatives: Annotated[
        list[Path] | None, typer.Option(help="negatives that the gate was fitted on; repeatable")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="questions at most")] = 120,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 0,
    apply: Annotated[
        bool, typer.Option("--apply", help="fit again with the labels in --out and compare with the gate before")
    ] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="with --apply: take the new gate though a family got worse")
    ] = False,
    cache: Cache = None,
    no_cache: NoCache = False,
    device: DeviceOption = "auto",
    threads: Threads = None,
) -> None:
    """Label pictures that the gate is unsure or wrong about, on a page of this machine; then fit again."""
    if apply:
        with open_engine(Path(load_session(out).model), cast(Device, device), threads=threads) as engine:
            _apply(out, accept, engine, chosen_cache(cache, no_cache, engine))
        return
    session = _session(gate, model, folders or [], positives, negatives or [])
    with open_engine(Path(session.model), cast(Device, device), threads=threads) as engine:
        loaded = load_gate(Path(session.gate), sha256=session.sha256, features=engine.spec)
        queue = make_queue(loaded, engine, session, limit, chosen_cache(cache, no_cache, engine))
    session.save(out)
    app = create_review(loaded, queue, open_labels(out), f"calibrate review --apply --out {out}")
    try:
        server = build_server(app, "127.0.0.1", port)
    except StatusPortError as error:
        raise UsageError(f"--port {port} is taken; leave it out to take a free one") from error
    stderr.print(f"{len(queue)} questions at {server.url}  (Ctrl-C ends; every label is saved at once)", soft_wrap=True)
    server.run()
    stderr.print(f"{len(open_labels(out).labels)} pictures labelled; then: calibrate review --apply --out {out}")


def _apply(out: Path, accept: bool, engine: Engine, cache: FeatureCache | None) -> None:
    session = load_session(out)
    gate = load_gate(Path(session.gate), sha256=session.sha256, features=engine.spec)
    changes = apply_labels(gate, engine, session, out, cache)
    stderr.print(changes_table(changes))
    sentence = worse_sentence(changes)
    if sentence and not accept:
        raise WorseGateError(f"{sentence}. It stays {out / CANDIDATE}; --accept takes it nevertheless")
    stderr.print(f"{accept_candidate(out)}", soft_wrap=True)


def _session(
    gate: Path | None, model: Path | None, folders: list[Path], positives: Path | None, negatives: list[Path]
) -> Session:
    if gate is None or model is None:
        raise UsageError("labelling needs --gate and --model (only --apply does without)")
    if not folders and positives is None:
        raise UsageError("nothing to look at: give folders of pictures, or --positives and --negatives of the gate")
    if negatives and positives is None:
        raise UsageError("--negatives are those that the gate was fitted on; give its --positives too")
    for folder in (*folders, *negatives, *([positives] if positives else [])):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; give a folder of pictures")
    digest = load_gate(gate).sha256
    return Session(
        str(gate.resolve()),
        str(model.resolve()),
        str(digest),
        tuple(str(folder.resolve()) for folder in folders),
        None if positives is None else str(positives.resolve()),
        tuple(str(folder.resolve()) for folder in negatives),
    )
