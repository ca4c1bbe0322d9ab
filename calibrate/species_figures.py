"""How good a species classifier is on held-out pictures: per class, over all classes, with bootstrap intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.table import Table

from calibrate.species_evaluate import HeldOut
from calibrate.species_samples import SpeciesSamples

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

BOOTSTRAPS = 1000
FIGURES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
WORST, WHOLE_MATRIX = 10, 12


def confusion(label: Indices, answer: Indices, classes: int) -> npt.NDArray[np.int64]:
    """Counts (K, K): rows are the truth, columns the answer."""
    counts = np.bincount(label * classes + answer, minlength=classes * classes)
    return counts.reshape(classes, classes)


def per_class(matrix: npt.NDArray[Any]) -> tuple[Float64, Float64, Float64]:
    """Precision, recall and F1 (K,) each; 0 for a class that was never answered, or never answered rightly."""
    right = np.diag(matrix).astype(np.float64)
    answered, there = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = right / np.maximum(answered, 1)
    recall = right / np.maximum(there, 1)
    f1 = 2.0 * right / np.maximum(answered + there, 1)
    return precision, recall, f1


def overall(matrix: npt.NDArray[Any]) -> Float64:
    """Accuracy and macro precision, recall and F1 (4,), in the order of ``FIGURES``."""
    accuracy = np.trace(matrix) / max(1, matrix.sum())
    return np.array([accuracy, *(part.mean() for part in per_class(matrix))])


def measure_species(samples: SpeciesSamples, held_out: HeldOut, seed: int) -> dict[str, Any]:
    """Figures of held-out answers, as the report stores them.

    Intervals are 95 % percentile bootstraps that draw groups anew inside each class; ``gain`` is the difference to the
    nearest-mean baseline, on the same draws. They do not speak of other classes, nor of another choice of folds.
    """
    label, classes = samples.label, samples.classes
    answer = held_out.probability.argmax(axis=1)
    matrix, base = confusion(label, answer, classes), confusion(label, held_out.baseline, classes)
    draws = list(_draws(samples, seed))
    ours = np.array([overall(confusion(label[rows], answer[rows], classes)) for rows in draws])
    theirs = np.array([overall(confusion(label[rows], held_out.baseline[rows], classes)) for rows in draws])
    precision, recall, f1 = per_class(matrix)
    return {
        "classifier": _figures(overall(matrix), ours),
        "nearest_mean": _figures(overall(base), theirs),
        "gain": _figures(overall(matrix) - overall(base), ours - theirs),
        "log_loss": round(_log_loss(held_out.probability, label), 4),
        "top3": round(_top(held_out.probability, label, 3), 4),
        "per_class": [
            {"label": name, "pictures": int(n), "precision": round(p, 4), "recall": round(r, 4), "f1": round(f, 4)}
            for name, n, p, r, f in zip(
                samples.labels, matrix.sum(axis=1), precision.tolist(), recall.tolist(), f1.tolist(), strict=True
            )
        ],
        "confusion": {"labels": list(samples.labels), "rows_are": "truth", "counts": matrix.tolist()},
    }


def figures_table(figures: dict[str, Any]) -> Table:
    """Classifier, baseline and the difference, with intervals."""
    table = Table(
        title="Held-out pictures, 95 % intervals", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("")
    for name in FIGURES:
        table.add_column(name.replace("_", " "), justify="right")
    for row in ("classifier", "nearest_mean", "gain"):
        table.add_row(row.replace("_", " "), *(_text(figures[row][name]) for name in FIGURES))
    return table


def classes_table(figures: dict[str, Any]) -> Table:
    """Every class, or the ``WORST`` by F1 where there are many."""
    rows = figures["per_class"]
    shown = rows if len(rows) <= WHOLE_MATRIX else sorted(rows, key=lambda row: (row["f1"], row["label"]))[:WORST]
    title = "Classes" if shown is rows else f"The {WORST} worst of {len(rows)} classes"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("class", "pictures", "precision", "recall", "F1"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in shown:
        table.add_row(row["label"], str(row["pictures"]), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")))
    return table


def confusion_table(figures: dict[str, Any]) -> Table:
    """The confusion matrix, or the most frequent confusions where there are many classes."""
    labels, counts = figures["confusion"]["labels"], np.array(figures["confusion"]["counts"])
    if len(labels) > WHOLE_MATRIX:
        return _confusions(labels, counts)
    table = Table(title="Confusion matrix: rows are the truth", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for number in range(len(labels)):
        table.add_column(str(number + 1), justify="right")
    for number, (name, row) in enumerate(zip(labels, counts.tolist(), strict=True)):
        table.add_row(f"{number + 1} {name}", *("·" if count == 0 else str(count) for count in row))
    return table


def _confusions(labels: list[str], counts: npt.NDArray[np.int64]) -> Table:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
    table = Table(title="Most frequent confusions", title_justify="left", box=SIMPLE_HEAD)
    for column in ("truth", "answer", "pictures"):
        table.add_column(column)
    for truth, answer in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[truth, answer]:
            table.add_row(labels[truth], labels[answer], f"{wrong[truth, answer]} of {counts[truth].sum()}")
    return table


def _draws(samples: SpeciesSamples, seed: int) -> list[Indices]:
    """Rows of ``BOOTSTRAPS`` samples: in each class as many of its groups as there are, with replacement."""
    rng = np.random.default_rng(seed)
    classes = [
        [np.flatnonzero(samples.group == group) for group in np.unique(samples.group[samples.label == one])]
        for one in range(samples.classes)
    ]
    return [
        np.concatenate([groups[i] for groups in classes for i in rng.integers(0, len(groups), len(groups))])
        for _ in range(BOOTSTRAPS)
    ]


def _figures(values: Float64, draws: Float64) -> dict[str, Any]:
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {
        name: {"value": round(value, 4), "ci95": [round(a, 4), round(b, 4)]}
        for name, value, a, b in zip(FIGURES, values.tolist(), low.tolist(), high.tolist(), strict=True)
    }


def _log_loss(probability: Float64, label: Indices) -> float:
    right = probability[np.arange(len(label)), label]
    return -float(np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean())


def _top(probability: Float64, label: Indices, count: int) -> float:
    best = np.argsort(-probability, axis=1, kind="stable")[:, :count]
    return float((best == label[:, None]).any(axis=1).mean())


def _text(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [dim]({low:.3f}–{high:.3f})[/]"
