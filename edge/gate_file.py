"""Gate files: one .npz of arrays and a JSON manifest, named by its SHA-256, re-scored on its golden rows at load.

The reader gives the file what it would give a stranger: a size limit, the hash over the very bytes that are used,
no pickle, every header checked before allocation, every array checked against the manifest and for finite numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import GateError
from edge.gate import PROBABILITY_TOLERANCE, SCORE_TOLERANCE, Gate, Precision
from edge.gate_archive import read_arrays, write_arrays
from edge.gate_manifest import GOLDEN_ROWS, MAX_FEATURES, GateManifest, parse_manifest
from engines import strict_json
from engines.spec import ModelSpec

MAX_BYTES = 256 << 20
MAX_MANIFEST_BYTES = 1 << 20


def load_gate(
    path: Path | str, *, sha256: str | None = None, features: ModelSpec | None = None, precision: Precision = "float32"
) -> Gate:
    """Read, check and self-test the gate file ``path``.

    ``sha256`` (64 hex digits) pins the file; ``features`` is the feature engine's manifest that the gate must belong
    to (same origin, size and preprocessing). Raises :class:`GateError` with a sentence that says what to do.
    """
    source = str(path)
    data = _read(source)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256.lower().removeprefix("sha256:"):
        raise GateError(f"{source}: has SHA-256 {digest}, pinned is {sha256}; deploy the pinned file or mend the pin")
    arrays = read_arrays(source, data)
    manifest = _manifest(source, arrays.pop("manifest", None))
    if features is not None:
        check_features(source, manifest, features)
    try:
        golden = _golden_features(manifest, arrays)
        gate = Gate(manifest, arrays, sha256=digest, precision=precision)
        _check_golden(gate, golden, arrays)
    except GateError as error:
        raise GateError(f"{source}: {error}") from error
    return gate


def save_gate(path: Path | str, manifest: GateManifest, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Write a gate file in one step (no reader ever sees half of it) and return its SHA-256.

    ``arrays`` need not hold golden outputs; they are computed here from ``golden.features``, in float64. The same
    manifest and arrays give the same bytes. Raises :class:`GateError` when they do not make a gate.
    """
    content = {name: np.asarray(array) for name, array in arrays.items()}
    content.update(_golden_outputs(manifest, content))
    text = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, allow_nan=False, separators=(",", ":"))
    content["manifest"] = np.frombuffer(text.encode(), dtype=np.uint8)
    data = write_arrays(content)
    target = Path(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(data)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise GateError(f"{target}: cannot be written ({error.strerror}); choose a writable folder") from error
    return hashlib.sha256(data).hexdigest()


def check_features(source: str, manifest: GateManifest, features: ModelSpec) -> None:
    """Raise :class:`GateError` unless the gate was fitted on features that ``features`` gives."""
    ours = manifest.features
    if ours.origin != features.origin or ours.size != features.output.size:
        raise GateError(
            f"{source}: fitted on features of {ours.name} (origin {ours.origin[:12]}…, {ours.size} numbers), but the "
            f"feature engine is {features.name} (origin {features.origin[:12]}…, {features.output.size} numbers); "
            f"configure that model or fit the gate again with `calibrate fit`"
        )
    theirs = features.input.model_dump()
    changed = [
        key for key, value in ours.input.model_dump().items() if key not in ("layout", "dtype") and value != theirs[key]
    ]
    if changed and features.input.dtype == ours.input.dtype:
        raise GateError(
            f"{source}: fitted with another preprocessing than {features.name}'s manifest says "
            f"({', '.join(changed)} differ); restore that manifest or fit the gate again"
        )


def _read(source: str) -> bytes:
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise GateError(f"{source}: cannot be read ({error.strerror}); check gate.file or fit one first") from error
    if len(data) > MAX_BYTES:
        raise GateError(f"{source}: larger than {MAX_BYTES >> 20} MiB, no gate file is")
    return data


def _manifest(source: str, member: npt.NDArray[Any] | None) -> GateManifest:
    if member is None or member.dtype != np.uint8 or member.ndim != 1:
        raise GateError(f"{source}: holds no manifest, so it is no gate file; make one with `calibrate fit`")
    try:
        values = strict_json.loads(member.tobytes(), max_bytes=MAX_MANIFEST_BYTES)
    except ValueError as error:
        raise GateError(f"{source}: its manifest is not readable: {error}; fit the gate again") from error
    if not isinstance(values, dict):
        raise GateError(f"{source}: its manifest is not a JSON object; fit the gate again")
    return parse_manifest(source, values)


def _golden_outputs(manifest: GateManifest, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    golden = _golden_features(manifest, arrays)
    scores = Gate(manifest, arrays, precision="float64").judge(golden)
    if not scores.finite.all():
        raise GateError("the golden rows' scores are not finite numbers; the gate's numbers do not fit its features")
    outputs: dict[str, npt.NDArray[Any]] = {"golden.score": scores.score, "golden.decisive": scores.decisive}
    return {**outputs, "golden.accepted": scores.accepted.astype(np.uint8)}


def _golden_features(manifest: GateManifest, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    golden = arrays.get("golden.features")
    shape = (GOLDEN_ROWS, min(manifest.features.size, MAX_FEATURES))
    if golden is None or golden.dtype != np.float32 or golden.shape != shape:
        raise GateError(f"array 'golden.features' must be float32 {shape}; fit the gate again")
    return golden


def _check_golden(gate: Gate, golden: npt.NDArray[np.float32], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    scores = gate.judge(golden)
    for name, found, tolerance in (
        ("golden.score", scores.score, SCORE_TOLERANCE),
        ("golden.decisive", scores.decisive, PROBABILITY_TOLERANCE),
        ("golden.accepted", scores.accepted.astype(np.float64), 0.0),
    ):
        expected = arrays.get(name)
        if expected is None or expected.shape != found.shape:
            raise GateError(f"array {name!r} must hold {GOLDEN_ROWS} numbers; fit the gate again")
        if not scores.finite.all() or not (np.abs(found - expected) <= tolerance).all():
            raise GateError(
                f"the self-test failed: {name!r} of this machine's numpy differs from the file's by more than "
                f"{tolerance:g}; the file or the numpy installation is damaged"
            )
