"""The manifest beside every model file: what goes in, what comes out, and which bytes it speaks of.

The file's form is given in ``Manifest``; the rest of the program sees a ``ModelSpec``, in which the labels are read
and every value is checked. To change the form: raise ``FORMAT``, keep reading the old number, keep an old file in
the tests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from engines import strict_json
from engines.errors import ModelError
from engines.files import read_bounded, write_whole
from engines.plan_manifest import PlanSection

FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_LABELS_BYTES = 8 << 20
MAX_SIDE = 8192


def _frozen(value: Any) -> Any:
    """JSON knows no tuples, and strict pydantic takes no list for one."""
    return tuple(value) if isinstance(value, list) else value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
Spread = Annotated[float, Field(ge=1e-6, le=1e6)]
PerChannel = Annotated[tuple[Mean, Mean, Mean], BeforeValidator(_frozen)]
PerChannelSpread = Annotated[tuple[Spread, Spread, Spread], BeforeValidator(_frozen)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class InputSpec(_Strict):
    """What the engine wants of a picture.

    ``mean`` and ``std`` are in units of ``pixel / 255`` and in the order of ``color``; with ``dtype`` ``uint8`` the
    graph normalises by itself and the batch is plain pixels. ``resize``: ``stretch`` ignores the aspect ratio, ``crop``
    fits the shortest side and keeps the centre, ``letterbox`` fits the longest side and pads with the mean colour.
    """

    layout: Literal["NCHW", "NHWC"]
    dtype: Literal["float32", "uint8"] = "float32"
    height: Side
    width: Side
    color: Literal["RGB", "BGR"] = "RGB"
    resize: Literal["stretch", "crop", "letterbox"] = "stretch"
    mean: PerChannel = (0.0, 0.0, 0.0)
    std: PerChannelSpread = (1.0, 1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one row of a batch: (3, height, width) or (height, width, 3)."""
        if self.layout == "NCHW":
            return (3, self.height, self.width)
        return (self.height, self.width, 3)

    @property
    def numpy_dtype(self) -> npt.DTypeLike:
        """The dtype of a batch as numpy names it."""
        return np.dtype(self.dtype)


class OutputSpec(_Strict):
    """What comes out: ``size`` float32 values a row; ``probabilities`` sum to 1, ``logits`` want a softmax."""

    kind: Literal["features", "logits", "probabilities"]
    size: Annotated[int, Field(ge=1, le=1 << 24)]


class QuantizedSection(_Strict):
    """How an integer model came to be: for which runtime, from which calibration pictures.

    ``pictures_sha256`` is a SHA-256 over the sorted SHA-256 of the pictures' files, one a line.
    """

    target: Literal["cpu", "tensorrt"]
    calibration: Literal["percentile", "entropy", "minmax"]
    pictures: Annotated[int, Field(ge=1)]
    pictures_sha256: Sha256


class Manifest(_Strict):
    """The JSON file, value by value; ``labels`` names a text file in the same folder.

    ``digest`` is that of the other values (:func:`manifest_digest`): it tells damage; only a pin tells intent.
    """

    format: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    task: Literal["features", "classifier"]
    input: InputSpec
    output: OutputSpec
    labels: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    labels_sha256: Sha256 | None = None
    sha256: Sha256
    origin: Sha256 | None = None
    source: str = ""
    licence: str = ""
    plan: PlanSection | None = None
    quantized: QuantizedSection | None = None
    digest: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A manifest that was checked, with its labels read.

    ``sha256`` is the hash of the model file, ``origin`` that of the float model it descends from; both are 64
    lower-case hex digits. ``labels`` has ``output.size`` entries or is None; ``plan`` tells how a TensorRT plan was
    built, and is None for other models; ``quantized`` how an integer model was made of a float one.
    """

    name: str
    task: Literal["features", "classifier"]
    input: InputSpec
    output: OutputSpec
    sha256: str
    origin: str
    labels: tuple[str, ...] | None = None
    source: str = ""
    licence: str = ""
    plan: PlanSection | None = None
    quantized: QuantizedSection | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if (self.task == "features") != (self.output.kind == "features"):
            raise ModelError(f"{self.name}: task {self.task!r} does not go with output kind {self.output.kind!r}")
        if self.labels is not None and len(self.labels) != self.output.size:
            raise ModelError(
                f"{self.name}: {len(self.labels)} labels for {self.output.size} outputs; "
                f"the labels file needs exactly one line for each output"
            )

    @property
    def is_quantized_variant(self) -> bool:
        """Whether this is another model's integer form, which a gate fitted on that model cannot trust unproven."""
        integer = self.quantized is not None or (self.plan is not None and self.plan.precision == "int8")
        return integer and self.origin != self.sha256


def manifest_path(model: Path) -> Path:
    """The manifest of ``model``: ``<file>.json`` where it exists, else ``<stem>.json``.

    Raises:
        ModelError: neither exists.
    """
    first, second = model.with_name(model.name + ".json"), model.with_suffix(".json")
    for path in (first, second):
        if path.is_file():
            return path
    raise ModelError(f"{model}: no manifest; write {first.name} (or {second.name}) beside it")


