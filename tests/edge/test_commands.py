"""The commands as a person types them: publish, watch, demo, bench, schema, and what they say when it goes wrong."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
import yaml

from tests.edge.test_link import running, settings_for
from tests.edge.worker_process import ROOT, demo_config, small_pictures, wait_for
from tests.embedded import Embedded
from tests.mosquitto import Broker, free_port

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "dumb"}


def edge(*arguments: str, timeout: float = 60, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``edge`` with ``arguments`` to its end."""
    command = [sys.executable, "-m", "edge", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False, cwd=cwd or ROOT
    )


def mqtt_version(broker: Broker | Embedded) -> str:
    return str(broker.version)


def test_publish_a_folder_sends_each_picture_once(broker: Broker | Embedded, tmp_path: Path) -> None:
    prefix = f"t{secrets.token_hex(4)}"
    pictures = small_pictures()[:5]
    for number, picture in enumerate(pictures):
        (tmp_path / f"{number}.JPG").write_bytes(picture)
    (tmp_path / "notes.txt").write_text("not a picture")
    with running(settings_for(broker), f"{prefix}/+/frame") as reader:
        done = edge(
            "publish", str(tmp_path), "--camera", "yard", "--fps", "100", "--prefix", prefix, "--url", broker.url,
            "--mqtt", mqtt_version(broker),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        wait_for(lambda: len(reader.messages) == 5, 5, "five frames")
    assert [message.payload for message in reader.messages] == pictures
    assert {message.topic for message in reader.messages} == {f"{prefix}/yard/frame"}
    assert "5 frames" in done.stdout


def test_publish_a_video_names_its_frames(mosquitto: Broker, tmp_path: Path) -> None:
    prefix, path = f"t{secrets.token_hex(4)}", tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 50.0, (64, 48))
    for level in range(0, 200, 20):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    with running(settings_for(mosquitto), f"{prefix}/+/frame") as reader:
        done = edge("publish", str(path), "--camera", "clip", "--prefix", prefix, "--url", mosquitto.url)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: len(reader.messages) == 10, 5, "ten frames")
    assert [message.properties["frame_id"] for message in reader.messages] == [f"{n:06d}" for n in range(10)]
    assert all(message.payload.startswith(b"\xff\xd8") for message in reader.messages)


def test_publish_a_picture_that_the_broker_never_takes_counts_it_and_goes_on(broker_with: Any, tmp_path: Path) -> None:
    broker = broker_with("max_packet_size 20000")
    picture = small_pictures()[0]
    (tmp_path / "a.jpg").write_bytes(picture + bytes(50_000))
    (tmp_path / "b.jpg").write_bytes(picture)
    done = edge("publish", str(tmp_path), "--camera", "yard", "--fps", "100", "--url", broker.url)
    assert done.returncode == 1
    assert "1 frames" in done.stdout
    assert "1 refused" in done.stdout
    assert "a.jpg is over the broker's maximum packet size of 20000 bytes" in done.stderr


def test_watch_piped_says_that_the_broker_is_down() -> None:
    done = edge("watch", "--url", f"mqtt://127.0.0.1:{free_port()}", "--for", "1")
    assert done.returncode == 0
    assert "does not answer" in done.stderr


