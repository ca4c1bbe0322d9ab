"""From a configuration to the parts of a worker: engines, gate, cascade, decoder, link settings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.cascade import Cascade, Limits
from edge.config import MIB, Config, FeaturesConfig, SpeciesConfig
from edge.config_file import read_password
from edge.decode import Decoder
from edge.errors import ConfigError
from edge.gate import Gate
from edge.gate_file import load_gate
from edge.gate_manifest import band_holds
from edge.isolated import IN_FLIGHT, IsolatedOpener
from edge.link_handler import LinkSettings
from edge.parity import check_parity, check_species_parity
from edge.picture import PictureOpener
from edge.plan_build import ROLES, Building, ready_plan
from edge.poison import PoisonJournal
from edge.progress import Patience
from edge.spool import Spool
from edge.spool_lock import lock_folder
from engines import Engine, ImageLimits, InputSpec, ModelError, open_engine
from engines.base import Device

POISON_JOURNAL = "poison.json"  # in the worker's own folder of the spool, which its lock guards as well
PACKET_HEADROOM = 4  # a message this many times over the frame cap is still answered; beyond, the broker drops it


@dataclass(frozen=True, slots=True)
class Parts:
    """What judges frames: the cascade over its engines and gate, and the decoder that feeds it through its opener."""

    cascade: Cascade
    decoder: Decoder
    opener: PictureOpener | IsolatedOpener
    features: Engine
    species: Engine | None
    gate: Gate

    def warm_up(self, batch: int) -> None:
        """Run every engine with up to ``batch`` rows, so that a wrong model fails now and buffers exist."""
        for engine in (self.features, self.species):
            if engine is not None:
                warm_up(engine, batch)

    def describe(self) -> dict[str, dict[str, Any]]:
        """What is loaded, for the status page and the log."""
        engines = {"features": self.features, "species": self.species}
        described: dict[str, dict[str, Any]] = {
            role: {
                "name": engine.spec.name,
                "sha256": engine.spec.sha256,
                "device": engine.device,
                "engine": engine.why,
            }
            for role, engine in engines.items()
            if engine is not None
        }
        described["gate"] = {"name": self.gate.name, "sha256": self.gate.sha256, "device": "cpu"}
        return described

    @property
    def journal(self) -> PoisonJournal | None:
        """Which pictures have killed a decoder, where decoders are processes."""
        return self.opener.journal if isinstance(self.opener, IsolatedOpener) else None

    def close(self) -> None:
        """Free the engines, end the decoder processes."""
        self.opener.close()
        self.features.close()
        if self.species is not None:
            self.species.close()


def load_parts(config: Config, building: Building | None = None, *, journal: PoisonJournal | None = None) -> Parts:
    """Open the engines and the gate that ``config`` names, and join them.

    Where a section's ``build`` is ``auto`` and this box has no plan yet, it is built if there is ``building`` to be
    told how far it is, before anything is opened; else the ONNX file itself is opened. ``journal`` is taken over from
    decoders that ran before.

    Raises:
        ModelError, GateError, ConfigError: an artifact cannot be used; the sentence says what to do.
        BuildStoppedError: ``building`` has answered False.
    """
    with ExitStack() as opened:
        plans = {role: ready_plan(config, role, building) for role in ROLES}
        features = opened.enter_context(_open_features(config, plans["features"]))
        gate = load_gate(config.gate.file, sha256=config.gate.sha256, features=features.spec)
        check_parity(config.features.model, features.spec, gate)
        species = _open_species(config, plans["species"])
        if config.species is not None and species is not None:
            opened.enter_context(species)
            check_species_parity(config.species.model, species.spec)
        parts = _join(config, features, gate, species, journal)
        opened.pop_all()
        return parts


def _join(config: Config, features: Engine, gate: Gate, species: Engine | None, journal: PoisonJournal | None) -> Parts:
    cascade = Cascade(
        features,
        gate,
        species,
        worker=config.worker,
        limits=camera_limits(config, gate),
        top=config.species.top if config.species is not None else 1,
        clock=time.monotonic,
        wall=time.time,
    )
    inputs = [engine.spec.input for engine in (features, species) if engine is not None]
    opener = _opener(config, inputs, journal)
    decoder = Decoder(opener, config.mailbox.max_frame_bytes)
    return Parts(cascade, decoder, opener, features, species, gate)


def link_settings(config: Config, *, client_id: str | None = None) -> LinkSettings:
    """How ``config`` reaches its broker; with another ``client_id``, a short-lived session of its own."""
    mqtt = config.mqtt
    own = client_id is None
    return LinkSettings(
        host=mqtt.host,
        port=mqtt.port,
        client_id=client_id if client_id is not None else config.client_id,
        version=5 if mqtt.version == 5 else 4,
        tls=mqtt.tls,
        username=mqtt.username,
        password=read_password(mqtt),
        ca_file=_text(mqtt.ca_file),
        cert_file=_text(mqtt.cert_file),
        key_file=_text(mqtt.key_file),
        keepalive_s=mqtt.keepalive_s,
        session_expiry_s=mqtt.session_expiry_s if own else 0,
        clean_start=not own,
        receive_maximum=config.mailbox.receive_maximum,
        maximum_packet_bytes=min(PACKET_HEADROOM * config.mailbox.max_frame_bytes, 268_435_455) if own else None,
    )


def frame_filter(config: Config) -> str:
    """The subscription for every camera's frames, shared where the configuration says so."""
    frames = f"{config.mqtt.prefix}/+/frame"
    return frames if config.mqtt.share_group is None else f"$share/{config.mqtt.share_group}/{frames}"


