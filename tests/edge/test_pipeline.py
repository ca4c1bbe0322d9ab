"""Two batches in flight, on TensorRT plans on the stand-in device: what overlaps, in which order, and whose errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from edge.config import Config
from edge.judge import ENGINE_FAILURES
from edge.parts import Parts, load_parts
from edge.pipeline import Flight
from engines import DeviceLostError, EngineRunError
from engines.tensorrt_runtime import TensorRtEngine
from tests import standin as standin_gpu
from tests.edge.line import MOST, PICTURES, Line, device
from tests.edge.worker_process import MODELS, demo_config
from tests.engines import plans

Lines = Callable[..., Line]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's networks with a plan beside each."""
    with pytest.MonkeyPatch.context() as patch:
        standin_gpu.put_in_place(patch)
        copied = plans.beside(MODELS, tmp_path_factory.mktemp("models"))
        standin_gpu.forget()
    return copied


@pytest.fixture
def line(models: Path, standin: None) -> Iterator[Lines]:
    """Makes lines, without a species engine unless asked, and a clean timeline for each."""
    made: list[Line] = []

    def make(
        policy: str = "every", *, suffix: str = ".plan", species: bool = False, skip: bool = False, **more: Any
    ) -> Line:
        changes: dict[str, Any] = {"features": {"model": str(models / f"features{suffix}"), "device": "auto"}}
        changes["species"] = {"model": str(models / "species.plan")} if species else None
        changes |= {"mailbox": {"policy": policy}, "batch": {"max": MOST}, "skip_unchanged": skip}
        config = demo_config("mqtt://localhost:1", **changes)
        made.append(Line(Config.model_validate(config), **more))
        clear()
        return made[-1]

    yield make
    for one in made:
        one.close()


def clear() -> None:
    device().timeline.clear()
    device().given = device().inferences = device().most_in_flight = 0


def test_whole_batch_that_waits_is_given_to_the_device_before_the_one_at_work_is_done(line: Lines) -> None:
    one = line("every")
    one.send(3 * MOST)
    one.run()
    assert list(device().timeline) == [
        ("given", 1), ("given", 2), ("done", 1), ("finished", 1), ("given", 3), ("done", 2), ("finished", 2),
        ("done", 3), ("finished", 3),
    ]  # fmt: skip
    assert one.judged == one.put


def test_under_latest_the_next_batch_is_given_when_the_device_is_free_and_before_the_verdicts_of_the_last(
    line: Lines,
) -> None:
    one = line("latest")
    one.send(3 * MOST)
    one.run()
    assert list(device().timeline) == [
        ("given", 1), ("done", 1), ("given", 2), ("finished", 1), ("done", 2), ("given", 3), ("finished", 2),
        ("done", 3), ("finished", 3),
    ]  # fmt: skip
    assert one.judged == one.put


def test_batch_that_is_not_whole_waits_until_the_device_is_free(line: Lines) -> None:
    one = line("every")
    one.send(2 * MOST - 1)
    one.run()
    assert list(device().timeline)[:3] == [("given", 1), ("done", 1), ("given", 2)]
    assert one.judged == one.put


@pytest.mark.parametrize("policy", ["every", "latest"])
def test_lone_frame_is_finished_in_the_turn_in_which_it_was_begun(line: Lines, policy: str) -> None:
    one = line(policy)
    for count in (1, 2, 3):
        one.send(1)
        one.turn()
        assert len(one.judged) == count
        assert one.pipeline.frames == []


def test_batch_held_open_is_never_held_before_the_verdicts_of_the_one_before(line: Lines) -> None:
    one = line("every", wait_ms=1000.0)
    one.send(2 * MOST - 1)
    began = time.monotonic()
    one.turn()
    assert time.monotonic() - began < 0.5
    assert one.judged == one.put[:MOST]
    assert one.pipeline.frames == []


def test_frames_in_flight_between_two_turns_can_be_counted(line: Lines) -> None:
    one = line("every")
    one.send(2 * MOST)
    one.turn()
    assert [frame.raw.ticket.serial for frame in one.pipeline.frames] == one.put[MOST:]
    one.pipeline.settle()
    assert one.judged == one.put
    one.pipeline.settle()
    assert one.judged == one.put


