"""The configuration: what is accepted, every fault at once with its line, variables over files."""

from __future__ import annotations

import logging
import os
import string
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge.config import Config, MqttConfig
from edge.config_file import config_schema, load_config, read_password
from edge.errors import ConfigError

SMALLEST = "worker: box\nfeatures: {model: net.onnx}\ngate: {file: gate.npz}\n"

# DESIGN's own example, word for word.
EXAMPLE = """\
worker: orin-07
mqtt: {url: mqtt://localhost:1883, version: 5, client_id: null, prefix: cameras, share_group: null, session_expiry_s: 86400,   # client_id null: the worker's name
       username: null, password_file: null, ca_file: null, cert_file: null, key_file: null, keepalive_s: 30}
features: {model: models/resnet50.plan, device: auto, build: never, sha256: null}    # build: never | auto; sha256 pins a file (`edge check --pin` prints the pins)
gate: {file: models/parrots.gate.npz, threshold: null, abstain: null, sha256: null}    # null: the file's own
species: {model: models/birds.plan, top: 3}
batch: {max: 8, wait_ms: 0}
mailbox: {policy: latest, max_frames: 256, max_mib: 256, max_frame_mib: 8}
decode: {mode: threads, workers: auto}      # threads | isolated
skip_unchanged: false
cameras:
  feeder: {threshold: 0.7}
status: {host: 127.0.0.1, port: 8088}
"""  # noqa: E501 - as published


def write(folder: Path, text: str) -> Path:
    path = folder / "edge.yaml"
    path.write_text(text)
    return path


def load(folder: Path, text: str, **environ: str) -> Config:
    return load_config(write(folder, text), environ)


def faults(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    return caught.value.faults


def test_config_of_the_design_loads_with_its_own_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, EXAMPLE)
    smallest = load(tmp_path, SMALLEST)
    assert config.cameras["feeder"].threshold == 0.7
    assert config.species is not None
    assert config.species.top == 3
    for section in ("mqtt", "batch", "mailbox", "decode", "skip_unchanged", "publish", "status"):
        assert getattr(config, section) == getattr(smallest, section)


def test_config_paths_are_relative_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, SMALLEST)
    monkeypatch.chdir(tmp_path)
    config = load_config("edge.yaml", {"EDGE_FEATURES__MODEL": "/models/a.onnx"})
    assert config.gate.file == tmp_path / "gate.npz"
    assert config.features.model == Path("/models/a.onnx")


def test_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        config.worker = "other"  # type: ignore[misc]  # the point of the test


def test_client_id_is_the_workers_name_unless_given(tmp_path: Path) -> None:
    assert load(tmp_path, SMALLEST).client_id == "box"
    assert load(tmp_path, SMALLEST + "mqtt: {client_id: 'a:b'}").client_id == "a:b"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://localhost", "localhost", 1883, False),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtt://10.0.0.7:2883/", "10.0.0.7", 2883, False),
        ("mqtts://[::1]:9", "::1", 9, True),
    ],
)
def test_broker_url_gives_host_port_and_tls(url: str, host: str, port: int, tls: bool) -> None:
    mqtt = MqttConfig(url=url)
    assert (mqtt.host, mqtt.port, mqtt.tls) == (host, port, tls)


def test_receive_maximum_keeps_every_frame_within_the_memory_bound(tmp_path: Path) -> None:
    every = SMALLEST + "mailbox: {policy: every, "
    assert load(tmp_path, every + "max_frames: 256}").mailbox.receive_maximum == 32
    assert load(tmp_path, every + "max_frames: 4}").mailbox.receive_maximum == 4
    assert load(tmp_path, SMALLEST).mailbox.receive_maximum == 256


def test_threshold_of_a_camera_falls_back_to_the_gates(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST + "cameras: {a: {threshold: 0.9}, b: {}}", EDGE_GATE__THRESHOLD="0.6")
    assert [config.threshold_of(name) for name in ("a", "b", "c")] == [0.9, 0.6, 0.6]


