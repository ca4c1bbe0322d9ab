"""A review's page around hand-made questions, served on a free loopback port."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from calibrate.fit import FitOptions, fit_gate
from calibrate.recipes import RobustRecipe
from calibrate.review_labels import LabelFile
from calibrate.review_queue import Candidate, Item
from calibrate.review_server import create_review
from edge.gate import Gate
from edge.web import StatusServer, build_server
from tests.calibrate.clusters import OTHERS, PARROTS, model, samples

COMMAND = "calibrate review --apply --out labels"


def gate() -> Gate:
    """A small fitted gate that accepts parrots and knows birds and objects."""
    fitted = fit_gate(samples(PARROTS, OTHERS), model(), RobustRecipe(), FitOptions())
    return Gate(fitted.manifest, fitted.arrays)


def questions(folder: Path, name: str = "{}.png") -> list[Item]:
    """Four questions: a disagreement, one about two near-duplicates, one near the threshold, one at random."""
    rng = np.random.default_rng(0)
    pictures = []
    for i, decisive in enumerate((0.04, 0.48, 0.49, 0.55, 0.01)):
        path = folder / name.format(i)
        path.write_bytes(cv2.imencode(".png", rng.integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes())
        label = ("parrots/macaw", True) if i == 0 else (None, None)
        pictures.append(Candidate(f"{i:064x}", path, decisive, decisive >= 0.5, *label))
    first, twin, other, near, last = pictures
    return [
        Item("disagreement", (first,)),
        Item("near", (twin, other)),
        Item("near", (near,)),
        Item("random", (last,)),
    ]


@contextmanager
def serving(judge: Gate, queue: Sequence[Item], labels: Path) -> Iterator[StatusServer]:
    """The page on a free port, in a thread of its own."""
    server = build_server(create_review(judge, queue, LabelFile(labels), COMMAND), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
