from __future__ import annotations

import json
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.health import Health, Limits
from edge.meters import LATENCY_BOUNDS_MS, Latency, Rate, Tally
from edge.pictures import Pictures
from edge.progress import Patience
from edge.records import Outcome
from tests.edge.status import Clock, ready_health, verdict


def test_ready_worker_that_connects_and_warms_is_ready() -> None:
    health = Health("orin-07")
    assert health.ready() == (False, "starting")
    health.connected("mqtt://localhost:1883", False)
    health.set_state("ready", "ready")
    assert health.ready() == (True, "ready")
    health.disconnected("connection reset")
    assert health.ready() == (False, "no connection to the broker: connection reset")
    assert health.live()[0]


def test_live_link_that_falls_silent_is_not_live_though_connected() -> None:
    clock = Clock()
    health = ready_health(clock=clock)
    clock.now += 29
    assert health.live()[0]
    clock.now += 2
    live, why = health.live()
    assert not live
    assert "link" in why
    assert "31 s" in why
    assert not health.ready()[0]
    health.beat("link")
    assert health.live()[0]


def test_live_frames_that_wait_without_verdict_is_not_live_until_one_comes() -> None:
    clock = Clock()
    health = ready_health(clock=clock, limits=Limits(Patience(link_s=1e9)))
    clock.now += 3600  # a night without frames is no stall
    assert health.live()[0]
    health.waiting(3, 100, 0.0)
    clock.now += 29
    assert health.live()[0]
    clock.now += 2
    assert health.live() == (False, "3 frames wait and no verdict came for 31 s (limit 30 s)")
    health.verdict(verdict(), None, None)
    assert health.live()[0]


def test_live_frames_that_wait_while_disconnected_is_live() -> None:
    clock = Clock()
    health = ready_health(clock=clock, limits=Limits(Patience(away_s=1e9)))
    health.waiting(1, 1, 0.0)
    health.disconnected("broker away")
    clock.now += 1000
    assert health.live()[0]


def test_live_engine_that_hangs_with_its_only_frame_is_not_live() -> None:
    """Nobody counts waiting frames while the engine's thread hangs: its own silence must tell."""
    clock = Clock()
    health = ready_health(clock=clock, limits=Limits(Patience(link_s=1e9)))
    health.beat("engine")
    health.waiting(0, 0, 0.0)
    clock.now += 29
    assert health.live()[0]
    clock.now += 2
    assert health.live() == (False, "the engine's thread gave no sign of life for 31 s (limit 30 s)")


def test_live_engine_that_judges_a_batch_frame_by_frame_is_live() -> None:
    clock = Clock()
    health = ready_health(clock=clock, limits=Limits(Patience(link_s=1e9)))
    health.beat("engine")
    for _ in range(4):
        clock.now += 20
        health.verdict(verdict(), None, None)
        assert health.live()[0]


def test_live_link_without_a_connection_may_be_silent_for_minutes() -> None:
    clock = Clock()
    health = ready_health(clock=clock)
    health.disconnected("the name broker does not resolve")
    clock.now += 299
    assert health.live()[0]
    clock.now += 2
    assert not health.live()[0]


def test_live_broker_that_confirms_nothing_any_more_is_not_live() -> None:
    clock = Clock()
    health = ready_health(clock=clock, limits=Limits(Patience(link_s=1e9)))
    for left in (10, 9):  # one answer is progress
        clock.now += 299
        health.unconfirmed(left)
        assert health.live()[0]
    clock.now += 301
    health.unconfirmed(9)
    assert health.live() == (False, "the broker confirmed no publication for 301 s (limit 300 s)")
    health.connected("mqtt://localhost:1883", True)
    assert health.live()[0]


def test_fault_first_one_is_kept() -> None:
    health = ready_health()
    health.fault("the decode thread ended")
    health.fault("the engine thread ended")
    assert health.live() == (False, "the decode thread ended")


def test_connected_url_with_password_is_kept_without_it() -> None:
    health = Health("orin-07")
    health.connected("mqtts://ranger:hunter2@broker:8883", True)
    text = json.dumps(health.snapshot())
    assert "hunter2" not in text
    assert health.snapshot()["broker"]["url"] == "mqtts://broker:8883"


