"""Fit the demo's gate and measure the whole demo: ``python -m calibrate.demo_gate``.

The gate is fitted on fresh drawings (other seeds than the networks' training) and measured on frames of simulated
cameras, again of other seeds, through JPEG, decoding and both networks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from calibrate.fit import FitOptions, fit_gate
from calibrate.gather import gather
from calibrate.recipes import RobustRecipe
from edge.cascade import Cascade, Limits
from edge.decode import Decoder
from edge.demo.camera import encode_jpeg
from edge.demo.simulator import KINDS, SPECIES, Drawn, Simulator, draw
from edge.gate_file import load_gate, save_gate
from edge.picture import PictureOpener
from edge.records import Outcome, RawFrame, Ticket, Verdict
from engines import ImageLimits, open_engine
from engines.console import run_app, stderr, stdout, track

MODELS = Path(__file__).resolve().parent.parent / "edge" / "demo" / "models"
FRAME = (640, 480)
VIEWS = ("full",)

app = typer.Typer(add_completion=False)


@app.command()
def main(
    models: Annotated[Path, typer.Option(help="Folder with the networks; the gate is written there.")] = MODELS,
    seed: Annotated[int, typer.Option(help="Seed of the drawings that the gate is fitted on.")] = 100_000,
    per_kind: Annotated[int, typer.Option(min=10, help="Drawings of each kind for the gate.")] = 120,
    only_measure: Annotated[bool, typer.Option(help="Keep the gate that is there.")] = False,
    measure_seed: Annotated[int, typer.Option(help="Seed of the first simulated camera.")] = 500_000,
    cameras: Annotated[int, typer.Option(min=1)] = 40,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each camera.")] = 150,
) -> None:
    """Fit the gate on drawings, then measure networks and gate on fresh frames."""
    if not only_measure:
        digest = fit(models, seed, per_kind)
        stderr.print(f"gate.npz: sha256:{digest}", soft_wrap=True)
    stdout.print(table(measure(models, measure_seed, cameras, frames)))


def fit(models: Path, seed: int, per_kind: int) -> str:
    """Write ``gate.npz`` beside the networks, fitted on ``per_kind`` drawings of each kind; returns its SHA-256.

    The five parrots share one folder: the demo never meets a sixth, so no fold has to hold a whole kind out. Every
    other kind has a folder of its own, and the held-out figures are those of kinds that the fold did not know.
    """
    with TemporaryDirectory() as folder, open_engine(models / "features.onnx", "cpu") as engine:
        positives, negatives = draw_folders(Path(folder), seed, per_kind)
        recipe = RobustRecipe()
        samples = gather(engine, positives, [negatives], VIEWS, normalise=recipe.normalise)
        fitted = fit_gate(samples, engine.spec, recipe, FitOptions(views=VIEWS))
    return save_gate(models / "gate.npz", fitted.manifest, fitted.arrays)


def draw_folders(folder: Path, seed: int, per_kind: int) -> tuple[Path, Path]:
    """JPEGs in ``folder``: all parrots in ``parrots/``, every other kind in ``others/<kind>/``; returns both."""
    positives, negatives = folder / "parrots", folder / "others"
    rng = np.random.default_rng(seed)
    for kind in track(KINDS, "drawing"):
        home = positives if kind in SPECIES else negatives / kind
        home.mkdir(parents=True, exist_ok=True)
        for number in range(per_kind):
            jpeg = encode_jpeg(draw(kind, rng, *FRAME), int(rng.integers(70, 93)))
            (home / f"{kind}-{number:04}.jpg").write_bytes(jpeg)
    return positives, negatives


@dataclass(frozen=True)
class Count:
    """What became of one kind's frames: how many there were, were accepted, and were named rightly."""

    frames: int = 0
    accepted: int = 0
    named: int = 0


def measure(models: Path, seed: int, cameras: int, frames: int) -> dict[str, Count]:
    """Judge ``frames`` frames of each of ``cameras`` simulated cameras with the worker's own decoder and cascade.

    Returns a count for every kind that came. Seeds ``seed`` to ``seed + cameras - 1``.
    """
    counts: dict[str, Count] = {}
    with (
        open_engine(models / "features.onnx", "cpu") as features,
        open_engine(models / "species.onnx", "cpu") as species,
    ):
        gate = load_gate(models / "gate.npz", features=features.spec)
        cascade = Cascade(
            features, gate, species, worker="measure", limits={None: Limits(gate.threshold)}, top=1,
            clock=time.monotonic, wall=time.time,
        )  # fmt: skip
        size = features.spec.input
        decoder = Decoder(PictureOpener(size, (size.height, size.width), ImageLimits()), max_bytes=1 << 22)
        for camera in track(range(cameras), "measuring"):
            simulator = Simulator(f"camera{camera}", seed + camera)
            drawn = [simulator.next() for _ in range(frames)]
            raw = [RawFrame("measure", one.jpeg, Ticket(0, 0, 0, 0), time.monotonic()) for one in drawn]
            for one, verdict in zip(drawn, cascade.judge([decoder(frame) for frame in raw]), strict=True):
                counts[one.kind] = _counted(counts.get(one.kind, Count()), one, verdict)
    return counts


def _counted(count: Count, drawn: Drawn, verdict: Verdict) -> Count:
    accepted = verdict.verdict is Outcome.POSITIVE
    named = accepted and drawn.species is not None and verdict.species[0].label == drawn.species
    return Count(count.frames + 1, count.accepted + accepted, count.named + named)


def table(counts: Mapping[str, Count]) -> Table:
    """The counts as a table: recall and species for parrots, false accepts for the rest, and the sums."""
    parrots = [count for kind, count in counts.items() if kind in SPECIES]
    others = [count for kind, count in counts.items() if kind not in SPECIES]
    shown = Table("kind", "frames", "accepted", "named rightly", title="The demo's networks and gate on fresh frames")
    for kind in (kind for kind in KINDS if kind in counts):
        _row(shown, kind, counts[kind], kind in SPECIES)
    shown.add_section()
    _row(shown, "all parrots (recall)", _total(parrots), True)
    _row(shown, "all others (false accepts)", _total(others), False)
    return shown


def _row(shown: Table, name: str, count: Count, parrot: bool) -> None:
    accepted = f"{count.accepted / max(1, count.frames):.1%}"
    named = f"{count.named / max(1, count.accepted):.1%}" if parrot else ""
    shown.add_row(name, str(count.frames), accepted, named)


def _total(counts: Iterable[Count]) -> Count:
    counts = list(counts)
    return Count(*(sum(getattr(count, field.name) for count in counts) for field in fields(Count)))


if __name__ == "__main__":
    run_app(app, "python -m calibrate.demo_gate")
