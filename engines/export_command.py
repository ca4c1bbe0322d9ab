"""``engines export``: a torch network as a feature engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engines.console import stderr
from engines.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("export")(export_command)


def export_command(
    name: Annotated[str, typer.Argument(help="network, as resnet50 or resnet18", metavar="NAME")],
    out: Annotated[Path, typer.Option(help="ONNX file to write")],
    library: Annotated[str, typer.Option("--from", help="torchvision or timm")] = "torchvision",
    weights: Annotated[
        str, typer.Option(help="default (fetched by the library), a file of weights, or random (for trials)")
    ] = "default",
    classifier: Annotated[bool, typer.Option("--classifier", help="keep the last layer: logits of classes")] = False,
    resize: Annotated[str, typer.Option(help="stretch (loses nothing at the edges), crop or letterbox")] = "stretch",
    size: Annotated[int | None, typer.Option(min=32, help="side of the input; default: what it was made for")] = None,
) -> None:
    """Export a network of torchvision or timm, without its classifier, and show that it answers as torch does."""
    if library not in ("torchvision", "timm") or resize not in ("stretch", "crop", "letterbox"):
        raise UsageError(
            f"--from takes torchvision or timm, --resize stretch, crop or letterbox; got {library} and {resize}"
        )
    from engines.torch_export import ExportOptions, export

    options = ExportOptions(library, weights, classifier, resize, size)  # type: ignore[arg-type]  # checked above
    spec, difference = export(name, out, options)
    stderr.print(
        f"{out}: {spec.output.size} {spec.output.kind}, {out.stat().st_size / 1e6:.1f} MB, "
        f"within {difference:.1g} of torch; {spec.source}",
        soft_wrap=True,
    )
