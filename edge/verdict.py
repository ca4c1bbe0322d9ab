"""The verdict: its identity, its JSON, its schema. Pure functions."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import Any

from edge.records import Frame, Species, Verdict

SCHEMA = "parrotgate.verdict/1"


def verdict_id(frame: Frame, origins: tuple[str, ...], gate: str) -> str:
    """The verdict's name for ever: 32 hex digits, equal for every redelivery of the same frame.

    A pure function of camera, frame id, capture time, the picture's SHA-256, the models' origins and the gate, so
    that a consumer may drop duplicates by it whenever they come.
    """
    captured_at = "" if frame.captured_at is None else repr(frame.captured_at)
    parts = (frame.raw.camera, frame.frame_id or "", captured_at, frame.digest, *origins, gate)
    material = "\x00".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(material.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as the JSON object that is published."""
    size = None if verdict.width is None else {"width": verdict.width, "height": verdict.height}
    return {
        "schema": SCHEMA,
        "id": verdict.id,
        "camera": verdict.camera,
        "frame_id": verdict.frame_id,
        "captured_at": verdict.captured_at,
        "judged_at": verdict.judged_at,
        "verdict": verdict.verdict.value,
        "probability": verdict.probability,
        "p_value": verdict.p_value,
        "threshold": verdict.threshold,
        "score": verdict.score,
        "species": _species(verdict.species),
        "gate": verdict.gate,
        "models": verdict.models,
        "reused": verdict.reused,
        "dropped_before": verdict.dropped_before,
        "redelivered": verdict.redelivered,
        "image": size,
        "latency_ms": verdict.latency_ms,
        "worker": verdict.worker,
        "error": verdict.error,
    }


def encode(verdict: Verdict) -> bytes:
    """Strict UTF-8 JSON; raises ValueError on a NaN or an infinity, which the cascade has excluded before."""
    return json.dumps(as_dict(verdict), allow_nan=False, separators=(",", ":")).encode("ascii")


def verdict_schema() -> dict[str, Any]:
    """The published JSON Schema of a verdict (draft 2020-12)."""
    schema: dict[str, Any] = json.loads(files("edge").joinpath("schemas/verdict.schema.json").read_text("utf-8"))
    return schema


def _species(top: tuple[Species, ...]) -> dict[str, Any] | None:
    if not top:
        return None
    entries = [{"label": species.label, "probability": species.probability} for species in top]
    return {**entries[0], "top": entries}
