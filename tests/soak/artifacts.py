"""Row 27: pinned gates, manifests and networks with bits flipped, cut, swapped, linked or exchanged while read."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime  # the control loads what nobody has checked

from edge.gate_file import load_gate
from engines import ParrotgateError, open_engine
from engines.spec import load_spec, manifest_path, manifest_sha256
from tests.edge.worker_process import MODELS
from tests.soak.ledger import Effort, Outcome

KEPT = ("gate.npz", "features.onnx", "features.onnx.json", "species.onnx.labels.txt")


class Pinned:
    """A copy of the demo's artifacts whose every file is pinned; ``load`` opens the one that a file belongs to."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(MODELS, folder)
        self.folder = folder
        self._gate = load_gate(folder / "gate.npz").sha256
        self._models = {name: load_spec(folder / f"{name}.onnx").sha256 for name in ("features", "species")}
        self._manifests = {name: manifest_sha256(folder / f"{name}.onnx") for name in self._models}

    def load(self, file: str) -> object:
        if file == "gate.npz":
            return load_gate(self.folder / file, sha256=self._gate)
        name = file.split(".")[0]
        pins = {"sha256": self._models[name], "manifest_sha256": self._manifests[name]}
        if file.endswith(".onnx"):
            return open_engine(self.folder / file, "cpu", threads=1, **pins)
        return load_spec(self.folder / f"{name}.onnx", manifest_sha256=self._manifests[name])

    def refuses(self, file: str) -> bool:
        try:
            self.load(file)
        except ParrotgateError:
            return True
        return False


def integrity(effort: Effort) -> Outcome:
    """Mostly single bits; every hundredth time a cut, a swap, a link or an exchange while the file is read."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    pinned = Pinned(effort.folder / "models")
    contents = {file: (pinned.folder / file).read_bytes() for file in KEPT}
    for file in KEPT:
        pinned.load(file)  # unharmed, each is taken
    others: list[Callable[[Pinned, dict[str, bytes], random.Random], Iterator[tuple[str, bool]]]]
    others = [cuts, swaps, links, races]
    while effort.goes_on(outcome.done):
        file = rng.choice(KEPT)
        data = bytearray(contents[file])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (pinned.folder / file).write_bytes(data)
        outcome.demand(pinned.refuses(file), f"a bit of {file} was changed unseen")
        (pinned.folder / file).write_bytes(contents[file])
        outcome.add("bits")
        outcome.done += 1
        if outcome.done % 100 == 0:
            for what, refused in others[outcome.done // 100 % len(others)](pinned, contents, rng):
                outcome.demand(refused, f"{what}: accepted")
                outcome.add("cuts, swaps, links and races")
    return outcome


def cuts(pinned: Pinned, contents: dict[str, bytes], rng: random.Random) -> Iterator[tuple[str, bool]]:
    for file, data in contents.items():
        (pinned.folder / file).write_bytes(data[: rng.randrange(len(data))])
        yield f"{file} cut", pinned.refuses(file)
        (pinned.folder / file).write_bytes(data)


def swaps(pinned: Pinned, contents: dict[str, bytes], rng: random.Random) -> Iterator[tuple[str, bool]]:
    for file in contents:
        other = rng.choice([name for name in contents if name != file])
        (pinned.folder / file).write_bytes(contents[other])
        yield f"{other} in the place of {file}", pinned.refuses(file)
        (pinned.folder / file).write_bytes(contents[file])
    manifest, other_manifest = (manifest_path(pinned.folder / f"{name}.onnx") for name in ("features", "species"))
    kept = manifest.read_bytes()
    manifest.write_bytes(other_manifest.read_bytes())
    yield "another network's manifest", pinned.refuses("features.onnx")
    manifest.write_bytes(kept)


def links(pinned: Pinned, contents: dict[str, bytes], rng: random.Random) -> Iterator[tuple[str, bool]]:
    for file in contents:
        path, elsewhere = pinned.folder / file, pinned.folder / "elsewhere"
        elsewhere.write_bytes(contents[file][:-1] + b"?")
        path.unlink()
        path.symlink_to(elsewhere)
        yield f"{file} linked to another", pinned.refuses(file)
        path.unlink()
        path.write_bytes(contents[file])


def races(pinned: Pinned, contents: dict[str, bytes], rng: random.Random) -> Iterator[tuple[str, bool]]:
    """A hand that exchanges the gate for another all the time: what loads judges as the pinned one does."""
    path, x = (
        pinned.folder / "gate.npz",
        np.ones((2, load_gate(MODELS / "gate.npz").manifest.features.size), np.float32),
    )
    expected = load_gate(path).judge(x).decisive
    stop = threading.Event()

    def exchange() -> None:
        draft = path.with_name("draft")
        versions = (contents["gate.npz"], contents["gate.npz"][:-1] + b"?")
        turn = 0
        while not stop.is_set():
            draft.write_bytes(versions[turn % 2])
            os.replace(draft, path)
            turn += 1

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(20):
            try:
                gate = pinned.load("gate.npz")
            except ParrotgateError:
                continue
            yield "a gate exchanged while read", bool(np.array_equal(gate.judge(x).decisive, expected))  # type: ignore[attr-defined]
    finally:
        stop.set()
        thread.join()
        path.write_bytes(contents["gate.npz"])


def integrity_control(effort: Effort) -> str:
    """ONNX Runtime alone, on the same flips of a network."""
    data, rng = (MODELS / "features.onnx").read_bytes(), random.Random(1)
    taken, tries = 0, 200
    began = time.monotonic()
    for _ in range(tries):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            onnxruntime.InferenceSession(bytes(changed), providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001, S112 - whatever it raises, it has refused
            continue
        taken += 1
    if not taken or time.monotonic() - began > 600:
        raise AssertionError("ONNX Runtime refused every flip")
    return f"ONNX Runtime alone loads {taken} of {tries} networks with a bit changed"
