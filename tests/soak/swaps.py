"""Row 31: configurations and gates changed under load, broken ones among them."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import yaml

from edge.config import Config
from edge.config_file import load_config
from edge.gate_archive import read_arrays
from edge.gate_file import load_gate, save_gate
from edge.worker import Worker
from tests.edge.worker_process import MODELS, Camera, Verdicts, client, demo_config, small_pictures, wait_for
from tests.mosquitto import Broker
from tests.soak.ledger import Effort, Outcome

THRESHOLDS = (0.3, 0.7)
FPS = 100.0  # of each of two cameras


class Swapped:
    """A worker whose configuration file this process rewrites; each gate has a threshold of its own."""

    def __init__(self, folder: Path, url: str, models: Path = MODELS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._models = models
        self._path, self._url, self._folder = folder / "edge.yaml", url, folder
        gate = load_gate(MODELS / "gate.npz")
        arrays = read_arrays("gate", (MODELS / "gate.npz").read_bytes())
        arrays.pop("manifest")
        self.gates = [folder / f"gate-{n}.npz" for n in range(2)]
        names = [
            save_gate(path, gate.manifest.model_copy(update={"name": f"gate-{n}"}), arrays)
            for n, path in enumerate(self.gates)
        ]
        self.expected = {(f"sha256:{name}", threshold) for name, threshold in zip(names, THRESHOLDS, strict=True)}
        self.write(0)
        self.worker = Worker(self.read(), read=self.read)

    def write(self, turn: int, top: int = 3) -> None:
        gate = {"file": str(self.gates[turn]), "threshold": THRESHOLDS[turn]}
        engines = {"features": {"model": str(self._models / "features.onnx")}}
        engines["species"] = {"model": str(self._models / "species.onnx"), "top": top}
        boxed = {"policy": "every"}
        content = demo_config(self._url, gate=gate, mailbox=boxed, decode={"workers": 1}, status=None, **engines)
        self._path.write_text(yaml.safe_dump(content))

    def break_it(self, rng: random.Random) -> None:
        """One of the ways in which an operator, or a disk, spoils what is there."""
        self.write(rng.randrange(2))
        text = self._path.read_text()
        damaged = self._folder / "damaged.npz"
        data = bytearray(self.gates[0].read_bytes())
        data[rng.randrange(200, len(data) - 4000)] ^= 1
        damaged.write_bytes(data)
        broken = [
            text[: rng.randrange(1, len(text) - 20)] + "\n: [", text + "colour: red\n",
            text.replace("top: 3", "top: 0"),
            text.replace("worker: test-worker", "worker: other"), text.replace("gate-", "absent-"),
            text.replace(f"gate-{0 if 'gate-0' in text else 1}.npz", "damaged.npz"),
        ]  # fmt: skip
        self._path.write_text(rng.choice(broken))

    def read(self) -> Config:
        return load_config(self._path, {})

    def counts(self) -> tuple[int, int]:
        counters = self.worker.health.snapshot()["counters"]
        return counters["reloads"], counters["reload_failures"]


def swap(effort: Effort, models: Path = MODELS) -> Outcome:
    """Swap as fast as they load, every tenth of them broken, two cameras sending all the while."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    effort.folder.mkdir(parents=True, exist_ok=True)
    broker = Broker(effort.folder / "broker")
    broker.start()
    try:
        swapped = Swapped(effort.folder / "worker", broker.url, models)
        swapped.worker.start()
        wait_for(lambda: swapped.worker.health.ready()[0], 30, "readiness")
        pictures = small_pictures()
        with Verdicts(client(broker, "reader")) as verdicts:
            cameras = [Camera(client(broker, f"c{n}"), f"camera-{n}", FPS / 8, pictures=pictures) for n in range(2)]
            for camera in cameras:
                camera.__enter__()
            while effort.goes_on(outcome.done):
                _one_swap(swapped, rng, outcome)
            for camera in cameras:
                camera.finish()
            sent = {(camera.name, frame) for camera in cameras for frame in camera.accepted}
            wait_for(lambda: len(verdicts.by_frame) >= len(sent), 60, "a verdict for every frame")
        _judge(outcome, swapped, sent, verdicts)
        swapped.worker.stop()
    finally:
        broker.stop()
    return outcome


def _one_swap(swapped: Swapped, rng: random.Random, outcome: Outcome) -> None:
    good, bad = swapped.counts()
    broken = outcome.done % 10 == 9
    if broken:
        swapped.break_it(rng)
    else:
        swapped.write(outcome.done % 2, top=1 + outcome.done % 5)
    swapped.worker.reload()
    wait_for(lambda: swapped.counts() != (good, bad), 30, "the end of a reload")
    expected = (good, bad + 1) if broken else (good + 1, bad)
    outcome.demand(swapped.counts() == expected, "a broken configuration was taken" if broken else "a good one refused")
    outcome.add("broken ones refused" if broken else "swaps")
    outcome.done += 1


def _judge(outcome: Outcome, swapped: Swapped, sent: set[tuple[str, str]], verdicts: Verdicts) -> None:
    lost = sent - {(camera, frame or "") for camera, frame in verdicts.by_frame}
    outcome.demand(not lost, f"{len(lost)} frames have no verdict")
    kinds = Counter((verdict["gate"], verdict["threshold"]) for verdict in verdicts.all)
    outcome.demand(set(kinds) <= swapped.expected, f"verdicts of a mixture: {set(kinds) - swapped.expected}")
    errors = sum(verdict["verdict"] == "error" for verdict in verdicts.all)
    outcome.demand(not errors, f"{errors} error verdicts")
    outcome.add("frames", len(sent))


def swap_control(effort: Effort) -> str:
    """The gate exchanged under a running cascade, without its thresholds: what a swap in place would do."""
    effort.folder.mkdir(parents=True, exist_ok=True)
    swapped = Swapped(effort.folder / "worker", "mqtt://127.0.0.1:1")
    from edge.parts import load_parts
    from tests.edge.frames import raw_frame

    parts = load_parts(swapped.read())
    began = time.monotonic()
    other = load_gate(swapped.gates[1])
    parts.cascade._gate_name = f"sha256:{other.sha256}"
    (verdict,) = parts.cascade.judge([parts.decoder(raw_frame(payload=small_pictures()[0]))])
    parts.close()
    if (verdict.gate, verdict.threshold) in swapped.expected or time.monotonic() - began > 60:
        raise AssertionError("a mixture was not seen")
    return "a gate exchanged in place gives a verdict whose gate and threshold do not belong together: seen"
