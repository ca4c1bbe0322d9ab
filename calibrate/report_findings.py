"""What a study shows, as plain values: the report's JSON, from which its page is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from calibrate.chooser import (
    Rules,
    Use,
    choose,
    implied,
    proof_of_precision,
    proof_of_promise,
    proof_of_recall,
    proof_of_refusal,
)
from calibrate.curves import (
    precision_recall,
    reliability,
    roc,
    steps,
)
from calibrate.duplicates import ALIKE, Rows, near_duplicates
from calibrate.metrics import auroc, clopper_pearson, measure
from calibrate.samples import Booleans, Float64
from calibrate.study import Study

FORMAT = 1
WORST = 20
MAP_POINTS = 1500
PCA_ROWS = 2000  # more rows would not move a variance that anybody reads


def findings(study: Study, use: Use, rules: Rules) -> dict[str, Any]:
    """Everything the report says, JSON-able; pictures are named by their files."""
    manifest, samples = study.manifest, study.samples
    figures = manifest.metrics if study.fold is not None and manifest.metrics else _measured(study)
    ladder = steps(study.decisive, samples.positive, study.threshold)
    chosen = choose(ladder, rules, use)
    by_threshold = {step.threshold: step for step in ladder}
    return {
        "format": FORMAT,
        "gate": study.gate,
        "manifest": manifest.model_dump(mode="json", exclude={"metrics"}),
        "scores": "held-out" if study.fold is not None else "fresh",
        "threshold": study.threshold,
        "figures": figures,
        "confusion": _confusion(study),
        "families": families(study),
        "curves": _curves(study, use),
        "explained_variance": explained_variance(study),
        "use": {"prior": use.prior, "frames_a_day": use.frames, "estimate": use.estimate},
        "rules": {name: getattr(rules, name) for name in ("recall", "precision", "false_a_day", "cost_ratio")},
        "steps": [step.json() for step in ladder],
        "chosen": {
            rule: None if cut is None else {"threshold": cut, **implied(by_threshold[cut], use)}
            for rule, cut in chosen.items()
        },
        "implied": implied(by_threshold[study.threshold], use),
        "proof": proof(study, use, rules),
        "duplicates": duplicates(study),
        "worst": {"positives": _worst(study, positive=True), "negatives": _worst(study, positive=False)},
        "map": embedding_map(study),
    }


def proof(study: Study, use: Use, rules: Rules) -> list[str]:
    """Sentences on what this many pictures can and cannot prove."""
    positive, accepted = study.samples.positive, study.accepted
    kinds = len(study.samples.counts(positive=True))
    sentences = [
        proof_of_recall(int(accepted[positive].sum()), study.samples.positives, kinds),
        proof_of_promise(study.samples.positives, rules),
    ]
    negative = study.samples.negatives
    if not negative:
        return [*sentences, "Without negatives nothing can be said about false accepts; give folders of them."]
    for name, rows in _sources(study).items():
        sentences.append(proof_of_refusal(name, int(accepted[rows].sum()), int(rows.sum())))
    return [*sentences, proof_of_precision(negative, use, rules)]


def families(study: Study) -> list[dict[str, Any]]:
    """A row per family: its accepted share with interval, and AUROC against the other side; the worst first."""
    rows = []
    scores, positive = study.score, study.samples.positive
    for label in (True, False):
        others = scores[positive != label]
        for name, n in study.samples.counts(positive=label).items():
            own = (study.samples.family == name) & (positive == label)
            hits = int(study.accepted[own].sum())
            pair = (scores[own], others) if label else (others, scores[own])
            rows.append(
                {
                    "family": name,
                    "source": str(study.samples.source[own][0]),
                    "positive": label,
                    "n": n,
                    "accepted": hits,
                    "share": hits / n,
                    "ci95": [round(end, 6) for end in clopper_pearson(hits, n)],
                    "auroc": round(auroc(*pair), 6) if len(others) else None,
                }
            )
    return sorted(rows, key=_badness)


def duplicates(study: Study) -> dict[str, Any]:
    """Exact copies, near-duplicates, and what of them lies on both sides or in several folds."""
    samples, fold = study.samples, study.fold
    copies = [
        [str(path) for path in paths]
        for digest, paths in study.paths.items()
        if len(paths) > 1 and digest not in samples.torn
    ]
    left_out = [[str(path) for path in study.paths.get(digest, ())] for digest in samples.torn]
    groups = near_duplicates(samples.features)
    return {
        "alike": ALIKE,
        "copies": copies,
        "left_out": left_out,
        "groups": len(groups),
        "pictures": int(sum(map(len, groups))),
        "both_sides": [_named(study, rows) for rows in groups if _differ(samples.positive, rows)],
        "across_folds": [] if fold is None else [_named(study, rows) for rows in groups if _differ(fold, rows)],
        "within": [_named(study, rows) for rows in groups if fold is None or not _differ(fold, rows)],
    }


def explained_variance(study: Study) -> dict[str, Any]:
    """Cumulative shares of the positives' variance by principal component, and how many reach 50 to 99 %."""
    x = _some(study.samples.features[study.samples.positive], PCA_ROWS)
    variance = np.square(np.linalg.svd(x - x.mean(axis=0), compute_uv=False))
    share = np.cumsum(variance) / max(float(variance.sum()), 1e-300)
    reached = {f"{q:g}": int(np.searchsorted(share, q - 1e-12)) + 1 for q in (0.5, 0.8, 0.9, 0.95, 0.99)}
    return {"pictures": len(x), "components": reached, "cumulative": [round(float(s), 5) for s in share]}


