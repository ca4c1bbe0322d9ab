"""The demo's cameras: seeded, truthful, varied; and the shipped networks and gate that judge them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import edge.demo
from edge.demo.backdrops import PLACES
from edge.demo.camera import encode_jpeg
from edge.demo.simulator import KINDS, SPECIES, Drawn, Simulator, draw
from edge.gate_file import load_gate
from engines import Engine, decode_image, open_engine, prepare_input, probe_image

MODELS = Path(edge.demo.__file__).with_name("models")
FRESH_SEED = 990_000  # far from the seeds of training, fitting and measuring


def frames(camera: str, seed: int, count: int, **size: int) -> list[Drawn]:
    simulator = Simulator(camera, seed, **size)
    return [simulator.next() for _ in range(count)]


def rows(engine: Engine, kinds: list[str], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    jpegs = [encode_jpeg(draw(kind, rng, 640, 480), 85) for kind in kinds]
    side = engine.spec.input.height
    return np.stack(
        [prepare_input(decode_image(jpeg, minimum=(side, side)).pixels, engine.spec.input) for jpeg in jpegs]
    )


@pytest.fixture(scope="module")
def species() -> Iterator[Engine]:
    with open_engine(MODELS / "species.onnx", "cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def features() -> Iterator[Engine]:
    with open_engine(MODELS / "features.onnx", "cpu") as engine:
        yield engine


def test_simulator_same_camera_and_seed_gives_same_bytes() -> None:
    first, again = frames("feeder", 5, 30, width=160, height=120), frames("feeder", 5, 30, width=160, height=120)
    assert first == again


@pytest.mark.parametrize(("camera", "seed"), [("garden", 5), ("feeder", 6)])
def test_simulator_other_camera_or_seed_gives_other_frames(camera: str, seed: int) -> None:
    other = frames(camera, seed, 5, width=160, height=120)
    assert not {one.jpeg for one in other} & {one.jpeg for one in frames("feeder", 5, 5, width=160, height=120)}


def test_simulator_consecutive_frames_differ_even_of_an_empty_perch() -> None:
    seen = frames("feeder", 1, 60, width=160, height=120)
    assert len({one.jpeg for one in seen}) == len(seen)


def test_simulator_all_kinds_come_in_one_round_and_their_truth_is_consistent() -> None:
    seen = frames("feeder", 11, 900, width=64, height=48)
    assert {one.kind for one in seen} == set(KINDS)
    for one in seen:
        assert one.positive == (one.kind in SPECIES)
        assert one.species == SPECIES.get(one.kind)
        assert one.truth == SPECIES[one.kind] if one.positive else one.truth not in SPECIES.values()


def test_simulator_visitor_stays_a_while_and_the_perch_is_empty_in_between() -> None:
    kinds = [one.kind for one in frames("feeder", 3, 300, width=64, height=48)]
    changes = [i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]
    visits = [(start, end) for start, end in pairwise(changes) if kinds[start] != "perch"]
    assert visits
    assert all(14 <= end - start < 40 for start, end in visits)
    assert all(kinds[end] == "perch" and kinds[start - 1] == "perch" for start, end in visits)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1280, 720), (97, 61)])
def test_simulator_frame_has_the_asked_size(width: int, height: int) -> None:
    for one in frames("sky", 2, 12, width=width, height=height):
        header = probe_image(one.jpeg)
        assert (header.format, header.width, header.height) == ("jpeg", width, height)


@pytest.mark.parametrize("kind", KINDS)
def test_draw_gives_seeded_pixels_of_the_asked_size(kind: str) -> None:
    first, again, other = (draw(kind, np.random.default_rng(seed), 200, 150) for seed in (1, 1, 2))
    assert first.shape == (150, 200, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_simulator_camera_named_after_a_place_looks_at_it() -> None:
    night = cv2.imdecode(np.frombuffer(frames("night", 4, 1)[0].jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    forest = cv2.imdecode(np.frombuffer(frames("forest", 4, 1)[0].jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert {"night", "forest"} <= set(PLACES)
    assert np.ptp(night.mean(axis=(0, 1))) < 2 < np.ptp(forest.mean(axis=(0, 1)))


def test_shipped_networks_are_small_and_their_hashes_hold(features: Engine, species: Engine) -> None:
    files = [MODELS / "features.onnx", MODELS / "species.onnx"]
    assert sum(file.stat().st_size for file in files) < 4 * 2**20
    assert [engine.spec.sha256 for engine in (features, species)] == [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    ]
    assert species.spec.labels == tuple(SPECIES.values())


def test_shipped_species_network_names_fresh_drawings(species: Engine) -> None:
    kinds = list(SPECIES) * 10
    answers = species.infer(rows(species, kinds, FRESH_SEED)).argmax(axis=1)
    right = np.mean([list(SPECIES)[answer] == kind for answer, kind in zip(answers, kinds, strict=True)])
    assert right >= 0.9


def test_shipped_gate_knows_parrots_from_the_rest_on_fresh_drawings(features: Engine) -> None:
    gate = load_gate(MODELS / "gate.npz", features=features.spec)
    kinds = [kind for kind in KINDS for _ in range(16)]
    batch = rows(features, kinds, FRESH_SEED + 1)
    views = [batch if view == "full" else np.ascontiguousarray(batch[..., ::-1]) for view in gate.views]
    accepted = gate.judge(gate.join_views([features.infer(view) for view in views])).accepted
    parrot = np.array([kind in SPECIES for kind in kinds])
    assert accepted[parrot].mean() >= 0.9
    assert accepted[~parrot].mean() <= 0.04
