"""The configuration as data: every key with its meaning, unit, range and default.

Nothing here reads a file or the environment; ``edge.config_file.load_config`` does, and answers with every fault at
once. Checks that join two keys stand at the later of the two, so that a fault elsewhere never hides them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from edge.gate_manifest import band_holds

MIB = 1 << 20
MAX_DECODERS = 64
SHARED_EXPIRY_S = 600
NAME = r"^[A-Za-z0-9_-]{1,64}$"
PORTS = {"mqtt": 1883, "mqtts": 8883}


def _below_config_folder(path: Path, info: ValidationInfo) -> Path:
    folder: Path | None = (info.context or {}).get("folder")
    return folder / path if folder is not None else path


def _without_algorithm(value: Any) -> Any:
    return value.removeprefix("sha256:").lower() if isinstance(value, str) else value


def _check_port(netloc: str) -> None:
    try:
        port = urlsplit(f"//{netloc}").port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("should have a port from 1 to 65535")


Name = Annotated[str, Field(pattern=NAME)]
CameraName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-][A-Za-z0-9_-]{0,63}$")]
Probability = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
LocalPath = Annotated[Path, AfterValidator(_below_config_folder)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), BeforeValidator(_without_algorithm)]


class Section(BaseModel):
    """Base of every section: unchangeable, without unknown keys, documented by its fields' docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class MqttConfig(Section):
    """The broker, who we are there, and under which topics the cameras speak."""

    url: Annotated[str, Field(max_length=512)] = "mqtt://localhost:1883"
    """Broker as mqtt://host[:1883], or mqtts://host[:8883] for TLS; no user name or password in it."""
    version: Literal[5, "3.1.1"] = 5
    """MQTT version: 5, or "3.1.1" for brokers without it (no expiry, no Receive Maximum, no user properties)."""
    client_id: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")] | None = None
    """Stable client identifier that owns the session and its queue; null: the worker's name."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=128)] = "cameras"
    """Topic levels before <camera>/frame: no wildcard, no slash at either end."""
    share_group: Name | None = None
    """Shared subscription that divides the cameras' frames among workers; null: this worker gets every frame."""
    session_expiry_s: Annotated[Whole, Field(ge=0, le=4_294_967_295)] = 86_400
    """Seconds for which the broker keeps our queue while we are away; at least 600 with a share group, since a
    broker may deal frames to an absent member until its session ends and then throw them away."""
    username: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """User name for the broker; null: anonymous, or the certificate's name."""
    password_file: LocalPath | None = None
    """File that holds the password and nothing else (one newline at its end is not part of it)."""
    ca_file: LocalPath | None = None
    """PEM file of the authority that signed the broker's certificate; null: the system's authorities."""
    cert_file: LocalPath | None = None
    """PEM file of our own certificate (mutual TLS); needs key_file."""
    key_file: LocalPath | None = None
    """PEM file of our certificate's private key; needs cert_file."""
    keepalive_s: Annotated[Whole, Field(ge=5, le=65_535)] = 30
    """Seconds of silence after which the connection is probed; half-open ones are found within 1.5 times that."""

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urlsplit(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """The broker's host name or address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's port, 1883 or 8883 where the URL names none."""
        parts = urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in PORTS:
            raise ValueError("should start with mqtt:// or mqtts://")
        if "@" in parts.netloc:
            raise ValueError("should hold no user name or password: use mqtt.username and mqtt.password_file")
        if not parts.hostname or re.search(r"\s", url):
            raise ValueError("should name a host, such as mqtt://localhost:1883")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("should end after the port: topics are set by mqtt.prefix")
        _check_port(parts.netloc)
        return url

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, version: Any) -> Any:
        return 5 if version == "5" else version

    @field_validator("session_expiry_s")
    @classmethod
    def _shared_expiry(cls, seconds: int, info: ValidationInfo) -> int:
        if info.data.get("share_group") is not None and seconds < SHARED_EXPIRY_S:
            raise ValueError(
                f"should be {SHARED_EXPIRY_S} or more with mqtt.share_group: brokers do not hand a lost worker's "
                "frames to the others but keep them until it is back or its session ends"
            )
        return seconds

    @field_validator("password_file")
    @classmethod
    def _password_has_user(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.data.get("username", "") is None:
            raise ValueError("needs mqtt.username beside it")
        return path

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _only_with_tls(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and "url" in info.data and urlsplit(info.data["url"]).scheme != "mqtts":
            raise ValueError("is for TLS only: write mqtt.url with mqtts://, or leave it out")
        return path

    @field_validator("key_file")
    @classmethod
    def _certificate_has_key(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if "cert_file" in info.data and (info.data["cert_file"] is None) != (key is None):
            raise ValueError("and mqtt.cert_file belong together: give both or neither")
        return key


class NetworkConfig(Section):
    """What both engines are told."""

    model: LocalPath
    """Model file with its manifest beside it; the suffix picks the backend."""
    build: Literal["never", "auto"] = "never"
    """never: refuse a plan that is missing or of another GPU; auto: build one of the .onnx file at the first start."""
    sha256: Sha256 | None = None
    """Pin: the model file's SHA-256 as 64 hexadecimal digits; null: the manifest's alone counts."""
    manifest_sha256: Sha256 | None = None
    """Pin: the manifest file's SHA-256, and through it the labels'; null: the manifest beside the model counts."""

    @field_validator("build")
    @classmethod
    def _buildable(cls, build: str, info: ValidationInfo) -> str:
        model = info.data.get("model")
        if build == "auto" and model is not None and model.suffix != ".onnx":
            raise ValueError("auto needs an .onnx file as model: name one, or write never")
        return build


class FeaturesConfig(NetworkConfig):
    """The feature engine, whose output the gate judges."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where both engines run; auto: the TensorRT plan beside an .onnx file, else CUDA, else the CPU."""


class GateConfig(Section):
    """The one-class gate, and where it draws the line."""

    file: LocalPath
    """Gate file as `calibrate fit` writes it."""
    threshold: Probability | None = None
    """Lowest probability in [0, 1] that is accepted; null: the gate file's own."""
    abstain: tuple[Probability, Probability] | None = None
    """Band [low, high] around the threshold whose verdict is `uncertain`; null: the gate file's own, [0, 0]: none."""
    sha256: Sha256 | None = None
    """Pin: the gate file's SHA-256 as 64 hexadecimal digits; null: any gate of this feature model."""

    @field_validator("abstain")
    @classmethod
    def _band(cls, band: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        if band is not None and band[0] > band[1]:
            raise ValueError("should be [low, high] with low <= high")
        threshold = info.data.get("threshold")
        if band is not None and threshold is not None and not band_holds(band, threshold):
            raise ValueError(f"should hold gate.threshold, which is {threshold}")
        return band


class SpeciesConfig(NetworkConfig):
    """The species engine, asked about positives only."""

    model: LocalPath
    """Classifier with its manifest and labels beside it."""
    top: Annotated[Whole, Field(ge=1, le=100)] = 3
    """Labels named in a verdict, best first."""


class BatchConfig(Section):
    """How frames are joined for the engines."""

    max: Annotated[Whole, Field(ge=1, le=256)] = 8
    """Frames in one batch, over all cameras."""
    wait_ms: Annotated[float, Field(strict=True, ge=0, le=1000, allow_inf_nan=False)] = 0.0
    """Milliseconds for which a batch that is not full is held open; 0: judge at once what waits."""


class MailboxConfig(Section):
    """What may wait between the broker and the engines."""

    policy: Literal["latest", "every"] = "latest"
    """latest: a newer frame of a camera replaces its waiting one (counted); every: no frame is dropped."""
    max_frames: Annotated[Whole, Field(ge=1, le=65_535)] = 256
    """Frames waiting or in flight."""
    max_mib: Annotated[Whole, Field(ge=1, le=1_048_576)] = 256
    """MiB of payloads waiting or in flight."""
    max_frame_mib: Annotated[Whole, Field(ge=1, le=255)] = 8
    """MiB of one message; larger ones are refused."""

    max_cameras: Annotated[Whole, Field(ge=1, le=100_000)] = 1000
    """Cameras served at a time; frames of more end as dead letters until one has been silent for an hour."""

    @field_validator("max_frame_mib")
    @classmethod
    def _frame_fits(cls, mib: int, info: ValidationInfo) -> int:
        if mib > info.data.get("max_mib", mib):
            raise ValueError(f"should not exceed mailbox.max_mib, which is {info.data['max_mib']}")
        return mib

    @property
    def max_bytes(self) -> int:
        """Bound on the payloads' bytes."""
        return self.max_mib * MIB

    @property
    def max_frame_bytes(self) -> int:
        """Bound on one message's payload, in bytes."""
        return self.max_frame_mib * MIB

    @property
    def receive_maximum(self) -> int:
        """Unacknowledged frames that the broker may send.

        Under ``every`` so many that the largest ones still fit ``max_mib``; under ``latest`` all of ``max_frames``,
        since the mailbox sheds bytes by itself and a small window would leave the newest frames at the broker.
        """
        if self.policy == "latest":
            return self.max_frames
        return min(self.max_frames, self.max_mib // self.max_frame_mib)


class DecodeConfig(Section):
    """How pictures become pixels."""

    mode: Literal["threads", "isolated"] = "threads"
    """threads: in the worker's process; isolated: in child processes, where a picture that kills its decoder kills
    nothing else and ends as a dead letter after two tries."""
    workers: Annotated[Whole, Field(ge=1, le=MAX_DECODERS)] | Literal["auto"] = "auto"
    """Decoders beside the engine, 1 to 64; auto: as many as this machine's cores allow."""
    formats: Annotated[tuple[Literal["jpeg", "png", "webp"], ...], Field(min_length=1)] = ("jpeg", "png", "webp")
    """Image formats that may come in, known by their first bytes; all else is an error verdict."""

    @field_validator("workers", mode="before")
    @classmethod
    def _workers(cls, workers: Any) -> Any:
        whole = isinstance(workers, int) and not isinstance(workers, bool)
        if workers != "auto" and not (whole and 1 <= workers <= MAX_DECODERS):
            raise ValueError(f"should be auto or a whole number from 1 to {MAX_DECODERS}")
        return workers


class SpoolConfig(Section):
    """Verdicts kept on disk until the broker has confirmed them."""

    folder: LocalPath | None = None
    """Folder, with one of the worker's name in it; null: no spool. It is for what no broker holds for us: verdicts of
    QoS 0 frames, and which pictures have killed a decoder (decode.mode isolated)."""
    max_mib: Annotated[Whole, Field(ge=1, le=65_536)] = 64
    """MiB of files; beyond it the oldest verdicts are dropped and counted."""
    max_age_s: Annotated[Whole, Field(ge=1, le=31_536_000)] = 86_400
    """Seconds of running time after which a verdict that could not be delivered is dropped and counted."""


class PublishConfig(Section):
    """What is published beside the verdicts."""

    species: Annotated[bool, Field(strict=True)] = True
    """The last positive's species as retained plain text, for dashboards."""
    snapshot: Annotated[bool, Field(strict=True)] = True
    """The last positive's JPEG, retained, at most one a second for each camera."""


class CameraConfig(Section):
    """What differs for one camera."""

    threshold: Probability | None = None
    """This camera's own threshold in [0, 1]; null: the gate section's."""


class StatusConfig(Section):
    """The status page, health and metrics."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^\S+$")] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 shows the page to the network, which has no password."""
    port: Annotated[Whole, Field(ge=0, le=65_535)] = 8088
    """TCP port; 0: any free one."""


class WatchdogConfig(Section):
    """What becomes of a worker that hangs."""

    stall_s: Annotated[Whole, Field(ge=5, le=3600)] = 30
    """Seconds without a sign of life of the engine's thread, or without a verdict while frames wait, after which
    /healthz fails; half as many later the process ends with 75. More than a full batch takes on a slow machine."""
    end: Annotated[bool, Field(strict=True)] = True
    """false: /healthz alone tells, and the process stays."""


class Config(Section):
    """Everything one worker is told."""

    worker: Name
    """This worker's name, unique at the broker: letters, digits, _ and -, at most 64."""
    mqtt: MqttConfig = MqttConfig()
    """The broker."""
    features: FeaturesConfig
    """The feature engine: at least {model: FILE}."""
    gate: GateConfig
    """The gate: at least {file: FILE}."""
    species: SpeciesConfig | None = None
    """The species engine; null: the gate alone decides."""
    batch: BatchConfig = BatchConfig()
    """Batching."""
    mailbox: MailboxConfig = MailboxConfig()
    """Bounds and policy of what waits."""
    decode: DecodeConfig = DecodeConfig()
    """Decoding."""
    skip_unchanged: Annotated[bool, Field(strict=True)] = False
    """true: an unchanged frame of a static camera reuses the camera's last verdict and costs no inference."""
    spool: SpoolConfig = SpoolConfig()
    """The verdict spool."""
    publish: PublishConfig = PublishConfig()
    """What is published beside the verdicts: species, snapshot."""
    cameras: dict[CameraName, CameraConfig] = Field(
        default_factory=dict, json_schema_extra={"additionalProperties": False}
    )
    """Cameras that differ from the rest, by name (letters, digits, _ and -, at most 64, not starting with _)."""
    status: StatusConfig | None = StatusConfig()
    """The status page; null: none."""
    watchdog: WatchdogConfig = WatchdogConfig()
    """The watchdog of ``edge run``."""

    @property
    def client_id(self) -> str:
        """The MQTT client identifier: ``mqtt.client_id``, else the worker's name."""
        return self.mqtt.client_id or self.worker

    def threshold_of(self, camera: str) -> float | None:
        """The camera's own threshold, else the gate section's; None: the gate file's."""
        own = self.cameras.get(camera)
        return own.threshold if own is not None and own.threshold is not None else self.gate.threshold

    @field_validator("features", "species")
    @classmethod
    def _can_build(cls, section: NetworkConfig | None, info: ValidationInfo) -> NetworkConfig | None:
        features = section if isinstance(section, FeaturesConfig) else info.data.get("features")
        if section is not None and features is not None and (section.build, features.device) == ("auto", "cpu"):
            text = "auto builds a plan, which needs a GPU: with features.device cpu write never"
            raise PydanticCustomError("no_gpu", text, {"below": ("build",)})
        return section

    @field_validator("cameras")
    @classmethod
    def _thresholds_in_band(cls, cameras: dict[str, CameraConfig], info: ValidationInfo) -> dict[str, CameraConfig]:
        gate = info.data.get("gate")
        for name, camera in cameras.items():
            if gate is None or gate.abstain is None or camera.threshold is None:
                continue
            if not band_holds(gate.abstain, camera.threshold):
                low, high = gate.abstain
                text = "should lie in gate.abstain, which is [{low}, {high}]"
                context = {"low": low, "high": high, "below": (name, "threshold")}
                raise PydanticCustomError("outside_band", text, context)
        return cameras
