"""The report's page: findings turned into drawings and thumbnails, and those into one HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from calibrate.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Chart,
    Dot,
    Histogram,
    Line,
    Tick,
    histogram,
    log_axis,
    logit_axis,
    points,
    scale,
    shares_chart,
)
from calibrate.pictures import data_uri
from calibrate.study import Study

SIDE = 132
MAP_SIDE = 48
MAP_PICTURES = 56
SHOWN_FAMILIES = 12
SHOWN_GROUPS = 12
SHOWN_IN_GROUP = 6


def render(study: Study, found: Mapping[str, Any]) -> str:
    """One HTML page that needs nothing from outside; whatever names it shows are shown as words."""
    environment = Environment(
        loader=PackageLoader("calibrate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("calibrate") / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    sources = _source_series(study)
    axis = logit_axis() if study.probability is not None else log_axis(1.0 / (study.samples.positives + 1))
    return environment.get_template("report.html.j2").render(
        f=found,
        style=style,
        script=script,
        policy=_policy(style, script),
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        sources=sources,
        charts=_charts(study, found, sources),
        axis=axis,
        histograms=_histograms(study, axis),
        shown_families=SHOWN_FAMILIES,
        worst={side: _with_thumbnails(found["worst"][side]) for side in ("positives", "negatives")},
        copies=_copies(found["duplicates"]),
        map=_map(found["map"], sources),
        chooser=_chooser(found),
    )


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source_series(study: Study) -> dict[str, int]:
    """A colour's number for each folder that was given: 0 for the positives, then the negatives in their order."""
    samples = study.samples
    positives = dict.fromkeys(samples.source[samples.positive].tolist(), 0)
    negatives = dict.fromkeys(samples.source[~samples.positive].tolist())
    return positives | {name: 1 + i % 6 for i, name in enumerate(negatives)}


def _charts(study: Study, found: Mapping[str, Any], sources: Mapping[str, int]) -> dict[str, Chart]:
    charts = {"explained": _explained_chart(found["explained_variance"])}
    curves = found["curves"]
    if "roc" in curves:
        charts["roc"] = _roc_chart(curves["roc"], sources, found)
        charts["pr"] = _pr_chart(curves, study, found)
    if "reliability" in curves:
        charts["reliability"] = _reliability_chart(curves["reliability"])
    return charts


def _roc_chart(curves: Mapping[str, Any], sources: Mapping[str, int], found: Mapping[str, Any]) -> Chart:
    chart, x, y = shares_chart("ROC: recall against false accepts", "false accepts", "recall")
    chart.lines.append(Line(points([(0, 0), (1, 1)], x, y), 9, style="dashed"))
    for name, curve in curves.items():
        style = "solid" if name == "all" or len(curves) == 1 else "thin"
        label = "all negatives" if name == "all" else name
        chart.lines.append(Line(points(curve, x, y), sources.get(name, 0), label, style))
    confusion = found["confusion"]
    negatives = confusion["false_accepts"] + confusion["refused"]
    recall = confusion["true_accepts"] / (confusion["true_accepts"] + confusion["missed"])
    fpr = confusion["false_accepts"] / negatives
    words = f"at the gate's threshold: recall {recall:.1%}, false accepts {fpr:.1%}"
    chart.dots.append(Dot(x(fpr), y(recall), y(recall), y(recall), words))
    return chart


def _pr_chart(curves: Mapping[str, Any], study: Study, found: Mapping[str, Any]) -> Chart:
    chart, x, y = shares_chart("Precision against recall", "recall", "precision")
    share = study.samples.positives / len(study.samples.positive)
    chart.lines.append(Line(points(curves["precision_recall"], x, y), 0, f"as here, {share:.0%} positive"))
    prior = found["use"]["prior"]
    curve = points(curves["precision_recall_at_prior"], x, y)
    chart.lines.append(Line(curve, 3, f"where {prior:.3g} are positive", "thin"))
    return chart


def _reliability_chart(bins: Sequence[Mapping[str, Any]]) -> Chart:
    chart, x, y = shares_chart("Reliability", "stated probability", "share of positives")
    chart.lines.append(Line(points([(0, 0), (1, 1)], x, y), 9, style="dashed"))
    for row in bins:
        low, high = row["ci95"]
        right = f"{row['share']:.0%} are positive ({low:.0%}–{high:.0%})"
        words = f"{row['n']} pictures said {row['probability']:.2f}; {right}"
        chart.dots.append(Dot(x(row["probability"]), y(row["share"]), y(low), y(high), words))
    return chart