# text added to the smallest file (its three lines stand first) -> the one fault
FAULTS = {
    "mqtt: {url: 'http://x'}": "line 4: mqtt.url should start with mqtt:// or mqtts://, not 'http://x'",
    "mqtt: {url: 'mqtt://'}": "line 4: mqtt.url should name a host",
    "mqtt: {url: 'mqtt://x:0'}": "line 4: mqtt.url should have a port from 1 to 65535",
    "mqtt: {url: 'mqtt://x:99999'}": "line 4: mqtt.url should have a port from 1 to 65535",
    "mqtt: {url: 'mqtt://x/a'}": "line 4: mqtt.url should end after the port",
    "mqtt: {url: 'mqtt://[::1'}": "line 4: mqtt.url Invalid IPv6 URL",
    "mqtt: {version: 3.1}": "line 4: mqtt.version should be 5 or '3.1.1', not 3.1",
    "mqtt: {prefix: /a}": "line 4: mqtt.prefix '/a' does not fit: Topic levels before <camera>/frame",
    "mqtt: {prefix: a/+}": "line 4: mqtt.prefix 'a/+' does not fit",
    "mqtt: {prefix: a//b}": "line 4: mqtt.prefix 'a//b' does not fit",
    "mqtt: {prefix: $SYS}": "line 4: mqtt.prefix '$SYS' does not fit",
    "mqtt:\n  share_group: g\n  session_expiry_s: 599": "line 6: mqtt.session_expiry_s should be 600 or more",
    "mqtt: {session_expiry_s: -1}": "line 4: mqtt.session_expiry_s should be greater than or equal to 0, not -1",
    "mqtt: {password_file: p}": "line 4: mqtt.password_file needs mqtt.username beside it",
    "mqtt: {ca_file: ca.pem}": "line 4: mqtt.ca_file is for TLS only",
    "mqtt: {url: 'mqtts://x', cert_file: c}": "line 4: mqtt.key_file and mqtt.cert_file belong together",
    "mqtt: {url: 'mqtts://x', key_file: k}": "line 4: mqtt.key_file and mqtt.cert_file belong together",
    "mqtt: {username: ''}": "line 4: mqtt.username String should have at least 1 character",
    "mqtt: [1]": "line 4: mqtt should hold keys and values, not [1]",
    "mqtt:": "line 4: mqtt should hold keys and values, not null",
    "species: {top: 3}": "line 4: 'species.model' is missing: Classifier with its manifest",
    "species: {model: m, top: 0}": "line 4: species.top should be greater than or equal to 1, not 0",
    "batch: {max: 257}": "line 4: batch.max should be less than or equal to 256, not 257",
    "batch: {max: true}": "line 4: batch.max should be a whole number, not True",
    "batch: {max: 2.0}": "line 4: batch.max should be a whole number, not 2.0",
    "batch: {wait_ms: .nan}": "line 4: batch.wait_ms should be a finite number, not nan",
    "mailbox: {policy: newest}": "line 4: mailbox.policy should be 'latest' or 'every', not 'newest'",
    "mailbox: {max_mib: 4}": "line 4: mailbox.max_frame_mib should not exceed mailbox.max_mib, which is 4, not 8",
    "decode: {mode: fork}": "line 4: decode.mode should be 'threads' or 'isolated', not 'fork'",
    "decode: {workers: 0}": "line 4: decode.workers should be auto or a whole number from 1 to 64, not 0",
    "decode: {formats: [jpeg, gif]}": "line 4: decode.formats.1 should be 'jpeg', 'png' or 'webp', not 'gif'",
    "decode: {formats: []}": "line 4: decode.formats Tuple should have at least 1 item",
    "decode: {workers: true}": "line 4: decode.workers should be auto or a whole number from 1 to 64, not True",
    "skip_unchanged: 1": "line 4: skip_unchanged should be true or false, not 1",
    "cameras: {_a: {}}": "line 4: the camera name '_a' should be 1 to 64 letters",
    "cameras: {a b: {}}": "line 4: the camera name 'a b' should be 1 to 64 letters",
    "cameras:\n  a: {threshold: 2}": "line 5: cameras.a.threshold should be less than or equal to 1, not 2",
    "cameras:\n  a: {treshold: 1}": "line 5: unknown key 'cameras.a.treshold'; did you mean 'threshold'?",
    "status: {port: 65536}": "line 4: status.port should be less than or equal to 65535, not 65536",
    "statsu: {}": "line 4: unknown key 'statsu'; did you mean 'status'?",
    "url: mqtt://x": "line 4: unknown key 'url'; did you mean 'mqtt.url'?",
    "Batch: {}": "line 4: unknown key 'Batch'; did you mean 'batch'?",
    "worker: twice": "line 4: 'worker' stands here again, first on line 1",
    "batch: {max: 1, max: 2}": "line 4: 'batch.max' stands here again, first on line 4",
    "? [a]\n: 1": "line 4: a key should be plain text",
}


