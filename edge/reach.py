"""How the commands that talk to a broker without a worker's configuration reach it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pydantic import ValidationError

from edge.config import MqttConfig
from edge.config_file import read_password
from edge.errors import ConfigError
from edge.link_handler import LinkSettings


def settings_for(
    url: str,
    *,
    client_id: str,
    username: str | None = None,
    password_file: Path | None = None,
    ca_file: Path | None = None,
    version: str = "5",
    prefix: str = "cameras",
) -> LinkSettings:
    """Settings of a short-lived session at ``url``.

    Raises:
        ConfigError: the address, the topic ``prefix`` or a file cannot be used.
    """
    given = {
        "url": url,
        "version": version,
        "prefix": prefix,
        "username": username,
        "password_file": password_file,
        "ca_file": ca_file,
    }
    try:
        mqtt = MqttConfig.model_validate(given)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))} {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False)
        ]
        raise ConfigError(url, faults) from error
    return LinkSettings(
        host=mqtt.host,
        port=mqtt.port,
        client_id=client_id,
        version=5 if mqtt.version == 5 else 4,
        tls=mqtt.tls,
        username=mqtt.username,
        password=read_password(mqtt),
        ca_file=None if mqtt.ca_file is None else str(mqtt.ca_file),
        clean_start=True,
    )


def unique_client_id(what: str) -> str:
    """A client id that no other process uses: ``<what>-<host>-<pid>``."""
    return f"{what}-{socket.gethostname()}-{os.getpid()}"[:64]
