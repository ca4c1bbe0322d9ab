"""From a float ONNX model and calibration pictures to INT8 models, their manifests and a report for each."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from engines.base import Batch, Float32, open_engine
from engines.console import track
from engines.errors import ModelError, UsageError
from engines.onnx_equalize import channel_peaks, depthwise_pairs, equalize
from engines.onnx_fuse import fuse_uint8
from engines.onnx_graph import Graph, read_graph, write_model
from engines.onnx_layers import cosines, layer_families
from engines.onnx_quantize import Method, Target, calibrate, quantize, simplified
from engines.pictures import batches, find_pictures, readable, spread
from engines.spec import ModelSpec, QuantizedSection, load_spec

REPORT_FORMAT = 1
SUFFIXES = {"cpu": ".int8.onnx", "tensorrt": ".int8-tensorrt.onnx"}
_BATCH = 8
_COMPARED = 64
_LAYERS_COMPARED = 16
_FEWEST = 2  # one to calibrate on, one to compare on
_NONE_TO_COMPARE = "none of the pictures kept for comparing can be read; give other pictures"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """``pictures``: calibrate on at most this many; ``uint8_input``: the new models take plain pixels."""

    targets: Sequence[Target]
    method: Method = "percentile"
    pictures: int = 128
    seven_bit: bool = False
    uint8_input: bool = False


def quantize_model(model: Path, folders: Sequence[Path], out: Path, options: QuantizeOptions) -> list[dict[str, Any]]:
    """Write ``<out>/<stem>.int8.onnx`` (cpu) or ``<stem>.int8-tensorrt.onnx`` with manifest and ``….report.json``.

    Of the pictures below ``folders`` at most four fifths are calibrated on; the rest compare float and INT8.

    Returns:
        The reports, one for each target.

    Raises:
        UsageError: the folders hold too few pictures, ``out`` is no folder or holds another network's file of that
            name, or pixels are asked of a model that takes them already.
        ModelError: the model cannot be used, or is quantised already.
    """
    graph, spec = read_graph(model)
    _check(graph, spec, out, options)
    paths = _targets(model, spec, out, options)
    chosen, others = (_readable(paths, spec) for paths in split_pictures(find_pictures(folders), options.pictures))
    if chosen and not others:
        raise UsageError(_NONE_TO_COMPARE)
    plain = _equalized(graph, chosen, spec)
    ranges = calibrate(plain["cpu"], _shown(chosen, spec, "calibrating"), options.method)
    digest = pictures_digest(chosen)
    reports = []
    for target, path in paths.items():
        made = quantize(plain[target], ranges, target, seven_bit=options.seven_bit)
        section = QuantizedSection(
            target=target, calibration=options.method, pictures=len(chosen), pictures_sha256=digest
        )
        changed = replace(spec, name=f"{spec.name}-int8", quantized=section)
        written = write_model(path, *(fuse_uint8(made, changed) if options.uint8_input else (made, changed)))
        families = layer_families(plain[target], made, batches(others[:_LAYERS_COMPARED], spec.input, _BATCH))
        report = {
            "format": REPORT_FORMAT,
            "file": str(path),
            "sha256": written.sha256,
            "origin": written.origin,
            "task": spec.task,
            "target": target,
            "method": options.method,
            "calibrated_on": len(chosen),
            "pictures_sha256": digest,
            "compared_on": len(others),
            "bytes_before": model.stat().st_size,
            "bytes": path.stat().st_size,
            "families": [asdict(family) for family in families],
            **compare_outputs(model, path, others),
        }
        path.with_name(path.name + ".report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        reports.append(report)
    return reports


def _equalized(graph: Graph, paths: Sequence[Path], spec: ModelSpec) -> dict[Target, Graph]:
    """The float graph for each target, ready to be quantised."""
    plain: dict[Target, Graph] = {target: simplified(graph, target) for target in get_args(Target)}
    if pairs := depthwise_pairs(plain["tensorrt"]):
        peaks = channel_peaks(plain["tensorrt"], pairs, _shown(paths, spec, "measuring channels"))
        for one in plain.values():
            equalize(one, pairs, peaks)
    return plain


def _shown(paths: Sequence[Path], spec: ModelSpec, doing: str) -> Iterable[Batch]:
    """The pictures in batches, with a progress bar."""
    return track(batches(paths, spec.input, _BATCH), doing, -(-len(paths) // _BATCH))


def split_pictures(paths: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """The pictures to calibrate on, at most ``count``, and others to compare on; both spread over all folders."""
    if len(paths) < _FEWEST:
        raise UsageError(f"{len(paths)} picture is too few to calibrate and to compare on; give a few dozen")
    chosen = spread(paths, max(1, min(count, len(paths) * 4 // 5)))
    known = set(chosen)
    return chosen, spread([path for path in paths if path not in known], _COMPARED)


def pictures_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the sorted SHA-256 of the files, one a line."""
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def compare_outputs(model: Path, variant: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """``cosine`` of the outputs (mean and worst picture) and, of a classifier, ``top1_agreement`` in [0, 1]."""
    before, after = (_outputs(path, paths) for path in (model, variant))
    found = cosines(after, before)
    is_classifier = load_spec(model).task == "classifier"
    agreement = float((before.argmax(axis=1) == after.argmax(axis=1)).mean()) if is_classifier else None
    return {
        "cosine": {"mean": round(float(found.mean()), 6), "worst": round(float(found.min()), 6)},
        "top1_agreement": agreement,
    }


def _outputs(path: Path, paths: Sequence[Path]) -> Float32:
    with open_engine(path, "cpu") as engine:
        rows = [engine.infer(batch) for batch in batches(paths, engine.spec.input, _BATCH)]
    if not rows:
        raise UsageError(_NONE_TO_COMPARE)
    return np.concatenate(rows)


def _readable(paths: Sequence[Path], spec: ModelSpec) -> list[Path]:
    """Those that are calibrated or compared on, and so counted and hashed."""
    found = readable(paths, spec.input)
    if len(found) < len(paths):
        log.warning("%d of %d pictures left out: they cannot be read", len(paths) - len(found), len(paths))
    return found


def _check(graph: Graph, spec: ModelSpec, out: Path, options: QuantizeOptions) -> None:
    if not out.is_dir():
        raise UsageError(f"{out}: no such folder; make it first")
    done = sum(node.op_type == "QuantizeLinear" for node in graph.nodes)
    if done or spec.quantized is not None:
        raise ModelError(f"{spec.name}: is quantised already ({done} QuantizeLinear nodes); give the float model")
    if options.uint8_input and spec.input.dtype == "uint8":
        raise UsageError(f"{spec.name}: takes uint8 pixels already; leave --input uint8 out")


def _targets(model: Path, spec: ModelSpec, out: Path, options: QuantizeOptions) -> dict[Target, Path]:
    """Where the new models go; ``UsageError`` where another network's file lies there."""
    found = {target: out / f"{model.stem}{SUFFIXES[target]}" for target in options.targets}
    for path in found.values():
        if path.exists() and not _is_variant(path, spec):
            raise UsageError(f"{path}: is there, and not as an INT8 form of {model}; remove it, or name another --out")
    return found


def _is_variant(path: Path, spec: ModelSpec) -> bool:
    try:
        found = load_spec(path)
    except ModelError:
        return False
    return found.origin == spec.origin and found.quantized is not None
