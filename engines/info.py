"""What can be said of a model file: its manifest, its graph, and what the runtime makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from engines.base import CheckedEngine, open_engine
from engines.onnx_file import summarize
from engines.plan_manifest import gpu_text
from engines.spec import ModelSpec, manifest_path


def describe(model: Path) -> dict[str, Any]:
    """Open ``model``, which verifies its hash and its signature, and tell everything about it.

    A plan is opened on its GPU, all else on the CPU; ``chosen`` says what ``device: auto`` takes on this machine.

    ``parameters``, ``nodes``, ``operators``, ``opset`` and ``producer`` are told of ONNX files only.
    The result is JSON-able. Raises ``ModelError`` like ``open_engine``.
    """
    with open_engine(model, "cuda" if model.suffix == ".plan" else "cpu") as engine:
        runtime = engine.describe() if isinstance(engine, CheckedEngine) else {}
        spec, chosen = engine.spec, engine.why
    if model.suffix == ".onnx":
        with open_engine(model) as best:
            chosen = best.why
    content = model.read_bytes()
    return {
        "file": str(model),
        "bytes": len(content),
        "manifest": str(manifest_path(model)),
        "hash_verified": True,
        **_spec_fields(spec),
        **(_graph_fields(content) if model.suffix == ".onnx" else {}),
        "runtime": runtime,
        "chosen": chosen,
    }


def _graph_fields(content: bytes) -> dict[str, Any]:
    graph = summarize(content)
    return {
        "parameters": graph.parameters,
        "nodes": graph.nodes,
        "operators": dict(sorted(graph.operators.items(), key=lambda item: (-item[1], item[0]))),
        "opset": graph.opset,
        "producer": graph.producer,
    }


def _spec_fields(spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "task": spec.task,
        "sha256": spec.sha256,
        "origin": spec.origin,
        "input": spec.input.model_dump(mode="json"),
        "output": spec.output.model_dump(mode="json"),
        "labels": None if spec.labels is None else len(spec.labels),
        "source": spec.source,
        "licence": spec.licence,
        "plan": None if spec.plan is None else spec.plan.model_dump(mode="json"),
    }


def info_table(facts: dict[str, Any]) -> Table:
    """``describe``'s answer for a terminal."""
    picture = facts["input"]
    rows = {
        "file": f"{facts['file']} ({facts['bytes'] / 1e6:.1f} MB)",
        "manifest": facts["manifest"],
        "SHA-256": f"{facts['sha256']} (verified)",
        "origin": "this file" if facts["origin"] == facts["sha256"] else facts["origin"],
        "task": f"{facts['task']}, {facts['output']['size']} {facts['output']['kind']}"
        + (f", {facts['labels']} labels" if facts["labels"] else ""),
        "picture": f"{picture['width']}x{picture['height']} {picture['color']} {picture['layout']} {picture['dtype']}, "
        f"{picture['resize']}",
        "normalised": "by the graph"
        if picture["dtype"] == "uint8"
        else f"mean {_numbers(picture['mean'])}, std {_numbers(picture['std'])}",
        **(_graph_rows(facts) if "nodes" in facts else {}),
        **(_plan_rows(facts["plan"]) if facts["plan"] else {}),
        **facts["runtime"],
        "chosen": facts["chosen"],
        "source": facts["source"],
        "licence": facts["licence"],
    }
    table = Table(title=facts["name"], show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _graph_rows(facts: dict[str, Any]) -> dict[str, str]:
    operators = [f"{count} {name}" for name, count in facts["operators"].items()]
    return {
        "graph": f"{facts['parameters'] / 1e6:.2f} M parameters, {facts['nodes']} nodes, opset {facts['opset']}",
        "operators": ", ".join(operators[:8]) + (" …" if len(operators) > 8 else ""),
    }


def _plan_rows(plan: dict[str, Any]) -> dict[str, str]:
    return {
        "built from": f"{plan['onnx']}, SHA-256 {plan['onnx_sha256']}",
        "built for": f"TensorRT {plan['tensorrt']}, {gpu_text(plan)}",
        "precision": plan["precision"],
    }


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
