"""A gate's held-out figures as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from edge.gate_manifest import GateManifest

WORST_FAMILIES = 3


def figures_table(manifest: GateManifest) -> Table:
    """AUROC, FPR95 and false accepts against each folder of negatives, with the families that fare worst."""
    figures = manifest.metrics
    rule = f"{manifest.decision.by.replace('_', '-')} >= {manifest.decision.threshold:g}"
    if manifest.decision.abstain is not None:
        rule += ", uncertain from {:g} to {:g}".format(*manifest.decision.abstain)
    title = f"{manifest.name}: held-out figures, 95 % intervals; accepted at {rule}"
    table = Table(
        title=title, title_justify="left", caption=_caption(manifest), caption_justify="left", box=SIMPLE_HEAD
    )
    for column in ("against", "pictures", "AUROC", "FPR95", "false accepts"):
        left = column == "against"
        table.add_column(column, justify="left" if left else "right", no_wrap=left, overflow="ellipsis")
    for source, row in figures.get("sources", {}).items():
        accepts = row["false_accepts"]
        table.add_row(source, str(accepts["n"]), _number(row["auroc"]), _percent(row["fpr95"]), _percent(accepts))
        for family, rate in _worst(figures["families"], source):
            accepted = _percent(rate).partition("\n")[0]
            table.add_row(f"· {family.partition('/')[2]}", str(rate["n"]), "", "", accepted, style="dim")
    return table


def _caption(manifest: GateManifest) -> str:
    figures, training = manifest.metrics, manifest.training
    parts = [f"recall {_percent(figures['recall'])} of {training.positives} positives"] if "recall" in figures else []
    if "ece" in figures:
        parts.append(f"ECE {_number(figures['ece'])}, calibrated by {manifest.calibration}")
    return "; ".join(part.replace("\n", " ") for part in parts) + f"\n{training.folds}"


def _worst(families: dict[str, Any], source: str) -> list[tuple[str, Any]]:
    own = [(name, rate) for name, rate in families.items() if name.startswith(f"{source}/") and rate["hits"]]
    return sorted(own, key=lambda item: (-item[1]["value"], item[0]))[:WORST_FAMILIES]


def _number(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.3f}\n[dim]({low:.3f}–{high:.3f})[/]"


def _percent(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.1%}\n[dim]({100 * low:.1f}–{100 * high:.1f})[/]"
