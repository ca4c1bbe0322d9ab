"""How far each idea of the ``robust`` recipe carries: one left out or put in at a time, on the same held-out pictures.

Every row is judged on kinds and families that its members were not fitted on, over several seeds. A seed decides which
folders of equal size share a fold, and how a folder too large for one fold is spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.table import Table
from threadpoolctl import threadpool_limits

from calibrate.fit import PROBABILITY_THRESHOLD, hold_out
from calibrate.folds import Split, split
from calibrate.metrics import BOOTSTRAPS, measure
from calibrate.recipes import Recipe, RobustRecipe, SeedRecipe
from calibrate.samples import Float64, Samples, Strings
from edge.gate import unit_rows
from edge.gate_calibration import build_join
from engines import UsageError
from engines.console import track

REFERENCE = "robust (default)"
MIN_EACH = 20  # positives and negatives below which a row would say nothing


@dataclass(frozen=True, slots=True)
class Idea:
    """A row: its recipe, the ``views`` it takes, and what it does without."""

    name: str
    recipe: Recipe
    views: str = "full"
    border: bool = True
    neighbourhood: bool = True
    grouped_folds: bool = True
    kinds_together: bool = True


IDEAS = (
    Idea("seed recipe", SeedRecipe()),
    Idea("density of the positives alone", RobustRecipe(), border=False),
    Idea("density and one border, all negatives alike", RobustRecipe(), neighbourhood=False),
    Idea(REFERENCE, RobustRecipe()),
    Idea("robust, flips averaged", RobustRecipe(), views="full,hflip"),
    Idea("robust, calibrated on folds that ignore kinds", RobustRecipe(), grouped_folds=False),
    Idea("robust, related kinds not held out together (flatters)", RobustRecipe(), kinds_together=False),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row's ``figures`` for each seed, as :func:`calibrate.metrics.measure` gives them, and the paired ``gain`` in
    held-out log-loss (nats) over the reference with its 95 % interval over families; positive is better."""

    idea: Idea
    figures: tuple[dict[str, Any], ...]
    gain: tuple[float, float, float]


def ablate(merged: Mapping[str, Samples], apart: Samples, seeds: Sequence[int]) -> list[Outcome]:
    """A row for each of ``IDEAS`` whose views are there.

    ``merged`` maps ``full`` and ``full,hflip`` to samples of the same pictures whose related kinds share a family;
    ``apart`` are those of ``full`` with families as the folders say.

    Raises :class:`UsageError` where positives or negatives are too few to tell anything.
    """
    full = merged["full"]
    if min(full.positives, full.negatives) < MIN_EACH:
        raise UsageError(
            f"an ablation needs at least {MIN_EACH} positives and {MIN_EACH} negatives; "
            f"found {full.positives} and {full.negatives}"
        )
    found = {}
    with threadpool_limits(limits=1):
        for idea in track(IDEAS, "ideas"):
            samples = merged[idea.views] if idea.kinds_together else apart
            found[idea.name] = [judged(idea, samples, seed) for seed in seeds]
    losses = {name: np.mean([log_losses(full, p) for _, p in rows], axis=0) for name, rows in found.items()}
    return [
        Outcome(
            idea,
            tuple(figures for figures, _ in found[idea.name]),
            paired_gain(losses[REFERENCE] - losses[idea.name], full.family, seeds[0]),
        )
        for idea in IDEAS
    ]


def paired_gain(difference: Float64, family: Strings, seed: int) -> tuple[float, float, float]:
    """Mean of ``difference`` (n,) and its 95 % percentile interval over whole families (n,)."""
    rng = np.random.default_rng(seed)
    parts = [difference[family == name] for name in np.unique(family)]
    draws = [
        float(np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))]).mean())
        for _ in range(BOOTSTRAPS)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def ablation_table(outcomes: Sequence[Outcome]) -> Table:
    """Means over the seeds; in brackets 95 % intervals over families, the ends averaged over the seeds."""
    first = outcomes[0].figures[0]["sources"]
    table = Table(
        title=f"{len(outcomes[0].figures)} seeds, held-out kinds and families, decided at p >= {PROBABILITY_THRESHOLD}",
        caption="gain: in log-loss over the default, paired; accepted: of one seed's pictures, seed by seed",
    )
    table.add_column("idea")
    for column in ("gain", "recall", "ECE"):
        table.add_column(column, justify="right")
    for source in (name for name in first if name != "all"):
        table.add_column(f"{source}: AUROC, FPR95, accepted of {first[source]['false_accepts']['n']}")
    for outcome in outcomes:
        sources = [_source(outcome, name) for name in first if name != "all"]
        gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*outcome.gain)
        table.add_row(outcome.idea.name, gain, _mean(outcome, "recall"), _mean(outcome, "ece"), *sources)
    return table


def judged(idea: Idea, samples: Samples, seed: int) -> tuple[dict[str, Any], Float64]:
    """Figures of ``idea`` on ``samples``, and the held-out probability (n,) of every picture."""
    x = samples.features.astype(np.float64)
    samples = samples.with_features(np.asarray(unit_rows(x), np.float64) if idea.recipe.normalise else x)
    recipe = replace(idea.recipe, seed=seed) if isinstance(idea.recipe, SeedRecipe) else idea.recipe
    border = idea.border and recipe.name != "seed"
    folds = shuffled_split(samples, samples.family, seed)
    planned = recipe.planned(samples, folds.fold) if idea.neighbourhood else recipe
    held_out, _, _ = hold_out(samples, planned, folds, border)
    score, probability = held_out.score, held_out.decisive
    if not idea.grouped_folds:
        # Join and calibrator as plain folds give them, judging pictures whose kinds the members never saw.
        plain = shuffled_split(samples, np.asarray(samples.digests, np.str_), seed)
        _, arrays, calibration = hold_out(samples, planned, plain, border)
        score = build_join("clipped_sum" if arrays else "single", arrays, len(held_out.members))(list(held_out.members))
        probability = probability if calibration is None else calibration(score)
    return measure(samples, score, probability >= PROBABILITY_THRESHOLD, probability, seed), probability


def shuffled_split(samples: Samples, family: Strings, seed: int) -> Split:
    """A split in which the seed decides which of two folders alike in size comes first."""
    names = np.unique(family)
    order = dict(zip(names.tolist(), np.random.default_rng(seed).permutation(len(names)).tolist(), strict=True))
    return split(replace(samples, family=np.asarray([f"{order[f]:09d}" for f in family.tolist()], np.str_)), seed)


def log_losses(samples: Samples, probability: Float64) -> Float64:
    """-log of what ``probability`` (n,) leaves for the true label of each picture (n,), in nats."""
    p = np.clip(probability, 1e-6, 1.0 - 1e-6)
    return np.asarray(-np.where(samples.positive, np.log(p), np.log1p(-p)))


def _mean(outcome: Outcome, name: str) -> str:
    return _interval([figures[name] for figures in outcome.figures])


def _source(outcome: Outcome, name: str) -> str:
    found = [figures["sources"][name] for figures in outcome.figures]
    accepted = " ".join(str(one["false_accepts"]["hits"]) for one in found)
    return f"{_interval([one['auroc'] for one in found])}, {_interval([one['fpr95'] for one in found])}, {accepted}"


def _interval(found: Sequence[Mapping[str, Any]]) -> str:
    value = np.mean([one["value"] for one in found])
    low, high = np.mean([one["ci95"] for one in found], axis=0)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