def embedding_map(study: Study) -> list[dict[str, Any]]:
    """Up to 1500 pictures on the first two principal components of them all, each axis scaled to [0, 1]."""
    samples = study.samples
    rows = _spread(len(samples.positive), MAP_POINTS)
    x = samples.features[rows].astype(np.float64)
    x -= x.mean(axis=0)
    u, s, _ = np.linalg.svd(_some(x, len(x)), full_matrices=False)
    plane = np.zeros((len(x), 2))
    plane[:, : min(2, len(s))] = u[:, :2] * s[:2]
    low, span = plane.min(axis=0), np.maximum(np.ptp(plane, axis=0), 1e-12)
    plane = (plane - low) / span
    return [
        {**_picture(study, int(row)), "x": round(float(a), 4), "y": round(float(b), 4)}
        for row, (a, b) in zip(rows, plane, strict=True)
    ]


def _badness(row: dict[str, Any]) -> tuple[bool, float, str]:
    return not row["positive"], row["share"] if row["positive"] else -row["share"], row["family"]


def _measured(study: Study) -> dict[str, Any]:
    return measure(study.samples, study.score, study.accepted, study.probability, study.manifest.training.seed)


def _confusion(study: Study) -> dict[str, int]:
    positive, accepted = study.samples.positive, study.accepted
    return {
        "true_accepts": int((positive & accepted).sum()),
        "missed": int((positive & ~accepted).sum()),
        "false_accepts": int((~positive & accepted).sum()),
        "refused": int((~positive & ~accepted).sum()),
    }


def _curves(study: Study, use: Use) -> dict[str, Any]:
    positive = study.samples.positive
    curves: dict[str, Any] = {}
    s1 = study.score[positive]
    if study.samples.negatives:
        sources = {"all": ~positive, **_sources(study)} if len(_sources(study)) > 1 else _sources(study)
        curves["roc"] = {name: roc(s1, study.score[rows]) for name, rows in sources.items()}
        curves["precision_recall"] = precision_recall(s1, study.score[~positive])
        curves["precision_recall_at_prior"] = precision_recall(s1, study.score[~positive], use.prior)
    if study.probability is not None:
        curves["reliability"] = reliability(study.probability, positive)
    return curves


def _sources(study: Study) -> dict[str, Booleans]:
    samples = study.samples
    names = dict.fromkeys(samples.source[~samples.positive].tolist())
    return {name: ~samples.positive & (samples.source == name) for name in names}


def _worst(study: Study, *, positive: bool) -> list[dict[str, Any]]:
    """The pictures that the gate is most wrong about: positives it refuses, negatives it accepts, as far as it goes."""
    rows = np.flatnonzero(study.samples.positive == positive)
    sign = 1.0 if positive else -1.0
    order = np.lexsort((sign * study.score[rows], sign * study.decisive[rows]))[:WORST]
    return [_picture(study, int(row)) for row in rows[order]]


def _picture(study: Study, row: int) -> dict[str, Any]:
    samples = study.samples
    return {
        "path": str(study.path(row)),
        "family": str(samples.family[row]),
        "source": str(samples.source[row]),
        "positive": bool(samples.positive[row]),
        "decisive": round(float(study.decisive[row]), 6),
        "accepted": bool(study.accepted[row]),
    }


def _named(study: Study, rows: Rows) -> list[dict[str, Any]]:
    return [_picture(study, int(row)) for row in rows]


def _differ(labels: npt.NDArray[Any], rows: Rows) -> bool:
    return len(np.unique(labels[rows])) > 1


def _spread(n: int, most: int) -> Rows:
    """At most ``most`` of n rows, evenly."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.intp))


def _some(x: npt.NDArray[Any], most: int) -> Float64:
    return np.asarray(x[_spread(len(x), most)], dtype=np.float64)
