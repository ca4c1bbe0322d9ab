"""Headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
]


class Tab:
    """One page; ``complaints`` are its errors and policy violations, ``requests`` the addresses it asked for."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._loaded: set[str] = set()  # the pages, by loader, whose load event has come
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are noted."""
        wanted = next(self._ids)
        self._connection.send(json.dumps({"id": wanted, "method": method, "params": params}))
        while True:
            message = self._receive(30.0)
            if message.get("id") == wanted:
                assert "error" not in message, message
                return dict(message["result"])

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 15.0) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.1)

    def press(self, key: str, code: int) -> None:
        """Press and release one key, with its Windows virtual key code."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def open(self, url: str, width: int = 1280, height: int = 800) -> None:
        """Show ``url`` in a window of this size; returns when it has loaded, scripts included."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        begun = self.call("Page.navigate", url=url)
        assert "errorText" not in begun, f"{url}: {begun['errorText']}"
        while begun["loaderId"] not in self._loaded:
            self._receive(30.0)

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next message; an event is noted."""
        message = dict(json.loads(self._connection.recv(timeout=seconds)))
        if "method" in message:
            self._note(message)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(event["params"]))
        if event["method"] == "Page.lifecycleEvent" and event["params"]["name"] == "load":
            self._loaded.add(event["params"]["loaderId"])


@contextmanager
def chromium() -> Iterator[Tab]:
    """A fresh browser with an empty profile."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                with connect(_first_tab(process), max_size=None) as connection:
                    yield Tab(connection)
            finally:
                process.terminate()


def _first_tab(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line)
        if found:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/json") as answer:
                tabs = json.load(answer)
            return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
    raise AssertionError("Chromium ended before it listened")