@pytest.mark.parametrize("text", FAULTS)
def test_config_names_a_fault_with_its_line(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, SMALLEST + text)
    assert fault.startswith(FAULTS[text])


GATE_FAULTS = {
    "threshold: 1.01": "gate.threshold should be less than or equal to 1, not 1.01",
    "threshold: .inf": "gate.threshold should be a finite number, not inf",
    "threshold: '0.5'": "gate.threshold should be a number, not '0.5'",
    "abstain: [0.6, 0.4]": "gate.abstain should be [low, high] with low <= high",
    "threshold: 0.7, abstain: [0.4, 0.6]": "gate.abstain should hold gate.threshold, which is 0.7",
    "abstain: 0.4": "gate.abstain should be a list such as [0.4, 0.6], not 0.4",
    "sha256: abc": "gate.sha256 'abc' does not fit: Pin",
}


@pytest.mark.parametrize("inside", GATE_FAULTS)
def test_gate_section_names_its_fault(tmp_path: Path, inside: str) -> None:
    (fault,) = faults(tmp_path, f"worker: box\nfeatures: {{model: m}}\ngate: {{file: g, {inside}}}\n")
    assert fault.startswith(f"line 3: {GATE_FAULTS[inside]}")


def test_camera_threshold_outside_the_abstain_band_is_named_where_it_stands(tmp_path: Path) -> None:
    text = (
        SMALLEST.replace("gate.npz}", "gate.npz, abstain: [0.4, 0.6]}") + "cameras:\n  a: {}\n  b: {threshold: 0.7}\n"
    )
    (fault,) = faults(tmp_path, text)
    assert fault.startswith("line 6: cameras.b.threshold should lie in gate.abstain, which is [0.4, 0.6]")


def test_config_reports_every_fault_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = "worker: a b\nmqtt: {url: x, keepalive_s: 1}\nbatch: {max: 0}\ngate: {file: g}\nspcies: null\n"
    found = faults(tmp_path, text, EDGE_STATUS__PORT="x")
    assert [fault.split(":")[0] for fault in found] == ["line 1"] * 2 + ["line 2"] * 2 + [
        "line 3",
        "line 5",
        "EDGE_STATUS__PORT",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file should hold keys and values"),
        ("- 1", "the file should hold keys and values"),
        ("worker: [", "line 1: "),
        ("a: 1\n b: 2", "line 2: "),
        ("worker: !!python/object:os.system x", "line 1: could not determine a constructor"),
        ("a: &x 1\nb: *x", "line 2: aliases (*name) are not taken"),
        ("worker: " + "[" * 5000, "line 1: nested too deep"),
        ("worker: 2026-13-45", "line 1: month must be in 1..12"),
        ("worker: a\x00b", "special characters are not allowed"),
    ],
)
def test_config_that_is_no_plain_yaml_is_refused_in_one_sentence(tmp_path: Path, text: str, fault: str) -> None:
    (found,) = faults(tmp_path, text)
    assert fault in found


def test_config_file_that_is_missing_too_large_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml", {})
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_config(large, {})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"worker: \xff")
    with pytest.raises(ConfigError, match="byte 8 is not"):
        load_config(binary, {})


def test_fault_never_repeats_a_password_from_the_url(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, SMALLEST + "mqtt: {url: 'mqtt://me:hunter2@x'}")
    assert "mqtt.password_file" in fault
    assert "hunter2" not in fault


def test_variables_override_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        EXAMPLE,
        EDGE_WORKER="0123",
        EDGE_MQTT__URL="mqtts://far:9",
        EDGE_MQTT__VERSION="3.1.1",
        EDGE_MQTT__USERNAME="42",
        EDGE_GATE__THRESHOLD="0.6",
        EDGE_GATE__ABSTAIN="[0.5, 0.7]",
        EDGE_SPECIES="null",
        EDGE_CAMERAS__Nest_2__THRESHOLD="0.65",
    )
    assert (config.worker, config.mqtt.url, config.mqtt.version, config.mqtt.username) == (
        "0123",
        "mqtts://far:9",
        "3.1.1",
        "42",
    )
    assert (config.gate.threshold, config.gate.abstain, config.species) == (0.6, (0.5, 0.7), None)
    assert config.cameras["Nest_2"].threshold == 0.65
    assert config.cameras["feeder"].threshold == 0.7