def test_engine_that_computes_while_it_is_asked_has_one_batch_at_a_time(
    line: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = line("every", suffix=".onnx")
    assert one.parts.features.in_flight == 2  # the plan beside it
    one.close()
    monkeypatch.setattr(TensorRtEngine, "in_flight", 1)
    one = line("every")
    one.send(3 * MOST)
    one.run()
    whole = [(what, number) for number in (1, 2, 3) for what in ("given", "finished", "done")]
    assert list(device().timeline) == whole
    assert one.judged == one.put


def test_device_is_kept_busy_while_the_last_batch_is_concluded(line: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 ms on the device and 30 ms for verdicts: a batch costs 70 ms one by one, little more than 40 overlapped."""
    monkeypatch.setattr(import_module("standin_device"), "INFERENCE_S", 0.04)
    took: dict[int, float] = {}
    for _ in range(5):  # a busy machine disturbs some of them
        for in_flight in (1, 2):
            monkeypatch.setattr(TensorRtEngine, "in_flight", in_flight)
            took[in_flight] = min(took.get(in_flight, 60.0), seconds_for_ten_batches(line("latest", ahead=1000)))
        if took[2] < 0.75 * took[1]:
            return
    raise AssertionError(f"one batch at a time takes {took[1]:.2f} s, two in flight {took[2]:.2f} s")


def seconds_for_ten_batches(one: Line) -> float:
    conclude = one.judge.conclude

    def slowly(flight: Flight) -> None:
        conclude(flight)
        time.sleep(0.03)

    one.judge.conclude = slowly  # type: ignore[method-assign]
    one.send(10 * MOST)
    began = time.monotonic()
    one.run()
    took = time.monotonic() - began
    assert one.judged == one.put
    one.close()
    return took


@pytest.mark.parametrize("policy", ["every", "latest"])
@pytest.mark.parametrize("species", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_every_frame_has_one_end_in_order_whatever_is_decoded_when(
    line: Lines, policy: str, species: bool, skip: bool
) -> None:
    rng = random.Random(f"{policy} {species} {skip}")
    one = line(policy, species=species, skip=skip, ahead=5)
    bad = [b"not a picture", b"", b"\xff\xd8\xff"]
    for _ in range(25):
        one.send(rng.randint(0, 6), [*PICTURES[:5], *bad])
        for _ in range(rng.randint(0, 3)):
            one.turn()
    one.run()
    assert one.judged == one.put
    assert len(one.errors()) == sum(number % 8 >= 5 for number in range(len(one.put)))
    if species or policy == "every":
        assert device().most_in_flight >= 2


def fail_at(monkeypatch: pytest.MonkeyPatch, *numbers: int, code: int = 2) -> None:
    """Let the inferences of these numbers fail, counted from now."""
    count, seen = device().count_inference, 0

    def count_or_fail() -> None:
        nonlocal seen
        seen += 1
        count()
        if seen in numbers:
            raise import_module("standin_device").CudaError("kernel", code)

    monkeypatch.setattr(device(), "count_inference", count_or_fail)


def test_error_of_one_batch_is_that_of_its_frames_alone(line: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    one = line("every")
    fail_at(monkeypatch, 1, 4)  # the first batch, and the second of its frames tried alone; the other batch is between
    one.send(3 * MOST)
    one.run()
    assert one.judged == one.put
    assert one.errors() == [one.put[1]]


def test_second_of_two_batches_in_flight_may_fail_as_well(line: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    one = line("every")
    fail_at(monkeypatch, 2)
    one.send(3 * MOST)
    one.run()
    assert one.judged == one.put
    assert one.errors() == []


def test_batch_that_the_device_refuses_to_begin_fails_in_its_turn(line: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    one = line("every")
    context, calls = import_module("tensorrt").IExecutionContext, 0
    execute = context.execute_async_v3

    def refuse_second(self: Any, stream_handle: int) -> bool:
        nonlocal calls
        calls += 1
        return calls not in (2, 3) and bool(execute(self, stream_handle))

    one.parts.features._graphs.on = False  # type: ignore[attr-defined]
    monkeypatch.setattr(context, "execute_async_v3", refuse_second)
    one.send(2 * MOST)
    one.turn()
    assert one.judged == one.put[:MOST]
    one.run()
    assert one.judged == one.put
    assert one.errors() == [one.put[MOST]]  # the third call: the first frame of the second batch, alone


def test_engine_that_fails_on_every_batch_ends_the_worker_with_frames_left_to_the_broker(
    line: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = line("every")
    one.parts.features._graphs.on = False  # type: ignore[attr-defined]
    context = import_module("tensorrt").IExecutionContext
    monkeypatch.setattr(context, "execute_async_v3", lambda self, stream_handle: False)
    one.send(5 * MOST)
    with pytest.raises(EngineRunError, match="refused"):
        one.run()
    assert one.judged == one.errors() == one.put[: (ENGINE_FAILURES - 1) * MOST]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_lost_device_judges_no_frame_of_either_batch_in_flight(
    line: Lines, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    one = line("every")
    device().fail(700, at)
    one.send(6 * MOST)
    with pytest.raises(DeviceLostError) as caught:
        one.run()
    assert caught.value.exit_code == 75
    assert one.judged == one.put[: (at - 1) * MOST]
    assert one.errors() == []


def test_batch_is_finished_by_the_parts_that_began_it(line: Lines) -> None:
    one, other = line("every"), line("every")
    other.parts.cascade._gate_name = "sha256:other"
    one.send(2 * MOST)
    one.turn()  # one batch is finished, the other in flight
    one.judge.take_over(other.parts, one.config)
    one.send(2 * MOST)
    one.run()
    gates = [b"sha256:other" in payload for _, payload in one.post.verdicts]
    assert one.judged == one.put
    assert gates == [False] * 2 * MOST + [True] * 2 * MOST


def test_error_verdict_of_a_frame_in_flight_names_the_gate_that_began_it(
    line: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = line("every"), line("every")
    other.parts.cascade._gate_name = "sha256:other"
    fail_at(monkeypatch, 2, 3)
    one.send(2 * MOST)
    one.turn()
    one.judge.take_over(other.parts, one.config)
    one.run()
    assert one.errors() == [one.put[MOST]]
    assert not any(b"sha256:other" in payload for _, payload in one.post.verdicts)


def test_poison_is_a_dead_letter_in_its_turn(line: Lines) -> None:
    one = line("every")
    real = one.intake._decode
    doomed = PICTURES[3]

    def decode(raw: Any) -> Any:
        frame = real(raw)
        return replace(frame, poison=True, error="it kills", pixels=None) if raw.payload == doomed else frame

    one.intake._decode = decode
    one.send(4 * MOST)
    one.run()
    assert one.post.letters == [one.put[3]]
    assert one.judged == [serial for serial in one.put if serial != one.put[3]]


def test_decoder_that_dies_ends_the_worker_after_the_batch_in_flight(line: Lines) -> None:
    one = line("latest")
    one.send(MOST)
    one.pipeline._flight = one.judge.begin(one.intake.take(MOST, MOST))
    one.intake._fail(RuntimeError("decoder"))
    one.pipeline.turn(MOST, 0.0, 0.0)
    assert one.judged == one.put
    with pytest.raises(RuntimeError, match="decoder"):
        one.pipeline.turn(MOST, 0.0, 0.0)


def test_line_survives_a_second_thread_that_opens_engines(line: Lines, models: Path) -> None:
    """What a reload does: another engine is loaded and warmed up in a thread of its own while batches fly."""
    one = line("every")
    failures: list[BaseException] = []
    opened: list[Parts] = []

    def load() -> None:
        try:
            for _ in range(5):
                opened.append(load_parts(one.config))
                opened[-1].warm_up(MOST)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    while thread.is_alive():
        one.send(MOST)
        one.turn()
    one.run()
    for parts in opened:
        parts.close()
    assert not failures
    assert one.judged == one.put
    assert one.errors() == []
