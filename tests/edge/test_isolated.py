"""Decoding in child processes: the same pixels, and no picture that harms anything but its own child."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from edge import decode, isolated
from edge.config_file import load_config
from edge.decode import Decoder
from edge.errors import DecoderError, PoisonError
from edge.isolated import IsolatedOpener
from edge.mailbox import Mailbox
from edge.picture import Picture, PictureOpener
from edge.poison import PoisonJournal
from edge.pool import Intake
from edge.worker import Worker
from engines import ImageError, ImageLimits, InputSpec
from tests.edge.decode_child_fault import ABORT, DEAF, GREEDY, HANG, LYING, RAISING, SLOW
from tests.edge.frames import raw_frame
from tests.edge.worker_process import Camera, Verdicts, client, demo_config, small_pictures, wait_for
from tests.mosquitto import Broker

OPENER = PictureOpener(InputSpec(layout="NCHW", height=32, width=32), (32, 32), ImageLimits(max_pixels=4_000_000))
PICTURE_BYTES = 1 << 22


def jpeg(seed: int = 0, size: tuple[int, int] = (120, 160)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def opened(opener: IsolatedOpener, image: bytes) -> Picture:
    return opener(image, digest(image))


@pytest.fixture(scope="module")
def honest() -> Iterator[IsolatedOpener]:
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal())
    yield opener
    opener.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolatedOpener]:
    monkeypatch.setattr(isolated, "_MODULE", "tests.edge.decode_child_fault")
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal(), patience_s=1.0)
    yield opener
    opener.close()


@pytest.mark.parametrize("size", [(120, 160), (720, 1280), (1, 1), (1, 900)])
def test_child_gives_the_pixels_and_the_input_that_a_thread_gives(
    honest: IsolatedOpener, size: tuple[int, int]
) -> None:
    image = jpeg(size=size)
    here, there = OPENER(image, ""), honest(image, digest(image))
    assert (there.width, there.height, there.format) == (here.width, here.height, here.format)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    np.testing.assert_array_equal(there.features_input, here.features_input)
    assert there.features_input.dtype == here.features_input.dtype


def test_picture_stays_the_callers_own_when_the_next_one_comes(honest: IsolatedOpener) -> None:
    first, second = jpeg(1), jpeg(2)
    picture = honest(first, digest(first))
    kept = picture.pixels.copy(), picture.features_input.copy()
    honest(second, digest(second))
    np.testing.assert_array_equal(picture.pixels, kept[0])
    np.testing.assert_array_equal(picture.features_input, kept[1])


@pytest.mark.parametrize("bad", [b"", b"\xff\xd8", jpeg()[:2000], b"GIF89a", os.urandom(500)])
def test_bad_picture_is_the_same_sentence_and_costs_no_child(honest: IsolatedOpener, bad: bytes) -> None:
    with pytest.raises(ImageError) as here:
        OPENER(bad, "")
    with pytest.raises(ImageError) as there:
        opened(honest, bad)
    assert str(there.value) == str(here.value)
    assert len(honest._children) == 1
    assert honest._children[0].load() == 0
    assert not honest.journal.is_poison(digest(bad))


def test_picture_larger_than_the_shared_memory_is_refused_before_it_is_copied(honest: IsolatedOpener) -> None:
    with pytest.raises(ImageError, match="at most 4194304"):
        opened(honest, b"\xff" * (PICTURE_BYTES + 1))


@pytest.mark.parametrize("end", [ABORT, HANG, LYING, DEAF])
def test_picture_that_costs_two_decoders_is_never_tried_a_third_time(faulty: IsolatedOpener, end: bytes) -> None:
    poison, good = jpeg(3) + end, jpeg(4)
    children: list[int] = []
    take = faulty._take

    def counted() -> object:
        child, slot = take()
        children.append(child.pid)
        return child, slot

    faulty._take = counted  # type: ignore[method-assign,assignment]
    with pytest.raises(PoisonError):
        opened(faulty, poison)
    assert len(set(children)) == 2
    opened(faulty, good)
    began = time.monotonic()
    with pytest.raises(PoisonError):
        opened(faulty, poison)
    assert len(children) == 3
    assert time.monotonic() - began < 0.5


def test_picture_that_wants_all_memory_is_refused_within_the_childs_own_bound(faulty: IsolatedOpener) -> None:
    with pytest.raises(ImageError, match="memory"):
        opened(faulty, jpeg(5) + GREEDY)
    opened(faulty, jpeg(6))


def test_fault_of_the_decoder_itself_is_no_crime_of_the_picture(faulty: IsolatedOpener) -> None:
    image = jpeg(7) + RAISING
    for _ in range(3):
        with pytest.raises(ImageError, match="inside the decoder: ZeroDivisionError"):
            opened(faulty, image)
    assert not faulty.journal.is_poison(digest(image))


def test_child_that_died_with_nothing_to_do_costs_no_picture_anything() -> None:
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 2, PoisonJournal())
    image = jpeg(8)
    for child in opener._children:
        child._process.kill()
        child._process.wait()
    opened(opener, image)
    assert not opener.journal._crashes
    opener.close()


def test_children_outlive_the_thread_that_started_them() -> None:
    found: list[IsolatedOpener] = []
    starter = threading.Thread(target=lambda: found.append(IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal())))
    starter.start()
    starter.join()
    time.sleep(0.2)
    pid = found[0]._children[0].pid
    opened(found[0], jpeg(9))
    assert found[0]._children[0].pid == pid
    found[0].close()


def test_picture_that_was_decoded_after_all_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    journal, image = PoisonJournal(), jpeg(10)
    journal.crashed(digest(image))
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 1, journal)
    opened(opener, image)
    journal.crashed(digest(image))
    assert not journal.is_poison(digest(image))
    opener.close()


def test_decoder_marks_poison_and_serves_its_neighbours(faulty: IsolatedOpener) -> None:
    decoder = Decoder(faulty, 1 << 22)
    intake = Intake(Mailbox("every", 100, 1 << 24), decoder, workers=1, ahead=100)
    intake.start()
    payloads = [jpeg(n) + (ABORT if n == 3 else b"") for n in range(8)]
    for payload in payloads:
        intake.put(raw_frame(payload=payload))
    frames = []
    while len(frames) < 8:
        frames += intake.next_batch(8, 0.0, 10.0)
    intake.close()
    assert [frame.poison for frame in frames] == [n == 3 for n in range(8)]
    assert [frame.error is None for frame in frames] == [n != 3 for n in range(8)]


@pytest.mark.parametrize("end", [ABORT, HANG, LYING, DEAF])
def test_neighbour_at_the_same_child_is_decoded_and_not_blamed(faulty: IsolatedOpener, end: bytes) -> None:
    poison, neighbours = jpeg(20) + end, [jpeg(21 + n) + SLOW * (n == 0) for n in range(6)]
    blamed: list[str] = []
    crashed = faulty.journal.crashed

    def noted(name: str) -> None:
        blamed.append(name)
        crashed(name)

    faulty.journal.crashed = noted  # type: ignore[method-assign]
    with ThreadPoolExecutor(isolated.IN_FLIGHT) as threads:
        fates = [threads.submit(opened, faulty, image) for image in (neighbours[0], poison, *neighbours[1:])]
        assert isinstance(fates.pop(1).exception(20), PoisonError)
        for image, fate in zip(neighbours, fates, strict=True):
            np.testing.assert_array_equal(fate.result(20).pixels, OPENER(image, "").pixels)
    assert blamed == [digest(poison)] * 2
    assert len(faulty._children) == 1


def test_patience_begins_when_the_child_takes_the_picture(faulty: IsolatedOpener) -> None:
    slow = [jpeg(30 + n) + SLOW for n in range(isolated.IN_FLIGHT)]
    pid = faulty._children[0].pid
    with ThreadPoolExecutor(len(slow)) as threads:  # one patience is 1 s, both together take 1.4 s
        assert len(list(threads.map(lambda image: opened(faulty, image), slow))) == len(slow)
    assert faulty._children[0].pid == pid


def test_several_threads_share_a_child_and_get_their_own_pictures(honest: IsolatedOpener) -> None:
    images = [jpeg(40 + n, (60 + n, 90 - n)) for n in range(40)]
    with ThreadPoolExecutor(isolated.IN_FLIGHT) as threads:
        pictures = list(threads.map(lambda image: opened(honest, image), images))
    for image, picture in zip(images, pictures, strict=True):
        np.testing.assert_array_equal(picture.pixels, OPENER(image, "").pixels)
    assert len(honest._children) == 1


def test_thread_without_room_at_a_child_gets_a_fresh_one() -> None:
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal())
    held = [opener._take() for _ in range(isolated.IN_FLIGHT)]
    opened(opener, jpeg(50))
    assert len(opener._children) == 2
    for child, slot in held:
        child.release(slot)
    opener.close()


def test_children_that_are_lost_together_leave_no_more_than_there_were() -> None:
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 2, PoisonJournal())
    for _ in range(2):
        for child in list(opener._children):
            child._process.kill()
        with ThreadPoolExecutor(2 * isolated.IN_FLIGHT) as threads:  # none of them finds a child that lives
            list(threads.map(lambda n: opened(opener, jpeg(51 + n, (700, 1000))), range(2 * isolated.IN_FLIGHT)))
        assert len(opener._children) <= 2
    opener.close()


def test_child_that_has_just_ended_hides_no_room_at_another() -> None:
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 2, PoisonJournal())
    ended, other = opener._children
    ended.kill()  # another thread does so before it takes it out of the list
    opened(opener, jpeg(51))
    assert [child for child in opener._children if child.is_alive()] == [other], "a successor that nobody needs stays"
    opener.close()


def test_answer_may_be_looked_for_while_its_thread_waits(honest: IsolatedOpener) -> None:
    child, slot = honest._take()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(slot.wait, 1.0)
        time.sleep(0.2)
        assert not slot.has_answer()
        assert waiting.result(10) is False
    child.release(slot)


def test_lost_children_leave_no_descriptor_and_no_process(faulty: IsolatedOpener) -> None:
    opened(faulty, jpeg(60))
    before = len(list(Path("/proc/self/fd").iterdir()))
    lost = faulty._children[0].pid
    for n in range(3):
        with pytest.raises(PoisonError):
            opened(faulty, jpeg(61 + n) + ABORT)
    opened(faulty, jpeg(60))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not Path(f"/proc/{lost}").exists()


def test_closing_ends_those_who_wait_and_blames_no_picture(faulty: IsolatedOpener) -> None:
    with ThreadPoolExecutor(1) as threads:
        fate = threads.submit(opened, faulty, jpeg(70) + SLOW)
        time.sleep(0.2)
        faulty.close()
        assert isinstance(fate.exception(5), DecoderError)
    assert not faulty.journal._crashes


def test_large_picture_gives_its_shared_memory_back(honest: IsolatedOpener, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssShmem:")[2].split()[0])

    monkeypatch.setattr(isolated, "_KEPT_BYTES", 1 << 20)
    opened(honest, jpeg(80))
    before = shared_kib()
    image = np.full((100, 7000, 3), 7, np.uint8)  # few bytes, many pixels, too low to be opened at a reduced scale
    picture = opened(honest, cv2.imencode(".png", image)[1].tobytes())
    assert picture.pixels.nbytes > 2_000_000
    assert shared_kib() < before + 1500


def test_large_pictures_are_opened_one_at_a_time_and_hold_up_no_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE_PIXELS", 200 * 200)
    large, small = (cv2.imencode(".png", np.zeros((side, 200, 3), np.uint8))[1].tobytes() for side in (201, 200))
    open_now, most, go_on = 0, 0, threading.Event()
    lock = threading.Lock()

    def open_picture(image: bytes, digest: str) -> Picture:
        nonlocal open_now, most
        if image == large:
            with lock:
                open_now += 1
                most = max(most, open_now)
            assert go_on.wait(10)
            with lock:
                open_now -= 1
        return OPENER(image, digest)

    decoder = Decoder(open_picture, 1 << 22)
    with ThreadPoolExecutor(4) as threads:
        fates = [threads.submit(decoder, raw_frame(payload=large)) for _ in range(3)]
        assert decoder(raw_frame(payload=small)).error is None
        time.sleep(0.2)  # so that a second one would be open by now
        go_on.set()
        assert [fate.result(10).error for fate in fates] == [None] * 3
    assert most == 1


def test_decoder_process_that_cannot_start_is_a_sentence_and_ends_the_intake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_MODULE", "tests.edge.no_such_module")
    with pytest.raises(DecoderError, match="did not start"):
        IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal())
    late = IsolatedOpener(OPENER, PICTURE_BYTES, 0, PoisonJournal())
    intake = Intake(Mailbox("every", 10, 1 << 24), Decoder(late, 1 << 22), workers=1, ahead=4)
    intake.start()
    intake.put(raw_frame(payload=jpeg()))
    with pytest.raises(DecoderError):
        intake.next_batch(1, 0.0, 10.0)
    intake.close()


def test_child_holds_no_descriptor_of_the_worker_and_ends_with_it(honest: IsolatedOpener) -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    fresh = IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal())
    os.close(secret)
    process = fresh._children[0]._process
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    held = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    assert held == 4 + isolated.IN_FLIGHT  # requests, /dev/null twice, the shared memory, answers
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(5.0) == 0
    fresh.close()


def test_worker_dead_letters_the_poison_once_and_judges_its_neighbours(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_MODULE", "tests.edge.decode_child_fault")
    prefix = "poison"
    changes = {"mqtt": {"url": mosquitto.url, "prefix": prefix}, "decode": {"mode": "isolated", "workers": 1}}
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump(demo_config(mosquitto.url, **{**changes, "mailbox": {"policy": "every"}})))
    worker = Worker(load_config(path, {}))
    pictures = small_pictures()[:4]
    letters = "edge/test-worker/deadletter"
    worker.start()
    try:
        wait_for(lambda: worker.health.ready()[0], 20, "readiness")
        with Verdicts(client(mosquitto, "reader"), prefix, (letters,)) as verdicts:
            with Camera(client(mosquitto, "sender"), "feeder", 20, prefix, [*pictures, pictures[0] + ABORT]) as camera:
                wait_for(lambda: len(verdicts.other) >= 2, 20, "two dead letters")
            wait_for(lambda: len(verdicts.all) + len(verdicts.other) >= len(camera.accepted), 10, "an end for all")
            letter = json.loads(verdicts.other[0][1])
            assert "killed its decoder twice" in letter["reason"]
            assert len(verdicts.other) == sum(int(name) % 5 == 4 for name in camera.accepted)
            assert {verdict["verdict"] for verdict in verdicts.all} <= {"positive", "negative"}
        wait_for(lambda: worker.health.snapshot()["counters"]["acked"] >= len(camera.accepted), 5, "all acknowledged")
    finally:
        worker.stop()
