"""``edge check``: each fault of broker, rights, models and gate with a sentence of its own, and the right exit code.

What certificates and access lists forbid is in ``test_access.py``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.check import Finding, check, pins
from edge.config_file import load_config
from edge.spool_lock import lock_folder
from tests.authority import Authority
from tests.edge.worker_process import MODELS, demo_config
from tests.mosquitto import Broker, free_port, password_lines


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., dict[str, Finding]]:
    """Writes a configuration and gives the findings by stage."""

    def run(url: str, **changes: Any) -> dict[str, Finding]:
        path = tmp_path / "edge.yaml"
        path.write_text(yaml.safe_dump(demo_config(url, **changes)))
        return {finding.stage: finding for finding in check(path, {})}

    return run


def password(folder: Path, text: str) -> str:
    """A password file."""
    path = folder / "password"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def copied_models(folder: Path) -> Path:
    """The demo's models in a folder that a test may damage."""
    return Path(shutil.copytree(MODELS, folder / "models"))


def on(models: Path) -> dict[str, Any]:
    """The sections that name the files in ``models``."""
    return {
        "features": {"model": str(models / "features.onnx")},
        "gate": {"file": str(models / "gate.npz")},
        "species": {"model": str(models / "species.onnx")},
    }


def test_all_well(mosquitto: Broker, examine: Callable[..., dict[str, Finding]]) -> None:
    findings = examine(mosquitto.url)
    assert {finding.exit_code for finding in findings.values()} == {0}
    assert {"config", "features", "species", "gate", "self-test", "tcp", "login", "subscribe", "test frame"} <= set(
        findings
    )


