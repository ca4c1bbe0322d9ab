"""The cascade: outcomes, identities, and that nothing but finite numbers ever becomes a label."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cascade import Cascade, Limits, as_probabilities
from edge.decode import Decoder
from edge.demo.simulator import draw
from edge.gate_file import load_gate
from edge.picture import PictureOpener
from edge.records import Frame, Outcome, RawFrame
from edge.sources import JPEG_QUALITY
from edge.verdict import as_dict, encode, verdict_id, verdict_schema
from engines import Engine, ImageLimits, Pending, open_engine
from engines.base import Done
from tests import standin
from tests.edge.frames import raw_frame
from tests.edge.worker_process import MODELS
from tests.engines import plans

import cv2  # isort: skip - engines comes first: it sets OpenCV's limits


class Doctored:
    """An engine whose answers a test may spoil."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.spec = engine.spec
        self.device = engine.device
        self.in_flight = engine.in_flight
        self.spoil: dict[tuple[int, int], float] = {}
        self.batches: list[int] = []

    def infer(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return self.submit(batch).result()

    def submit(self, batch: npt.NDArray[Any]) -> Pending:
        answer = self._engine.infer(batch)
        self.batches.append(len(batch))
        for (row, column), value in self.spoil.items():
            answer[row, column] = value
        return Done(answer)

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Doctored:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Kit:
    """A cascade on the demo's networks, with a clock that stands still unless told."""

    def __init__(self, models: Path = MODELS) -> None:
        self.features = Doctored(open_engine(models / "features.onnx", threads=1))
        self.species = Doctored(open_engine(models / "species.onnx", threads=1))
        self.gate = load_gate(models / "gate.npz", features=self.features.spec)
        self.decoder = Decoder(PictureOpener(self.features.spec.input, (112, 112), ImageLimits()), 1 << 22, lambda: 5.0)

    def cascade(self, **limits: Limits) -> Cascade:
        lines: dict[str | None, Limits] = {None: Limits(self.gate.threshold), **limits}
        ticks = itertools.count()
        return Cascade(
            self.features, self.gate, self.species, worker="w", limits=lines, top=3,
            clock=lambda: 10.0 + next(ticks) / 1000, wall=lambda: 1763683200.0,
        )  # fmt: skip

    def frame(self, kind: str, seed: int = 0, camera: str = "feeder") -> Frame:
        return self.decoder(replace(raw_frame(camera, _jpeg(kind, seed)), received_s=4.0))


@cache
def _jpeg(kind: str, seed: int) -> bytes:
    picture = draw(kind, np.random.default_rng(seed), 320, 240)
    return cv2.imencode(".jpg", picture[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()


@pytest.fixture(scope="module", params=["onnx", "plan"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """On ONNX Runtime, and on TensorRT plans of the same networks on the stand-in device."""
    if request.param == "onnx":
        yield Kit()
        return
    with pytest.MonkeyPatch.context() as patch:
        standin.put_in_place(patch)
        made = Kit(plans.beside(MODELS, tmp_path_factory.mktemp("models")))
        assert (made.features.device, made.species.device) == ("cuda", "cuda")
        yield made
        made.features.close()
        made.species.close()
    standin.forget()


@pytest.fixture(autouse=True)
def unspoiled(kit: Kit) -> None:
    kit.features.spoil.clear()
    kit.species.spoil.clear()
    kit.species.batches.clear()
    kit.features.batches.clear()


def test_judge_batch_keeps_order_and_asks_species_for_positives_only(kit: Kit) -> None:
    kinds = ["scarlet_macaw", "duck", "cockatoo", "elephant", "perch", "lorikeet"]
    verdicts = kit.cascade().judge([kit.frame(kind, seed) for seed, kind in enumerate(kinds)])
    assert [v.verdict is Outcome.POSITIVE for v in verdicts] == [True, False, True, False, False, True]
    assert kit.features.batches == [6]
    assert kit.species.batches == [3]
    labels = [v.species[0].label for v in verdicts if v.species]
    assert [label.split(" (")[0] for label in labels] == ["Ara macao", "Cacatua galerita", "Trichoglossus moluccanus"]
    assert all(
        len(v.species) == 3 and v.species[0].probability >= v.species[1].probability for v in verdicts if v.species
    )


def test_batches_whose_steps_interleave_are_judged_as_each_is_alone(kit: Kit) -> None:
    bad = kit.decoder(raw_frame(payload=b"not a picture"))
    batches = [
        [kit.frame("scarlet_macaw", 1), bad, kit.frame("duck", 2)], [bad], [],
        [kit.frame("perch", 3), kit.frame("lorikeet", 4)],
    ]  # fmt: skip
    cascade = kit.cascade()
    alone = [[(v.verdict, v.probability, v.species, v.error) for v in cascade.judge(batch)] for batch in batches]
    begun = [cascade.begin(batch) for batch in batches]
    embedded = [cascade.collect(one) for one in reversed(begun)][::-1]
    together = [[(v.verdict, v.probability, v.species, v.error) for v in cascade.finish(one)] for one in embedded]
    assert together == alone
    assert [len(one) for one in together] == [3, 1, 0, 2]


def test_judge_verdicts_keep_the_published_schema(kit: Kit) -> None:
    validator = jsonschema.Draft202012Validator(verdict_schema())
    bad = kit.decoder(raw_frame(payload=b"not a picture"))
    for verdict in kit.cascade().judge([kit.frame("scarlet_macaw"), kit.frame("duck"), bad]):
        validator.validate(as_dict(verdict))
        assert set(as_dict(verdict)) == set(verdict_schema()["required"])
        assert encode(verdict).isascii()


def test_judge_frame_with_an_error_costs_no_inference(kit: Kit) -> None:
    (verdict,) = kit.cascade().judge([kit.decoder(raw_frame(payload=b"\xff\xd8\xff"))])
    assert verdict.verdict is Outcome.ERROR
    assert verdict.error
    assert kit.features.batches == []


def test_judge_limits_of_a_camera_and_the_abstain_band(kit: Kit) -> None:
    never, band = Limits(1.0), Limits(0.5, (0.0, 1.0))
    cascade = kit.cascade(strict=Limits(1.0), band=Limits(0.0, (0.0, 0.0)), unsure=band)
    frames = [kit.frame("duck", camera=camera) for camera in ("feeder", "band", "unsure")]
    outcomes = [verdict.verdict for verdict in cascade.judge(frames)]
    assert outcomes == [Outcome.NEGATIVE, Outcome.POSITIVE, Outcome.UNCERTAIN]
    assert never.outcome(0.999) is Outcome.NEGATIVE
    assert never.outcome(1.0) is Outcome.POSITIVE


@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    row=st.integers(0, 2),
    column=st.integers(0, 127),
    stage=st.sampled_from(["features", "species"]),
)
@settings(max_examples=60, deadline=None)
def test_non_finite_number_anywhere_is_an_error_verdict_of_its_frame_only(
    kit: Kit, value: float, row: int, column: int, stage: str
) -> None:
    engine = kit.features if stage == "features" else kit.species
    engine.spoil = {(row, column % engine.spec.output.size): value}
    kinds = ["scarlet_macaw", "cockatoo", "lorikeet"]
    try:
        verdicts = kit.cascade().judge([kit.frame(kind, seed) for seed, kind in enumerate(kinds)])
    finally:
        engine.spoil = {}
    for index, verdict in enumerate(verdicts):
        assert (verdict.verdict is Outcome.ERROR) == (index == row)
        assert encode(verdict)
        assert verdict.verdict is not Outcome.ERROR or not verdict.species


def test_verdict_id_depends_on_what_it_should_and_on_nothing_else(kit: Kit) -> None:
    frame = kit.frame("duck")
    base = verdict_id(frame, ("a", "b"), "g")
    again = replace(frame, raw=replace(frame.raw, redelivered=True, received_s=99.0, dropped_before=4), taken_s=7.0)
    assert verdict_id(again, ("a", "b"), "g") == base
    others = [
        verdict_id(replace(frame, frame_id="1"), ("a", "b"), "g"),
        verdict_id(replace(frame, captured_at=1.0), ("a", "b"), "g"),
        verdict_id(replace(frame, digest="0" * 64), ("a", "b"), "g"),
        verdict_id(replace(frame, raw=replace(frame.raw, camera="other")), ("a", "b"), "g"),
        verdict_id(frame, ("a", "c"), "g"),
        verdict_id(frame, ("ab", ""), "g"),
        verdict_id(frame, ("a", "b"), "h"),
    ]
    assert len({base, *others}) == len(others) + 1


def test_verdict_id_is_the_same_for_ever() -> None:
    raw = RawFrame("feeder", b"", raw_frame().ticket, 0.0)
    frame = Frame(raw, b"", "ab" * 32, 0.0, 0.0, frame_id="000123", captured_at=1763683200.25)
    assert verdict_id(frame, ("f" * 64, "s" * 64), "sha256:" + "0" * 64) == "c1be19265e770ffd90d5796efaf00a2d"


def test_as_probabilities_softmax_of_large_logits_is_finite() -> None:
    answer = as_probabilities(np.array([[1e4, 0.0, -1e4]], np.float32), "logits")
    assert np.isfinite(answer).all()
    assert answer.sum() == pytest.approx(1.0)