def _explained_chart(variance: Mapping[str, Any]) -> Chart:
    shares = variance["cumulative"]
    most = max(2, min(len(shares), variance["components"]["0.99"] + 5))
    x, y = scale(1, most, LEFT, RIGHT), scale(0, 1, BOTTOM, TOP)
    numbers = sorted({round(1 + (most - 1) * q / 4) for q in range(5)})
    curve = list(enumerate(shares[:most], start=1))
    return Chart(
        "Variance explained by the first principal components of the positives",
        "principal components",
        "variance explained",
        [Tick(x(n), str(n)) for n in numbers],
        [Tick(y(q), f"{q:g}") for q in (0.0, 0.25, 0.5, 0.75, 1.0)],
        [Line(points([(float(n), float(s)) for n, s in curve], x, y), 0)],
    )


def _histograms(study: Study, axis: Axis) -> dict[str, dict[str, Histogram]]:
    """By folder and by family, positives' names apart from negatives' by their colour alone."""
    samples = study.samples
    drawn: dict[str, dict[str, Histogram]] = {"sources": {}, "families": {}}
    for kind, labels in (("sources", samples.source), ("families", samples.family)):
        for name in dict.fromkeys(labels.tolist()):
            drawn[kind][name] = histogram(study.decisive[labels == name], axis, study.threshold)
    return drawn


def _with_thumbnails(pictures: Sequence[Mapping[str, Any]], side: int = SIDE) -> list[dict[str, Any]]:
    return [
        {**picture, "name": Path(picture["path"]).name, "data": data_uri(Path(picture["path"]), side)}
        for picture in pictures
    ]


def _copies(duplicates: Mapping[str, Any]) -> dict[str, Any]:
    """The groups worth a look, leaks first, with thumbnails; counts stay in the findings."""

    def shown(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[dict[str, Any]]]:
        return [_with_thumbnails(group[:SHOWN_IN_GROUP], 96) for group in groups[:SHOWN_GROUPS]]

    return {kind: shown(duplicates[kind]) for kind in ("both_sides", "across_folds", "within")}


def _map(cloud: Sequence[Mapping[str, Any]], sources: Mapping[str, int]) -> dict[str, Any]:
    """Dots in a box of 1000 by 640, thumbnails at points far from one another."""
    spots = [
        {
            "x": round(30 + 940 * p["x"], 1),
            "y": round(612 - 584 * p["y"], 1),
            "series": sources[p["source"]],
            "words": f"{p['family']}: {Path(p['path']).name}, {p['decisive']:.3f}",
            "family": p["family"],
            "accepted": p["accepted"],
        }
        for p in cloud
    ]
    chosen = _far_apart(np.array([[s["x"], s["y"]] for s in spots]), MAP_PICTURES)
    thumbnails = [{**spots[i], "data": data_uri(Path(cloud[i]["path"]), MAP_SIDE)} for i in chosen]
    return {
        "spots": spots,
        "pictures": [t for t in thumbnails if t["data"]],
        "families": sorted({s["family"] for s in spots}),
    }


def _far_apart(xy: np.ndarray[Any, np.dtype[np.float64]], count: int) -> list[int]:
    """Indices of points, each the farthest from those before it, until thumbnails would overlap."""
    chosen = [0]
    nearest = np.full(len(xy), np.inf)
    while len(chosen) < min(count, len(xy)):
        nearest = np.minimum(nearest, np.abs(xy - xy[chosen[-1]]).max(axis=1))
        farthest = int(np.argmax(nearest))
        if nearest[farthest] < MAP_SIDE + 4:
            break
        chosen.append(farthest)
    return chosen


def _chooser(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script needs: columns of numbers, short names."""
    ladder = found["steps"]
    columns = ("threshold", "recall", "recall_ci95", "true_accepts", "false_accepts", "false_ci95", "false_count")
    confusion = found["confusion"]
    return {
        "steps": [[step[name] for name in columns] for step in ladder],
        "threshold": found["threshold"],
        "use": found["use"],
        "rules": found["rules"],
        "positives": confusion["true_accepts"] + confusion["missed"],
        "negatives": confusion["false_accepts"] + confusion["refused"],
        "calibrated": found["manifest"]["decision"]["by"] == "probability",
    }
