from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from edge.health import Health, Limits
from edge.metrics import Exposition
from edge.records import Outcome
from tests.edge.status import ready_health, verdict


def busy_health() -> Health:
    health = ready_health(limits=Limits(cameras=5))
    health.received("feeder", 100)
    health.dropped("feeder", "newer frame")
    health.refused("bad topic")
    health.publish_failed("0x87")
    health.verdict(verdict(latency_ms={"total": 20.0}), None, None)
    health.verdict(verdict(latency_ms={"total": 3000.0}, outcome=Outcome.NEGATIVE), None, None)
    health.set_models({"gate": {"name": 'parrots "2"', "sha256": "1f3a", "device": "cpu"}})
    return health


def samples(health: Health) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text, _ = Exposition(health).render()
    families = parse_prometheus(text.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("frames_received_total", {"camera": "feeder"}, 1),
        ("received_bytes_total", {"camera": "feeder"}, 100),
        ("verdicts_total", {"camera": "feeder", "verdict": "positive"}, 1),
        ("verdicts_total", {"camera": "feeder", "verdict": "error"}, 0),
        ("frames_dropped_total", {"camera": "feeder", "reason": "newer frame"}, 1),
        ("messages_refused_total", {"reason": "bad topic"}, 1),
        ("publish_failures_total", {"reason": "0x87"}, 1),
        ("latency_seconds_bucket", {"stage": "total", "le": "0.025"}, 1),
        ("latency_seconds_bucket", {"stage": "total", "le": "+Inf"}, 2),
        ("latency_seconds_sum", {"stage": "total"}, 3.02),
        ("ready", {}, 1),
        ("broker_connected", {}, 1),
        ("state", {"state": "ready"}, 1),
        ("state", {"state": "draining"}, 0),
        ("model_info", {"role": "gate", "name": 'parrots "2"', "sha256": "1f3a", "device": "cpu", "engine": ""}, 1),
    ],
)
def test_render_busy_worker_tells(name: str, labels: dict[str, str], value: float) -> None:
    assert samples(busy_health())[f"parrotgate_{name}", frozenset(labels.items())] == pytest.approx(value)


def test_render_names_follow_the_conventions() -> None:
    text, content_type = Exposition(busy_health()).render()
    assert content_type.startswith("text/plain")
    for family in parse_prometheus(text.decode()):
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|mib|percent)(_|$)", family.name)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_render_openmetrics_when_asked_for_it() -> None:
    text, content_type = Exposition(busy_health()).render("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "parrotgate_verdicts" in {family.name for family in parse_openmetrics(text.decode())}


def test_render_many_cameras_and_reasons_stays_bounded() -> None:
    health = busy_health()
    Exposition(health).render()
    for i in range(200):
        health.dropped(f"cam-{i}", f"reason {i}")
        health.dropped("feeder", f"reason {i}")
        health.refused(f"reason {i}")
    assert len(samples(health)) < 250