def test_spool_folder(examine: Callable[..., dict[str, Finding]], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    url = f"mqtt://127.0.0.1:{free_port()}"
    assert examine(url, spool={"folder": str(tmp_path / "new" / "spool")})["spool"].exit_code == 0
    bad = examine(url, spool={"folder": str(tmp_path / "file" / "spool")})["spool"]
    assert bad.exit_code == 78
    assert "spool.folder" in bad.sentence
    assert "spool" not in examine(url)


def test_spool_folder_that_a_running_worker_has_is_told_and_left_to_it(
    examine: Callable[..., dict[str, Finding]], tmp_path: Path
) -> None:
    own = tmp_path / "test-worker"
    lock = lock_folder(own)
    assert lock is not None
    held = examine("mqtt://127.0.0.1:1", spool={"folder": str(tmp_path)})["spool"]
    assert (held.warning, held.exit_code) == (True, 0)
    assert f"the spool in {own} belongs to another running worker of this name" in held.sentence
    os.close(lock)
    assert not examine("mqtt://127.0.0.1:1", spool={"folder": str(tmp_path)})["spool"].warning
    again = lock_folder(own, 0.0)
    assert again is not None, "the check has let go of it"
    os.close(again)


def test_broker_down(examine: Callable[..., dict[str, Finding]]) -> None:
    finding = examine(f"mqtt://127.0.0.1:{free_port()}")["tcp"]
    assert finding.exit_code == 75
    assert "is the broker running" in finding.sentence


def test_unknown_host(examine: Callable[..., dict[str, Finding]]) -> None:
    finding = examine("mqtt://no-such-host.invalid")["name"]
    assert finding.exit_code == 75
    assert "does not resolve" in finding.sentence


@pytest.mark.parametrize("version", [5, "3.1.1"])
def test_wrong_password(
    broker_with: Callable[..., Broker], tmp_path: Path, examine: Callable[..., dict[str, Finding]], version: Any
) -> None:
    broker = broker_with(*password_lines(tmp_path / "users", {"orin": "secret"}))
    mqtt = {"url": broker.url, "version": version, "username": "orin"}
    good = examine(broker.url, mqtt={**mqtt, "password_file": password(tmp_path, "secret\n")})
    assert good["login"].exit_code == 0
    bad = examine(broker.url, mqtt={**mqtt, "password_file": password(tmp_path, "wrong")})["login"]
    assert bad.exit_code == 78
    assert "refuses the connection" in bad.sentence
    assert "orin" in bad.sentence
    assert "wrong" not in bad.sentence, "the password itself must not be shown"


def test_denied_publication_is_a_warning(
    broker_with: Callable[..., Broker], tmp_path: Path, examine: Callable[..., dict[str, Finding]]
) -> None:
    (tmp_path / "acl").write_text("topic read cameras/#\ntopic write cameras/+/verdict\ntopic write edge/#\n")
    finding = examine(broker_with(f"acl_file {tmp_path}/acl").url)["test frame"]
    assert finding.warning
    assert finding.exit_code == 0


@pytest.fixture
def secure(broker_with: Callable[..., Broker], authority: Authority) -> Broker:
    """A broker with TLS."""
    server = authority.issue("broker")
    return broker_with(f"cafile {authority.ca_file}", f"certfile {server.cert}", f"keyfile {server.key}")


def test_tls_that_verifies(secure: Broker, authority: Authority, examine: Callable[..., dict[str, Finding]]) -> None:
    findings = examine(secure.url, mqtt={"url": secure.url, "ca_file": str(authority.ca_file)})
    assert findings["test frame"].exit_code == 0


def test_mutual_tls(
    broker_with: Callable[..., Broker], authority: Authority, examine: Callable[..., dict[str, Finding]]
) -> None:
    server, own = authority.issue("broker"), authority.issue("orin-07")
    lines = (f"cafile {authority.ca_file}", f"certfile {server.cert}", f"keyfile {server.key}")
    broker = broker_with(*lines, "require_certificate true", "use_identity_as_username true")
    mqtt = {"url": broker.url, "ca_file": str(authority.ca_file)}
    without = examine(broker.url, mqtt=mqtt)["login"]
    assert without.exit_code != 0
    assert "client certificate" in without.sentence
    given = examine(broker.url, mqtt={**mqtt, "cert_file": str(own.cert), "key_file": str(own.key)})
    assert given["test frame"].exit_code == 0


def test_model_missing(mosquitto: Broker, examine: Callable[..., dict[str, Finding]], tmp_path: Path) -> None:
    finding = examine(mosquitto.url, features={"model": str(tmp_path / "none.onnx")})["models"]
    assert finding.exit_code == 78
    assert "none.onnx" in finding.sentence


@pytest.mark.parametrize("name", ["features.onnx", "species.onnx", "gate.npz"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "garbage"])
def test_damaged_artifact(
    mosquitto: Broker, examine: Callable[..., dict[str, Finding]], tmp_path: Path, name: str, damage: str
) -> None:
    models = copied_models(tmp_path)
    data = bytearray((models / name).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    damaged = {"flip": bytes(data), "truncate": bytes(data[: len(data) // 2]), "empty": b"", "garbage": b"x" * 5000}
    (models / name).write_bytes(damaged[damage])
    finding = examine(mosquitto.url, **on(models))["models"]
    assert finding.exit_code == 78
    assert name in finding.sentence


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", '{"format": 99}', '{"format": 1, "name": NaN}', "[" * 50_000, '{"format": 1}']
)
def test_broken_manifest(
    mosquitto: Broker, examine: Callable[..., dict[str, Finding]], tmp_path: Path, manifest: str
) -> None:
    models = copied_models(tmp_path)
    (models / "features.onnx.json").write_text(manifest)
    finding = examine(mosquitto.url, **on(models))["models"]
    assert finding.exit_code == 78
    assert "features.onnx.json" in finding.sentence


def test_gate_of_another_feature_model(
    mosquitto: Broker, examine: Callable[..., dict[str, Finding]], tmp_path: Path
) -> None:
    models = copied_models(tmp_path)
    path = models / "features.onnx.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "origin": "0" * 64, "digest": None}))
    finding = examine(mosquitto.url, **on(models))["models"]
    assert finding.exit_code == 78
    assert "gate" in finding.sentence
    assert "calibrate fit" in finding.sentence


def test_swapped_tasks(mosquitto: Broker, examine: Callable[..., dict[str, Finding]]) -> None:
    finding = examine(mosquitto.url, features={"model": str(MODELS / "species.onnx")})["models"]
    assert finding.exit_code == 78
    assert "task" in finding.sentence


def test_pins_are_accepted_and_a_wrong_one_is_refused(
    mosquitto: Broker, examine: Callable[..., dict[str, Finding]], tmp_path: Path
) -> None:
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump(demo_config(mosquitto.url)))
    found = pins(load_config(path, {}))
    sections = on(MODELS)
    keys = [tuple(key.split(".")) for key in found]
    pinned = {
        name: {**section, **{key: found[f"{name}.{key}"] for owner, key in keys if owner == name}}
        for name, section in sections.items()
    }
    assert len(keys) == 5
    assert all(finding.exit_code == 0 for finding in examine(mosquitto.url, **pinned).values())
    for name, key in keys:
        wrong = {**pinned, name: {**pinned[name], key: "0" * 64}}
        assert examine(mosquitto.url, **wrong)["models"].exit_code == 78


def test_faulty_configuration(examine: Callable[..., dict[str, Finding]]) -> None:
    finding = examine("mqtt://localhost", batch={"max": 0}, colour="red")["config"]
    assert finding.exit_code == 78
    assert "batch" in finding.sentence
    assert "colour" in finding.sentence