def test_variable_of_a_section_gives_way_to_those_of_its_keys(tmp_path: Path) -> None:
    config = load(tmp_path, SMALLEST, EDGE_BATCH="{max: 2, wait_ms: 5}", EDGE_BATCH__MAX="4")
    assert (config.batch.max, config.batch.wait_ms) == (4, 5)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("EDGE_GATE__THRESHOLD", "2", "gate.threshold should be less than or equal to 1, not 2"),
        ("EDGE_MQTT__URLS", "x", "no such key; did you mean EDGE_MQTT__URL?"),
        ("EDGE_MQTT_URL", "x", "no such key; did you mean EDGE_MQTT__URL?"),
        ("EDGE_WORKR", "x", "no such key; did you mean EDGE_WORKER?"),
        ("EDGE_QUUX__ZZZ", "x", "no such key; `edge schema config` lists them"),
        ("EDGE_BATCH", "{max: [}", "line 1: "),
        ("EDGE_CAMERAS___a__THRESHOLD", "0.5", "the camera name '_a' should be"),
    ],
)
def test_fault_in_a_variable_names_the_variable(tmp_path: Path, name: str, value: str, fault: str) -> None:
    (found,) = faults(tmp_path, SMALLEST, **{name: value})
    assert found.startswith(f"{name}: {fault}")


def test_variables_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    load(tmp_path, SMALLEST, EDGE_PORT="tcp://10.0.0.1:1883", EDGE_SERVICE_HOST="10.0.0.1", KNOWLEDGE="x")


NAMES = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=64)


# `null` in a variable is no name: it stands for the default.
@given(
    worker=NAMES.filter(lambda name: name.lower() != "null"),
    camera=NAMES,
    low=st.floats(0, 1),
    high=st.floats(0, 1),
    port=st.integers(0, 65535),
)
def test_any_legal_value_survives_the_way_through_a_variable(
    tmp_path_factory: pytest.TempPathFactory, worker: str, camera: str, low: float, high: float, port: int
) -> None:
    low, high = sorted((low, high))
    environ = {
        "EDGE_WORKER": worker,
        f"EDGE_CAMERAS__{camera}__THRESHOLD": yaml.safe_dump(high),
        "EDGE_GATE__ABSTAIN": yaml.safe_dump([low, high]),
        "EDGE_STATUS__PORT": str(port),
    }
    path = write(tmp_path_factory.getbasetemp(), SMALLEST)
    config = load_config(path, environ)
    assert (config.worker, config.gate.abstain, config.cameras[camera].threshold) == (worker, (low, high), high)
    assert config.status is not None
    assert config.status.port == port


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError):
        load_config(path, {"EDGE_WORKER": "box"})


def test_schema_is_valid_and_agrees_with_the_loader(tmp_path: Path) -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for text in (SMALLEST, EXAMPLE):
        validator.validate(yaml.safe_load(text))
    for wrong in (
        "mqtt: {version: 3.1}",
        "batch: {max: 257}",
        "statsu: {}",
        "cameras: {_a: {}}",
        "decode: {workers: 0}",
    ):
        assert not validator.is_valid(yaml.safe_load(SMALLEST + wrong)), wrong


def test_schema_explains_every_key() -> None:
    definitions = config_schema()["$defs"].values()
    for definition in (config_schema(), *definitions):
        assert all(len(key.get("description", "")) > 5 for key in definition["properties"].values())


def test_password_loses_one_newline_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" s3cret \n\n")
    path.chmod(0o600)
    assert read_password(MqttConfig(username="u", password_file=path)) == " s3cret \n"
    assert read_password(MqttConfig()) is None


def test_password_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    mqtt = MqttConfig(username="u", password_file=tmp_path / "password")
    with pytest.raises(ConfigError, match=r"mqtt.password_file cannot be read: No such file"):
        read_password(mqtt)
    (tmp_path / "password").write_text("\n")
    with pytest.raises(ConfigError, match="1 to 4096 bytes"):
        read_password(mqtt)


def test_password_file_that_everybody_reads_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "password"
    path.write_text("x")
    for mode, warnings in ((0o600, 0), (0o644, 1)):
        os.chmod(path, mode)
        with caplog.at_level(logging.WARNING):
            read_password(MqttConfig(username="u", password_file=path))
        assert len(caplog.records) == warnings