def test_watch_piped_prints_hostile_verdicts_on_one_line_each_without_escapes(mosquitto: Broker) -> None:
    prefix = f"t{secrets.token_hex(4)}"
    names = ["a\x1b]0;owned\x07", "a\n12:00:00  feeder  positive", "x" * 4000]
    for number, name in enumerate(names):
        verdict = {"camera": name, "verdict": "positive", "probability": 10**400, "species": {"label": name}}
        topic = f"{prefix}/{number}/verdict"
        retained = ["mosquitto_pub", "-p", str(mosquitto.port), "-q", "1", "-r", "-t", topic, "-s"]
        subprocess.run(retained, check=True, timeout=20, input=json.dumps(verdict).encode())
    done = edge("watch", "--url", mosquitto.url, "--prefix", prefix, "--for", "1.5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert len(lines) == len(names) + 1
    assert all(line.isprintable() and len(line) < 1000 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["publish", "missing", "--camera", "a"], 2, "does not exist"),
        (["publish", ".", "--camera", "a"], 2, "holds no picture"),
        (["publish", "broken.mp4", "--camera", "a"], 2, "cannot be opened as a video"),
        (["publish", ".", "--camera", "a/b"], 2, "camera name"),
        (["publish", ".", "--camera", "a", "--url", "http://x"], 78, "mqtt://"),
        (["watch", "--url", "mqtt://user:secret@x"], 78, "password_file"),
        (["watch", "--prefix", "a/#"], 78, "prefix"),
        (["publish", ".", "--camera", "a", "--prefix", "a/+"], 78, "prefix"),
        (["run", "--config", "missing.yaml"], 78, "missing.yaml"),
        (["check", "--config", "missing.yaml"], 78, "missing.yaml"),
        (["run"], 2, "--config"),
        (["fly"], 2, "fly"),
    ],
)
def test_wrong_use_ends_with_its_code_and_a_sentence(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    done = edge(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_run_with_wrong_password_ends_with_78(broker_with: Any, tmp_path: Path) -> None:
    broker = broker_with("allow_anonymous false")
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump(demo_config(broker.url)))
    done = edge("run", "--config", str(tmp_path / "edge.yaml"))
    assert done.returncode == 78
    assert "refuses the connection" in done.stderr


def test_run_while_the_broker_is_down_waits_and_stops_at_sigterm(tmp_path: Path) -> None:
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump(demo_config(f"mqtt://127.0.0.1:{free_port()}")))
    command = [sys.executable, "-m", "edge", "run", "--config", str(tmp_path / "edge.yaml"), "--log", "json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT) as process:
        assert process.stderr is not None
        said = [json.loads(process.stderr.readline())["message"]]
        while len(said) < 9 and "does not answer" not in said[-1]:
            said.append(json.loads(process.stderr.readline())["message"])
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
    assert "does not answer" in said[-1]
    assert [line for line in said if line.startswith("opened model=") and "device=cpu" in line]


def test_watch_piped_prints_a_line_a_verdict(mosquitto: Broker) -> None:
    prefix = f"t{secrets.token_hex(4)}"
    verdict = {"camera": "yard", "verdict": "positive", "probability": 0.97, "error": None,
               "species": {"label": "Ara macao", "probability": 0.8}}  # fmt: skip
    command = [sys.executable, "-m", "edge", "watch", "--url", mosquitto.url, "--prefix", prefix, "--for", "3"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT) as process,
        running(settings_for(mosquitto)) as writer,
    ):
        while process.poll() is None:
            writer.to_publish += [(f"{prefix}/yard/verdict", json.dumps(verdict).encode(), False),
                                  (f"{prefix}/yard/verdict", b"no verdict", False)]  # fmt: skip
            time.sleep(0.2)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert lines
    assert all("yard  positive  0.970  Ara macao 0.80" in line for line in lines)


def test_demo_ends_by_itself_with_a_summary() -> None:
    done = edge("demo", "--for", "4", "--cameras", "2", "--port", "0")
    assert done.returncode == 0, done.stderr
    for words in ("Status page: http://127.0.0.1:", "parrots recalled", "others accepted", "latency", "dropped"):
        assert words in done.stdout


def test_demo_on_a_port_that_was_asked_for_and_is_taken_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        done = edge("demo", "--for", "1", "--cameras", "1", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 75
    assert "port" in done.stderr


@pytest.mark.timeout(180)
def test_bench_prints_its_json_alone_and_touches_no_spool(mosquitto: Broker, tmp_path: Path) -> None:
    spool = {"folder": str(tmp_path / "spool")}
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump(demo_config(mosquitto.url, spool=spool)))
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(small_pictures()[:4]):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(picture)
    done = edge(
        "bench", "--config", str(tmp_path / "edge.yaml"), "--images", str(tmp_path / "pictures"),
        "--cameras", "2", "--for", "10", "--json", timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"path_fps", "loop_fps", "engine_fps", "ratio", "latency_ms", "rss_mib"} <= set(report)
    assert set(report["latency_ms"]) >= {"p50", "p99"}
    assert report["frames"] == report["inferences"] > 0
    assert report["path_fps"] > 0
    assert not (tmp_path / "spool").exists(), "a running worker may have it, and its journal of pictures"


def test_schemas_are_valid_and_the_verdicts_is_the_published_one() -> None:
    for what in ("config", "verdict"):
        done = edge("schema", what)
        jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))
    published = json.loads((ROOT / "edge/schemas/verdict.schema.json").read_text())
    assert json.loads(done.stdout) == published


def test_every_verdict_field_of_format_1_is_still_there() -> None:
    """Consumers rely on these: fields are only ever added."""
    promised = {
        "schema",
        "id",
        "camera",
        "frame_id",
        "captured_at",
        "judged_at",
        "verdict",
        "probability",
        "p_value",
        "threshold",
        "score",
        "species",
        "gate",
        "models",
        "reused",
        "dropped_before",
        "redelivered",
        "image",
        "latency_ms",
        "worker",
        "error",
    }
    published = json.loads((ROOT / "edge/schemas/verdict.schema.json").read_text())
    assert promised <= set(published["required"])
