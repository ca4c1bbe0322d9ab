from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from edge.health import Health
from edge.records import Outcome, Species
from tests.edge.chrome import CHROMIUM, Tab, chromium
from tests.edge.status import ready_health, serving, verdict

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]
JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
HOSTILE = "<img src=x onerror=document.title='owned'><b>bold</b>"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _clean(tab: Tab) -> None:
    tab.complaints.clear()
    tab.requests.clear()


def two_cameras() -> Health:
    health = ready_health()
    health.truth("feeder", "macaw", True)
    health.verdict(verdict("feeder"), JPEG, "image/jpeg")
    health.truth("pond", "cockatoo", True)
    health.verdict(verdict("pond", Outcome.NEGATIVE, probability=0.04), JPEG, "image/jpeg")
    return health


def text(tab: Tab, selector: str) -> str:
    return str(tab.evaluate(f"document.querySelector({selector!r}).innerText"))


def test_page_shows_verdict_species_truth_and_picture_of_each_camera(tab: Tab) -> None:
    with serving(two_cameras()) as server:
        tab.open(server.url)
        tab.wait("document.querySelectorAll('.tile .frame img').length === 2")
        assert text(tab, "#worker") == "orin-07"
        assert text(tab, "#state-word") == "Ready"
        feeder = text(tab, "[data-camera=feeder]")
        for wanted in ("feeder", "Positive", "Scarlet Macaw", "Ara macao", "0.97", "threshold 0.50", "right", "macaw"):
            assert wanted in feeder
        pond = text(tab, "[data-camera=pond]")
        for wanted in ("Negative", "0.04", "wrong", "cockatoo"):
            assert wanted in pond
        assert all(address.startswith(server.url) for address in tab.requests)
        assert tab.complaints == []


def test_page_updates_by_itself_and_reloads_only_the_changed_picture(tab: Tab) -> None:
    health = two_cameras()
    with serving(health) as server:
        tab.open(server.url)
        tab.wait("document.querySelectorAll('.tile .frame img').length === 2")
        tab.evaluate("document.querySelector('[data-camera=pond] img').kept = true")
        health.verdict(verdict("feeder", Outcome.UNCERTAIN, probability=0.5), JPEG, "image/jpeg")
        tab.wait("document.querySelector('[data-camera=feeder]').innerText.includes('Uncertain')")
        tab.wait("document.querySelector('[data-camera=feeder] img').src.endsWith('v=3')")
        assert tab.evaluate("document.querySelector('[data-camera=pond] img').kept") is True
        assert sum("/pond/frame" in address for address in tab.requests) == 1


def test_page_is_usable_with_the_keyboard(tab: Tab) -> None:
    with serving(two_cameras()) as server:
        tab.open(server.url)
        tab.wait("document.querySelectorAll('.tile').length === 2")
        for _ in range(2):
            tab.press("Tab", 9)
        assert tab.evaluate("document.activeElement.dataset.camera") == "pond"
        label = tab.evaluate("document.activeElement.getAttribute('aria-label')")
        assert label.startswith("pond: negative, Not ours, probability 0.04, truth cockatoo, wrong")
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        tab.press("Enter", 13)
        tab.wait("document.getElementById('large').open")
        assert text(tab, "#large-title") == "pond"
        tab.press("ArrowRight", 39)
        tab.wait("document.getElementById('large-title').textContent === 'feeder'")
        tab.press("Escape", 27)
        tab.wait("!document.getElementById('large').open")
        # the dialog gives the focus back to where it was, and only then the page moves it on
        tab.wait("document.activeElement.dataset.camera === 'feeder'")


def test_page_shows_hostile_words_as_words(tab: Tab) -> None:
    health = ready_health()
    health.set_state("not-ready", HOSTILE)
    health.truth("feeder", HOSTILE, False)
    health.verdict(verdict(species=(Species(HOSTILE, 0.5),)), None, None)
    health.verdict(verdict("pond", Outcome.ERROR, error=HOSTILE), None, None)
    with serving(health) as server:
        tab.open(server.url)
        tab.wait("document.querySelectorAll('.tile').length === 2")
        assert HOSTILE in text(tab, "#state-why")
        assert HOSTILE in text(tab, "[data-camera=feeder] .kind")
        assert HOSTILE in text(tab, "[data-camera=pond] .kind")
        assert tab.evaluate("document.title") == "orin-07: not ready – Parrotgate"


def test_page_says_when_the_worker_stops_answering(tab: Tab) -> None:
    with serving(two_cameras()) as server:
        tab.open(server.url)
        tab.wait("document.querySelectorAll('.tile').length === 2")
        assert tab.evaluate("document.getElementById('silent').hidden") is True
    tab.wait("!document.getElementById('silent').hidden")
    assert "No answer from the worker for" in text(tab, "#silent")


class Slow(BaseHTTPRequestHandler):
    """A page and its script, each half a second late."""

    def do_GET(self) -> None:
        time.sleep(0.5)
        page = b"<title>new</title><p>here</p><script src=late.js></script>"
        body, kind = (b"document.title = 'late'", "text/javascript") if self.path == "/late.js" else (page, "text/html")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_page_that_is_slow_is_not_read_before_it_has_loaded(tab: Tab) -> None:
    """Of the harness: the page before is gone, and scripts have run."""
    with serving(two_cameras()) as status:
        tab.open(status.url)
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            tab.open(f"http://127.0.0.1:{server.server_port}/")
            assert tab.evaluate("[document.title, document.querySelectorAll('p').length]") == ["late", 1]
        finally:
            server.shutdown()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("cameras", [0, 1, 100])
def test_page_never_scrolls_sideways(tab: Tab, width: int, cameras: int) -> None:
    health = ready_health()
    for i in range(cameras):
        health.verdict(verdict(f"{'long-camera-name-' * 3}{i:04d}"), JPEG, "image/jpeg")
    with serving(health) as server:
        tab.open(server.url, width)
        tab.wait(f"document.querySelectorAll('.tile').length === {cameras}")
        tab.wait("document.getElementById('state-word').textContent === 'Ready'")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.getElementById('empty').hidden") is (cameras > 0)