def manifest_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of a manifest's JSON in canonical form: keys sorted, no spaces, without ``digest``."""
    others = {key: value for key, value in content.items() if key != "digest"}
    canonical = json.dumps(others, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def manifest_sha256(model: Path) -> str:
    """SHA-256 (64 hex digits) of the bytes of the manifest of ``model``; raises :class:`ModelError` without one."""
    return hashlib.sha256(read_bounded(manifest_path(model), MAX_MANIFEST_BYTES)).hexdigest()


def load_spec(model: Path, *, manifest_sha256: str | None = None) -> ModelSpec:
    """Read and check the manifest and the labels of the model file ``model``; the model itself is not opened.

    ``manifest_sha256`` pins the manifest file, and through its ``labels_sha256`` the labels.

    Raises:
        ModelError: the manifest or the labels are missing, malformed, not those pinned, or contradict each other.
    """
    if not model.is_file():
        raise ModelError(f"{model}: no such model file; give the path of an existing .onnx file")
    path = manifest_path(model)
    manifest = _read_manifest(path, manifest_sha256)
    if manifest_sha256 is not None and manifest.labels is not None and manifest.labels_sha256 is None:
        raise ModelError(
            f"{path}: a pinned manifest with labels needs labels_sha256, else anyone may change the labels"
        )
    try:
        return ModelSpec(
            labels=_read_labels(path, manifest),
            origin=manifest.origin or manifest.sha256,
            **{name: getattr(manifest, name) for name in _PLAIN_FIELDS},
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


_PLAIN_FIELDS = ("format", "name", "task", "input", "output", "sha256", "source", "licence", "plan", "quantized")


def write_spec(model: Path, spec: ModelSpec) -> Path:
    """Write ``<model file>.json`` and, where there are labels, ``<model file>.labels.txt`` beside ``model``.

    Returns the manifest's path. The same spec gives the same bytes.
    """
    labels, digest = None, None
    if spec.labels is not None:
        text = "".join(f"{label}\n" for label in spec.labels).encode()
        labels, digest = f"{model.name}.labels.txt", hashlib.sha256(text).hexdigest()
        write_whole(model.with_name(labels), text)
    plain = {name: getattr(spec, name) for name in _PLAIN_FIELDS}
    manifest = Manifest(labels=labels, labels_sha256=digest, origin=spec.origin, **plain)
    path = model.with_name(model.name + ".json")
    absent = {"digest", *(name for name in ("plan", "quantized") if getattr(spec, name) is None)}
    content = manifest.model_dump(mode="json", exclude=absent)
    content["digest"] = manifest_digest(content)
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def _read_manifest(path: Path, pin: str | None) -> Manifest:
    data = read_bounded(path, MAX_MANIFEST_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if pin is not None and found != pin.lower():
        raise ModelError(f"{path}: its SHA-256 is {found}, but the configuration pins {pin}; correct the pin or file")
    try:
        content = strict_json.loads(data, max_bytes=MAX_MANIFEST_BYTES)
    except ValueError as error:
        raise ModelError(f"{path}: the manifest is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: the manifest must be a JSON object, not {type(content).__name__}")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise ModelError(f"{path}: {_sentence(error)}") from error
    if manifest.digest not in (None, manifest_digest(content)):
        raise ModelError(
            f"{path}: its values do not match its digest: it is damaged, or was changed by hand; "
            "fetch it again, or remove the key digest if the change is meant"
        )
    return manifest


def _sentence(error: ValidationError) -> str:
    """Every fault of a manifest as ``key: what is wrong (got …)``, joined by semicolons."""
    faults = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            faults.append(f"{where}: unknown key, remove it")
        elif fault["type"] == "missing":
            faults.append(f"{where}: is missing")
        else:
            faults.append(f"{where}: {fault['msg']} (got {str(fault['input'])[:60]!r})")
    return "; ".join(faults)


def _read_labels(manifest_file: Path, manifest: Manifest) -> tuple[str, ...] | None:
    if manifest.labels is None:
        if manifest.labels_sha256 is not None:
            raise ModelError("labels_sha256 is given but no labels; name the labels file")
        return None
    # A manifest may come from outside: its labels must not reach beyond its own folder.
    if re.search(r"[/\\\0]", manifest.labels) or manifest.labels in (".", ".."):
        raise ModelError(f"labels {manifest.labels!r} must be the name of a file in the manifest's own folder")
    path = manifest_file.with_name(manifest.labels)
    data = read_bounded(path, MAX_LABELS_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if manifest.labels_sha256 not in (None, digest):
        raise ModelError(f"labels {path.name} has SHA-256 {digest}, not {manifest.labels_sha256}; fetch it again")
    try:
        labels = tuple(line.strip() for line in data.decode("utf-8").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise ModelError(f"labels {path.name} is not UTF-8 text: {error}") from error
    if "" in labels:
        raise ModelError(f"labels {path.name} has nothing on line {labels.index('') + 1}; each line names one class")
    return labels
