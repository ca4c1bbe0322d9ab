"""Dockerfiles and compose.yaml: what they promise about rights, versions and health, read from the files themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.config_file import load_config
from engines.build import default_cache

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILES = ["deploy/Dockerfile.cpu", "Dockerfile.jetson"]
PINNED = re.compile(r"^[a-z0-9.-]+(/[a-z0-9._-]+)+:[A-Za-z0-9._-]*\d[A-Za-z0-9._-]*$")
SITE = "worker: box-1\nfeatures: {model: net.onnx}\ngate: {file: gate.npz}\n"


def instructions(name: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their words; continued lines are joined, comments left out."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


def stages(name: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, without those before the first FROM."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(name):
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return content


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, name], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_bases_are_arguments_with_a_pinned_default(name: str) -> None:
    defaults = dict(rest.split("=", 1) for word, rest in instructions(name) if word == "ARG" and "=" in rest)
    for stage in stages(name):
        base = re.match(r"\$\{(\w+)\}", stage[0][1])
        assert base, f"{stage[0][1]} is no build argument"
        assert PINNED.match(defaults[base[1]]), f"{defaults[base[1]]} is not pinned"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_runs_as_a_user_without_a_name_at_the_host_and_knows_its_health(name: str) -> None:
    last = dict(stages(name)[-1])
    # With a group behind the colon Docker gives the user no other, and a Jetson's GPU belongs to the group video.
    assert last["USER"] == ("10001" if name == "Dockerfile.jetson" else "10001:10001")
    assert "/healthz" in last["HEALTHCHECK"]
    assert last["ENTRYPOINT"] == '["edge"]'
    assert last["CMD"] == '["run", "--config", "/site/edge.yaml"]'


@pytest.mark.parametrize("name", DOCKERFILES)
def test_image_decodes_in_child_processes(name: str) -> None:
    last = " ".join(rest for word, rest in stages(name)[-1] if word == "ENV")
    assert "EDGE_DECODE__MODE=isolated" in last.split()


def test_engine_build_fits_into_the_start_period_of_the_jetson() -> None:
    health = dict(stages("Dockerfile.jetson")[-1])["HEALTHCHECK"]
    period = re.search(r"--start-period=(\d+)s", health)
    assert period
    assert int(period[1]) >= 900


def test_run_line_of_the_jetson_shows_the_page_and_cannot_write_the_site() -> None:
    head = (ROOT / "Dockerfile.jetson").read_text().partition("docker run")[2].partition("parrotgate:jp6\n")[0]
    assert "-e EDGE_STATUS__HOST=0.0.0.0" in head
    assert "-p 127.0.0.1:8088:8088" in head
    assert "-v ./site:/site:ro" in head


def test_plans_built_at_the_first_start_go_into_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    last = stages("Dockerfile.jetson")[-1]
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for word, rest in last if word == "ENV")))
    monkeypatch.setenv("PARROTGATE_CACHE", environment["PARROTGATE_CACHE"])
    assert default_cache().is_relative_to(dict(last)["VOLUME"])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_nothing_is_added_from_the_network_and_no_compiler_or_plan_ends_in_the_image(name: str) -> None:
    words = [word for word, _ in instructions(name)]
    assert "ADD" not in words
    last = " ".join(rest for _, rest in stages(name)[-1])
    for unwanted in ("g++", "python3-dev", "python3-pip", "engines build", ".plan"):
        assert unwanted not in last


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_stage_is_explained_and_no_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(re.findall(r"^# Stage \d, ", text, re.M)) == len(stages(name))
    assert not re.search(r"index-url|trusted-host|proxy=", text)


def test_context_holds_no_secret_and_no_history() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {"deploy/secrets", "deploy/site"} <= set(lines)
    assert not any(line.startswith("!.") for line in lines)


@pytest.mark.parametrize("service", ["broker", "worker"])
def test_service_has_no_right_that_it_does_not_need(compose: dict[str, Any], service: str) -> None:
    settings = compose["services"][service]
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert "cap_add" not in settings
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert int(settings["user"].split(":")[0]) > 0
    assert settings["pids_limit"]
    assert settings["mem_limit"]
    assert all("noexec" in mount and "nosuid" in mount for mount in settings["tmpfs"])
    assert not {"privileged", "network_mode", "pid", "devices"} & set(settings)
    assert not [volume for volume in settings["volumes"] if "docker.sock" in volume]


def test_ports_open_on_loopback_unless_asked_for(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert ports == ["${PARROTGATE_MQTT_BIND:-127.0.0.1}:1883:1883", "127.0.0.1:8088:8088"]


def test_secrets_come_from_files_and_stand_in_no_environment(compose: dict[str, Any]) -> None:
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    used = {name for service in compose["services"].values() for name in service["secrets"]}
    assert used == set(compose["secrets"])
    environment = compose["services"]["worker"]["environment"]
    assert [name for name in environment if "PASSWORD" in name] == ["EDGE_MQTT__PASSWORD_FILE"]
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_images_are_pinned_and_the_broker_is_a_fixed_release(compose: dict[str, Any]) -> None:
    broker = compose["services"]["broker"]["image"]
    assert PINNED.match(broker)
    assert tuple(map(int, broker.rpartition(":")[2].split("."))) >= (2, 0, 21)


def test_every_file_that_compose_mounts_is_there_or_is_made_by_the_reader(compose: dict[str, Any]) -> None:
    mounts = [volume for service in compose["services"].values() for volume in service["volumes"]]
    sources = {mount.split(":")[0] for mount in mounts}
    shipped = {source for source in sources if (ROOT / "deploy" / source).is_file()}
    assert shipped == {"./mosquitto.conf", "./mosquitto.acl"}
    assert sources - shipped == {"broker-data", "./site"}
    assert all(mount.endswith(":ro") for mount in mounts if not mount.startswith("broker-data"))


def test_environment_of_the_worker_makes_a_configuration_that_loads(compose: dict[str, Any], tmp_path: Path) -> None:
    worker = compose["services"]["worker"]
    (tmp_path / "edge.yaml").write_text(SITE)
    config = load_config(tmp_path / "edge.yaml", worker["environment"])
    assert config.mqtt.url == "mqtt://broker:1883"
    assert config.mqtt.password_file == Path("/run/secrets/worker_password")
    assert config.decode.mode == "isolated"
    assert config.status is not None
    assert config.status.host == "0.0.0.0"  # noqa: S104 - the container's own network
    assert (ROOT / "deploy" / worker["build"]["context"] / worker["build"]["dockerfile"]).is_file()


def test_worker_waits_for_a_sound_broker_and_stops_in_peace(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["depends_on"] == {"broker": {"condition": "service_healthy"}}
    assert worker["stop_grace_period"] == "30s"
    assert worker["restart"] == "unless-stopped"
