"""``engines fuse``: a model that takes plain pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engines.console import stderr
from engines.errors import ModelError, UsageError
from engines.spec import load_spec


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("fuse")(fuse_command)


def fuse_command(
    model: Annotated[Path, typer.Argument(help="ONNX model with its manifest beside it", metavar="MODEL")],
    out: Annotated[Path | None, typer.Option(help="ONNX file to write; default: MODEL's name with .uint8")] = None,
) -> None:
    """Put cast, normalisation and NHWC -> NCHW into MODEL's graph, so that its input is uint8 pixels.

    Gates fitted on MODEL serve the new file too: both have one origin.
    """
    from engines.onnx_fuse import fuse_uint8
    from engines.onnx_graph import read_graph, write_model

    target = out or default_target(model)
    refuse_stranger(target, model)
    graph, spec = fuse_uint8(*read_graph(model))
    written = write_model(target, graph, spec)
    height, width = spec.input.height, spec.input.width
    stderr.print(
        f"{target}: {3 * height * width / 1e3:.0f} kB a picture instead of {12 * height * width / 1e3:.0f}, "
        f"sha256 {written.sha256[:16]}…",
        soft_wrap=True,
    )


def default_target(model: Path) -> Path:
    """Where the fused form of ``model`` goes."""
    return model.with_name(f"{model.stem}.uint8.onnx")


def write_fused(model: Path, plan: Path | None) -> Path:
    """The form of ``model`` that takes pixels, written beside the ``plan`` that is to be built from it (None: beside
    ``model``); ``model`` itself where it takes pixels already.

    Raises ``UsageError`` where another model lies there.
    """
    spec = load_spec(model)
    if spec.input.dtype == "uint8":
        return model
    target = default_target(model) if plan is None else plan.with_suffix(".onnx")
    fuse_command(model, target)
    return target


def refuse_stranger(target: Path, model: Path) -> None:
    """Raise ``UsageError`` if anything but an earlier uint8 form of ``model`` lies at ``target``."""
    if target.resolve() == model.resolve():
        raise UsageError(f"{target}: is the float32 model itself; name another --out")
    if not _may_replace(target, load_spec(model).origin):
        raise UsageError(f"{target}: is there, and not as the uint8 form of {model}; remove it, or name another --out")


def _may_replace(target: Path, origin: str) -> bool:
    """Whether nothing lies at ``target``, or an earlier uint8 form of the model of ``origin``."""
    if not target.exists():
        return True
    try:
        found = load_spec(target)
    except ModelError:
        return False
    return found.origin == origin and found.input.dtype == "uint8"