def stale_filters(config: Config) -> tuple[str, ...]:
    """What a session from before ``share_group`` was set still holds: each frame would come twice."""
    return () if config.mqtt.share_group is None else (f"{config.mqtt.prefix}/+/frame",)


def open_spool(config: Config) -> Spool | None:
    """The verdict spool where one is configured, in a folder of the worker's name, locked against a second worker.

    Raises:
        SpoolTaken: another process has it.
    """
    folder, spool = own_folder(config), config.spool
    if folder is None:
        return None
    return Spool(folder, spool.max_mib * MIB, float(spool.max_age_s), lock=lock_folder(folder))


def own_folder(config: Config) -> Path | None:
    """Where the worker keeps what outlives it: the folder of its name under ``spool.folder``, None without one."""
    return None if config.spool.folder is None else config.spool.folder / config.worker


def patience(config: Config) -> Patience:
    """When a silence of the worker is a hang."""
    stall_s = float(config.watchdog.stall_s)
    return Patience(link_s=stall_s, stall_s=stall_s, away_s=max(10 * stall_s, 3.0 * config.mqtt.keepalive_s))


def decode_workers(config: Config) -> int:
    """Pictures decoded at a time: as configured, else all cores but the one that feeds the engine, 1 to 8."""
    workers = config.decode.workers
    if isinstance(workers, int):
        return workers
    return max(1, min(8, len(os.sched_getaffinity(0)) - 1))


def decode_threads(config: Config) -> int:
    """Decoder threads: each decodes by itself, or keeps a picture at a decoder process, which holds a few."""
    return decode_workers(config) * (IN_FLIGHT if config.decode.mode == "isolated" else 1)


def fills_the_device(config: Config) -> bool:
    """Whether a whole batch is put behind one that computes; where newer frames replace older ones it would age."""
    return config.mailbox.policy == "every"


def decode_ahead(config: Config, parts: Parts) -> int:
    """Most frames that are decoded before the engine takes them: a batch, or two where one of them is put behind
    another that computes, since the next is being decoded meanwhile."""
    return config.batch.max * (2 if parts.cascade.overlaps and fills_the_device(config) else 1)


def _opener(config: Config, inputs: list[InputSpec], journal: PoisonJournal | None) -> PictureOpener | IsolatedOpener:
    """What opens pictures, for the engines' ``inputs``, the feature engine's first."""
    opener = PictureOpener(
        features=inputs[0],
        minimum=(max(i.height for i in inputs), max(i.width for i in inputs)),
        limits=ImageLimits(formats=config.decode.formats),
    )
    if config.decode.mode == "threads":
        return opener
    folder = own_folder(config)
    journal = journal or PoisonJournal(None if folder is None else folder / POISON_JOURNAL)
    return IsolatedOpener(opener, config.mailbox.max_frame_bytes, decode_workers(config), journal)


def _open_features(config: Config, plan: Path | None) -> Engine:
    engine = _open(config.features, config.features.device, plan)
    if engine.spec.task != "features":
        raise ModelError(
            f"{config.features.model}: task is {engine.spec.task!r}; features.model needs a model with task 'features'"
        )
    return engine


def _open(section: FeaturesConfig | SpeciesConfig, device: Device, plan: Path | None) -> Engine:
    if plan is not None:  # made from the pinned file
        return open_engine(plan, device)
    return open_engine(section.model, device, sha256=section.sha256, manifest_sha256=section.manifest_sha256)


def _open_species(config: Config, plan: Path | None) -> Engine | None:
    if config.species is None:
        return None
    engine = _open(config.species, config.features.device, plan)
    if engine.spec.task != "classifier":
        raise ModelError(
            f"{config.species.model}: task is {engine.spec.task!r}; species.model needs one with task 'classifier'"
        )
    return engine


def camera_limits(config: Config, gate: Gate) -> dict[str | None, Limits]:
    """Each camera's limits, None standing for cameras that are not named.

    Raises :class:`ConfigError` where a threshold lies outside of the band of uncertain verdicts.
    """
    default = config.gate.threshold if config.gate.threshold is not None else gate.threshold
    band = gate.abstain if config.gate.abstain is None else config.gate.abstain
    limits: dict[str | None, Limits] = {None: Limits(default, band)}
    for name in config.cameras:
        own = config.threshold_of(name)
        limits[name] = Limits(default if own is None else own, band)
    _check_band(config, limits)
    return limits


def _check_band(config: Config, limits: Mapping[str | None, Limits]) -> None:
    """The band holds every threshold; either may come from the configuration or from the gate file."""
    for name, limit in limits.items():
        band, threshold = limit.abstain, limit.threshold
        if band is None or band_holds(band, threshold):
            continue
        if config.gate.abstain is not None:
            fault = f"gate.abstain {list(band)} should hold the gate file's own threshold {threshold!r}"
        else:
            key = "gate.threshold" if name is None else f"the threshold of camera {name}"
            fault = (
                f"{key}, {threshold!r}, should lie in the gate file's own band of uncertain verdicts, {list(band)}; "
                "write gate.abstain: [0, 0] for no band, or a band that holds it"
            )
        raise ConfigError(str(config.gate.file), [fault])


def _text(path: Any) -> str | None:
    return None if path is None else str(path)


def warm_up(engine: Engine, batch: int) -> None:
    """Run ``engine`` at 1 and at ``batch`` rows; on a GPU also at the powers of two between, which it plans for."""
    spec = engine.spec.input
    between = [1 << power for power in range(1, batch.bit_length())] if engine.device == "cuda" else []
    for rows in sorted({1, *between, batch}):
        engine.infer(np.zeros((rows, *spec.shape), dtype=spec.numpy_dtype))
