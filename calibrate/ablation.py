"""How far each idea of the ``robust`` recipe carries: one left out or put in at a time, on the same held-out pictures.

Every row is judged on kinds and families that its members were not fitted on, over several seeds. A seed decides which
folders of equal size share a fold, and how a folder too large for one fold is spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from threadpoolctl import threadpool_limits

from calibrate.decision import DEFAULT
from calibrate.fit import hold_out
from calibrate.folds import Split, split
from calibrate.metrics import measure
from calibrate.recipes import Recipe, RobustRecipe, SeedRecipe
from calibrate.samples import Float64, Samples, Strings
from edge.gate import unit_rows
from engines import UsageError
from engines.console import track

REFERENCE = "robust (default)"
BOOTSTRAPS = 500
MIN_EACH = 20  # positives and negatives below which a row would say nothing


@dataclass(frozen=True, slots=True)
class Idea:
    """A row: its recipe, the ``views`` it takes, and what it does without.

    ``border``: logistic members beside the density. ``neighbourhood``: positives told from the nearest source alone,
    both together from what is farther, with a density of their own. ``grouped_folds``: join and calibrator learn from
    kinds that the members did not know. ``kinds_together``: related kinds are held out together; else figures flatter.
    """

    name: str
    recipe: Recipe
    views: str = "full"
    border: bool = True
    neighbourhood: bool = True
    grouped_folds: bool = True
    kinds_together: bool = True


IDEAS = (
    Idea("seed recipe", SeedRecipe()),
    Idea("density alone", RobustRecipe(), border=False),
    Idea("density, one border", RobustRecipe(), neighbourhood=False),
    Idea("deviations summed", RobustRecipe(summed=True)),
    Idea(REFERENCE, RobustRecipe()),
    Idea("robust, flips", RobustRecipe(), views="full,hflip"),
    Idea("robust, centre", RobustRecipe(), views="full,centre"),
    Idea("robust, plain folds", RobustRecipe(), grouped_folds=False),
    Idea("robust, kinds apart", RobustRecipe(), kinds_together=False),
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

    ``merged`` maps the views of ``IDEAS`` to samples of the same pictures whose related kinds share a family;
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


def ablation_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Gain, recall and ECE of every idea; then a table for each source of negatives.

    Figures are means over the seeds; in brackets 95 % intervals over families, the ends averaged over the seeds.
    """
    first = outcomes[0].figures[0]["sources"]
    count = len(outcomes[0].figures)
    title = f"Held-out kinds and families, {count} seeds, decided at p >= {DEFAULT['probability']}"
    ours = _table(title, "gain in log-loss", "recall", "ECE")
    for outcome in outcomes:
        gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*outcome.gain)
        ours.add_row(outcome.idea.name, gain, _mean(outcome, "recall"), _mean(outcome, "ece"))
    ours.caption = "gain: paired, over the default, in nats a picture"
    tables = [ours]
    for source in (name for name in first if name != "all"):
        n = first[source]["false_accepts"]["n"]
        table = _table(f"Against {source}: {n} pictures", "AUROC", "FPR95", "accepted, seed by seed")
        for outcome in outcomes:
            found = [figures["sources"][source] for figures in outcome.figures]
            accepted = " ".join(str(one["false_accepts"]["hits"]) for one in found)
            figures = (_interval([one[name] for one in found]) for name in ("auroc", "fpr95"))
            table.add_row(outcome.idea.name, *figures, accepted)
        tables.append(table)
    return tables


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("idea")
    for column in columns:
        table.add_column(column, justify="right")
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
        _, join, calibration = hold_out(samples, planned, plain, border)
        score = join(held_out.members)
        probability = probability if calibration is None else calibration(score)
    return measure(samples, score, probability >= DEFAULT["probability"], probability, seed), probability


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


def _interval(found: Sequence[Mapping[str, Any]]) -> str:
    value = np.mean([one["value"] for one in found])
    low, high = np.mean([one["ci95"] for one in found], axis=0)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