def test_snapshot_counts_what_happened() -> None:
    health = ready_health()
    health.received("feeder", 100)
    health.received("feeder", 50)
    health.dropped("feeder", "newer frame")
    health.refused("bad topic")
    health.verdict(verdict(), b"jpeg", "image/jpeg")
    health.verdict(verdict(outcome=Outcome.ERROR), None, None)
    health.published()
    health.publish_failed("0x87")
    health.acked()
    health.deadletter("feeder", "no image")
    snapshot = health.snapshot()
    wanted = {"received": 2, "received_bytes": 150, "dropped": 1, "refused": 1, "positive": 1, "error": 1}
    wanted |= {"published": 1, "publish_failures": 1, "acked": 1, "deadletters": 1, "negative": 0}
    assert wanted.items() <= snapshot["counters"].items()
    assert snapshot["dropped"] == {"newer frame": 1}
    assert snapshot["last_deadletter"] == "feeder: no image"
    (row,) = snapshot["cameras"]
    assert (row["received"], row["dropped"], row["deadletters"]) == (2, {"newer frame": 1}, 1)
    assert row["last"]["error"] == "no image"


def test_deadletter_of_no_camera_makes_no_camera() -> None:
    health = ready_health()
    health.deadletter("-", "hostile topic")
    assert health.snapshot()["cameras"] == []
    assert health.snapshot()["counters"]["deadletters"] == 1


def test_snapshot_not_finite_numbers_are_null() -> None:
    health = ready_health()
    strange = {"total": math.inf, "gate": math.nan, "queue": 1.0}
    health.verdict(verdict(probability=math.nan, latency_ms=strange), None, None)
    text = json.dumps(health.snapshot(), allow_nan=False)
    last = json.loads(text)["cameras"][0]["last"]
    assert last["probability"] is None
    assert last["latency_ms"] == {"total": None, "gate": None, "queue": 1.0}


