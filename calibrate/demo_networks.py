"""Train the demo's two networks on drawings: ``python -m calibrate.demo_networks`` (extra ``train``).

Both are small residual networks after He et al., "Deep Residual Learning for Image Recognition" (2016): a strided
stem, four stages of one basic block, global average pooling. ``features`` learns to tell all thirteen kinds of
drawing apart, the hard negatives included, and is cut before its last layer; ``species`` tells the five parrots
apart. So the feature network has met the *kinds* that the demo's gate rejects, though never the pictures that the
gate is fitted or measured on: those come from other seeds. Both know drawings only.

Everything random is seeded; on another processor or torch version the weights still differ in the last digits.
The gate and the measurements are ``python -m calibrate.demo_gate``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import typer
from torch import nn
from torch.nn import functional

from calibrate.demo_gate import FRAME, MODELS
from edge.demo.camera import encode_jpeg
from edge.demo.simulator import KINDS, SPECIES, draw
from engines import (
    InputSpec,
    ModelError,
    ModelSpec,
    OutputSpec,
    decode_image,
    open_engine,
    prepare_input,
    write_spec,
)
from engines.console import run_app, stderr, track

WIDTHS = (24, 48, 96, 128)
FEATURES = WIDTHS[-1]
INPUT = InputSpec(layout="NCHW", height=112, width=112, mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25))
SIZES = (FRAME, (320, 240))  # half of the drawings are small: sharper, noisier and four times as fast
TOLERANCE = 1e-4
_OPSET = 17
_SOURCE = "trained on drawings by python -m calibrate.demo_networks"

app = typer.Typer(add_completion=False)


class BasicBlock(nn.Module):  # type: ignore[misc, unused-ignore]  # torch need not be installed where mypy runs
    """Two 3x3 convolutions beside a shortcut: (n, c_in, h, w) -> (n, c_out, h / stride, w / stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Any) -> Any:
        """Residual plus shortcut, rectified."""
        return functional.relu(self.residual(x) + self.shortcut(x))


def resnet(classes: int) -> Any:
    """(n, 3, 112, 112) -> (n, classes) logits; all but the last layer gives (n, ``FEATURES``)."""
    stem = [
        nn.Conv2d(3, WIDTHS[0], 5, 2, 2, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    ]
    c_in = (WIDTHS[0], *WIDTHS)
    stages = [BasicBlock(c_in[i], width, stride=1 if i == 0 else 2) for i, width in enumerate(WIDTHS)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FEATURES, classes))


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for the two ONNX files and their manifests.")] = MODELS,
    seed: Annotated[int, typer.Option(help="Seed of drawings and training.")] = 7,
    per_kind: Annotated[int, typer.Option(min=20, help="Drawings of each kind.")] = 420,
    epochs: Annotated[int, typer.Option(min=1)] = 9,
) -> None:
    """Draw, train both networks and export them."""
    torch.manual_seed(seed)
    batch, kinds = draw_batch(per_kind, seed)
    labels = torch.tensor([KINDS.index(kind) for kind in kinds])
    is_parrot = labels < len(SPECIES)
    network = resnet(len(KINDS))
    fit(network, batch, labels, epochs, "features")
    export(network[:-1], out / "features.onnx", OutputSpec(kind="features", size=FEATURES))
    network = resnet(len(SPECIES))
    fit(network, batch[is_parrot], labels[is_parrot], epochs, "species")
    logits = OutputSpec(kind="logits", size=len(SPECIES))
    export(network, out / "species.onnx", logits, tuple(SPECIES.values()))


def draw_batch(per_kind: int, seed: int) -> tuple[Any, list[str]]:
    """Drawings as the engines will see them: uint8 tensor (n, 3, 112, 112) and the kind of each."""
    rng = np.random.default_rng(seed)
    kinds = list(KINDS) * per_kind
    rows = [_row(kind, SIZES[i // len(KINDS) % len(SIZES)], rng) for i, kind in enumerate(track(kinds, "drawing"))]
    return torch.from_numpy(np.stack(rows)), kinds


def _row(kind: str, size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[Any]:
    jpeg = encode_jpeg(draw(kind, rng, *size), int(rng.integers(70, 93)))
    decoded = decode_image(jpeg, minimum=(INPUT.height, INPUT.width))
    return prepare_input(decoded.pixels, INPUT.model_copy(update={"dtype": "uint8"}))


def fit(network: Any, pixels: Any, labels: Any, epochs: int, name: str, batch: int = 64) -> None:
    """Train ``network`` in place on ``pixels`` uint8 (n, 3, h, w) and ``labels`` int64 (n,)."""
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    network.train().to(memory_format=torch.channels_last)
    order = torch.cat([torch.randperm(len(labels))[: len(labels) // batch * batch] for _ in range(epochs)])
    loss = torch.zeros(())
    for chosen in track(order.split(batch), f"training {name}", steps):
        logits = network(augment(pixels[chosen]).contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    stderr.print(f"{name}: last loss {loss.item():.3f}")


def augment(pixels: Any) -> Any:
    """Mirror, shift, light, grey and noise: uint8 (n, 3, h, w) -> normalised float32 of the same shape."""
    n, _, height, width = pixels.shape
    x = pixels.float() / 255
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.08, x.mean(1, keepdim=True), x)
    top, left = (int(shift) for shift in torch.randint(0, 13, (2,)))
    x = functional.pad(x, (6, 6, 6, 6), mode="reflect")[:, :, top : top + height, left : left + width]
    x = x * (1 + 0.15 * torch.randn(n, 1, 1, 1)) + 0.03 * torch.rand(n, 1, 1, 1) * torch.randn_like(x)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (INPUT.mean, INPUT.std))
    return (x.clamp(0, 1) - mean) / std


def export(network: Any, path: Path, output: OutputSpec, labels: tuple[str, ...] | None = None) -> None:
    """Write ``path`` and its manifest, with BatchNorm folded and a dynamic batch, and prove it equal to torch.

    Raises:
        ModelError: ONNX Runtime's answers differ from torch's by more than ``TOLERANCE``.
    """
    network.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.randn(3, *INPUT.shape, generator=torch.Generator().manual_seed(0))
    dynamic = {"input": {0: "batch"}, "output": {0: "batch"}}
    torch.onnx.export(
        network, (example,), path, input_names=["input"], output_names=["output"], dynamic_axes=dynamic,
        opset_version=_OPSET, dynamo=False,
    )  # fmt: skip
    onnx.checker.check_model(onnx.load(path), full_check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = ModelSpec(
        name=f"demo-{path.stem}", task="features" if output.kind == "features" else "classifier", input=INPUT,
        output=output, labels=labels, sha256=digest, origin=digest, source=_SOURCE, licence="Apache-2.0",
    )  # fmt: skip
    write_spec(path, spec)
    _compare(network, path, example)


def _compare(network: Any, path: Path, example: Any) -> None:
    with torch.no_grad():
        expected: npt.NDArray[np.float32] = network(example).numpy()
    with open_engine(path, device="cpu") as engine:
        difference = float(np.abs(engine.infer(example.numpy()) - expected).max())
    if difference > TOLERANCE:
        raise ModelError(f"{path}: differs from torch by {difference:.2g}, at most {TOLERANCE:g} is allowed")
    stderr.print(f"{path.name}: {path.stat().st_size / 2**20:.2f} MiB, within {difference:.1g} of torch")


if __name__ == "__main__":
    run_app(app, "python -m calibrate.demo_networks")
