"""The end of a worker: what is decoded is judged, and an engine that fails then keeps nothing from its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.config_file import load_config
from edge.worker import Worker
from engines import EngineRunError
from tests.edge.worker_process import Verdicts, client, demo_config, wait_for
from tests.mosquitto import Broker

STATUS = "edge/test-worker/status"


@pytest.mark.mosquitto
def test_engine_that_fails_on_the_last_batch_does_not_keep_the_worker_from_saying_that_it_stopped(
    mosquitto: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump(demo_config(mosquitto.url, mqtt={"url": mosquitto.url, "prefix": "drain"})))
    worker = Worker(load_config(path, {}))
    worker.start()
    with Verdicts(client(mosquitto, "reader"), "drain", (STATUS,)) as seen:
        try:
            wait_for(lambda: worker.health.ready()[0], 30, "readiness")
            tried: list[int] = []

            def fail(batch: list[Any]) -> None:
                tried.append(len(batch))
                raise EngineRunError("the device is gone")

            monkeypatch.setattr(worker._judge, "begin", fail)
            monkeypatch.setattr(worker._intake, "close", lambda timeout_s: [object()] * (worker.config.batch.max + 1))
        finally:
            worker.stop()
        assert tried == [worker.config.batch.max, 1]
        wait_for(lambda: (STATUS, b"stopped") in seen.other, 10, "its last word")