def test_snapshot_while_threads_count_loses_nothing() -> None:
    health = ready_health()

    def work(camera: str) -> None:
        for _ in range(500):
            health.received(camera, 1)
            health.verdict(verdict(camera), b"x", "image/jpeg")

    threads = [threading.Thread(target=work, args=(f"cam-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        health.snapshot(pin=True)
    for thread in threads:
        thread.join()
    counters = health.snapshot()["counters"]
    assert (counters["received"], counters["positive"]) == (2000, 2000)


def test_cameras_beyond_the_bound_least_recent_is_forgotten_and_counted() -> None:
    health = ready_health(limits=Limits(cameras=2))
    for camera in ("a", "b", "a", "c"):
        health.received(camera, 1)
    snapshot = health.snapshot()
    assert [row["camera"] for row in snapshot["cameras"]] == ["a", "c"]
    assert snapshot["counters"]["evicted_cameras"] == 1
    assert snapshot["counters"]["received"] == 4


def test_camera_image_pinned_by_snapshot_belongs_to_the_verdict_shown() -> None:
    health = ready_health()
    health.verdict(verdict(outcome=Outcome.NEGATIVE), b"duck", "image/jpeg")
    shown = health.snapshot(pin=True)["cameras"][0]["picture"]
    health.verdict(verdict(), b"macaw", "image/png")
    assert health.camera_image("feeder", shown) == (b"duck", "image/jpeg")
    assert health.camera_image("feeder") == (b"macaw", "image/png")
    health.snapshot(pin=True)
    assert health.camera_image("feeder", shown) == (b"macaw", "image/png")
    assert health.camera_image("unknown") is None


def test_camera_image_verdict_without_picture_shows_none_rather_than_an_older_one() -> None:
    health = ready_health()
    health.verdict(verdict(), b"macaw", "image/jpeg")
    health.verdict(verdict(outcome=Outcome.ERROR), b"<svg>", "image/svg+xml")
    assert health.camera_image("feeder") is None


def test_positives_only_the_latest_keep_their_pictures() -> None:
    health = ready_health(limits=Limits(positives=2))
    for camera, picture in (("a", b"1"), ("b", b"2"), ("c", b"3")):
        health.verdict(verdict(camera), picture, "image/jpeg")
    rows = health.snapshot()["positives"]
    assert [health.positive_image(row["picture"]) for row in rows] == [(b"3", "image/jpeg"), (b"2", "image/jpeg")]
    assert health.positive_image(1) is None


def test_positives_in_close_succession_are_one_visit() -> None:
    clock = Clock()
    health = ready_health(clock=clock)
    for picture, pause in ((b"1", 0.0), (b"2", 3.0), (b"3", 60.0)):
        clock.now += pause
        health.verdict(verdict(), picture, "image/jpeg")
    rows = health.snapshot()["positives"]
    assert [row["frames"] for row in rows] == [1, 2]
    assert health.positive_image(rows[1]["picture"]) == (b"1", "image/jpeg")


@pytest.mark.parametrize(
    ("outcome", "positive", "right"),
    [
        (Outcome.POSITIVE, True, True),
        (Outcome.POSITIVE, False, False),
        (Outcome.NEGATIVE, True, False),
        (Outcome.NEGATIVE, False, True),
        (Outcome.UNCERTAIN, True, None),
        (Outcome.ERROR, True, None),
    ],
)
def test_truth_against_verdict(outcome: Outcome, positive: bool, right: bool | None) -> None:
    health = ready_health()
    health.truth("feeder", "duck doll", positive, "000007")
    health.truth("feeder", "elephant", not positive, "000008")  # the next frame's truth comes before our verdict
    health.verdict(verdict(outcome=outcome, frame_id="000007"), None, None)
    row = health.snapshot()["cameras"][0]
    assert row["truth"] == {"text": "duck doll", "positive": positive, "right": right}
    assert (row["right"], row["wrong"]) == (int(right is True), int(right is False))


def test_truth_of_frames_never_judged_stays_bounded() -> None:
    health = ready_health()
    for i in range(1000):
        health.truth("feeder", "macaw", True, str(i))
    health.verdict(verdict(frame_id="0"), None, None)
    assert health.snapshot()["cameras"][0]["truth"] is None


def test_rate_counts_the_last_ten_seconds_and_falls_to_zero() -> None:
    rate = Rate(0.0)
    for i in range(300):
        rate.add(i / 10)
    assert rate.per_second(30.0) == pytest.approx(10.0, rel=0.1)
    assert rate.per_second(100.0) == 0.0


def test_rate_young_meter_is_not_diluted() -> None:
    rate = Rate(5.0)
    for i in range(20):
        rate.add(5.0 + i / 10)
    assert rate.per_second(7.0) == pytest.approx(10.0, rel=0.1)


@given(st.lists(st.floats(0, 20_000), max_size=60))
def test_latency_histogram_agrees_with_counting(durations: list[float]) -> None:
    latency = Latency(window=60)
    for ms in durations:
        latency.add(ms)
    summary = latency.summary()
    assert summary["buckets"] == [sum(ms <= bound for ms in durations) for bound in (*LATENCY_BOUNDS_MS, math.inf)]
    assert summary["count"] == len(durations)
    if durations:
        assert summary["p99"] == round(max(durations), 3)


@given(st.lists(st.tuples(st.sampled_from(["add", "share", "release"]), st.integers(0, 12)), max_size=80))
def test_pictures_bytes_never_exceed_the_bound(steps: list[tuple[str, int]]) -> None:
    pictures = Pictures(20)
    for step, n in steps:
        if step == "add":
            pictures.add(b"x" * n, "image/jpeg")
        else:
            getattr(pictures, step)(n)
        held = [picture for serial in range(100) if (picture := pictures.get(serial))]
        assert pictures.size == sum(len(picture.data) for picture in held) <= 20


def test_tally_names_beyond_the_limit_are_other() -> None:
    tally = Tally(2)
    for name in ("a", "b", "c", "d", "a"):
        tally.add(name)
    assert tally.counts() == {"a": 2, "b": 1, "other": 2}
