"""Cross-validation of species heads: the method chosen on inner folds, judged on pictures that no choice saw."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibrate.species_folds import groups_per_class, stratified_folds
from calibrate.species_heads import (
    METHODS,
    Head,
    Subspace,
    best_temperature,
    fit_nearest_mean,
    log_loss,
)
from calibrate.species_samples import SpeciesSamples

log = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

INNER_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """A fitted head and how it came about: its method, temperature and each candidate's inner log-loss."""

    head: Head
    method: str
    temperature: float
    losses: dict[str, float]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Answers to n pictures by heads that knew neither them nor their groups: ``probability`` and the nearest-mean
    ``baseline``'s answer (n, K) and (n,), the ``fold`` (n,), and the ``methods`` chosen in each fold."""

    probability: Float64
    baseline: Indices
    fold: Indices
    methods: tuple[str, ...]


def cross_validate(samples: SpeciesSamples, methods: Sequence[str], folds: int, seed: int) -> HeldOut:
    """Nested cross-validation in ``folds`` stratified, group-aware folds.

    All views of a training picture are learnt from; a held-out picture is judged by its full view alone, as the box
    sees it. Method and temperature come from inner folds of the training part.
    """
    rng = np.random.default_rng(seed)
    fold = stratified_folds(samples.label, samples.group, folds, rng)
    probability = np.empty((len(samples.label), samples.classes))
    baseline = np.empty(len(samples.label), dtype=np.intp)
    names = []
    for one in np.unique(fold):
        rows, rest = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
        chosen = choose(samples, rest, methods, rng)
        names.append(chosen.method)
        seen = samples.views["full"][rows]
        probability[rows] = chosen.head.probabilities(seen)
        nearest = fit_nearest_mean(samples.views["full"][rest].astype(np.float64), samples.label[rest], samples.classes)
        baseline[rows] = nearest.logits(seen).argmax(axis=1)
    return HeldOut(probability, baseline, fold, tuple(names))


def choose(samples: SpeciesSamples, rows: Indices, methods: Sequence[str], rng: np.random.Generator) -> Chosen:
    """The method with the least log-loss on inner folds of ``rows``, fitted on all of them and tempered.

    Where a class of ``rows`` has a single group, inner folds cannot be had: the first method is taken as it is.
    """
    label, group = samples.label[rows], samples.group[rows]
    if groups_per_class(label, group).min() < 2:
        log.debug("a class has one group in training: %s is taken unchosen", methods[0])
        return Chosen(_fit(samples, rows, methods[:1])[0], methods[0], 1.0, {})
    fold = stratified_folds(label, group, INNER_FOLDS, rng)
    logits = np.empty((len(methods), len(rows), samples.classes))
    for one in np.unique(fold):
        heads = _fit(samples, rows[fold != one], methods)
        for number, head in enumerate(heads):
            logits[number, fold == one] = head.logits(samples.views["full"][rows[fold == one]])
    temperatures = [best_temperature(own, label) for own in logits]
    losses = [log_loss(own / t, label) for own, t in zip(logits, temperatures, strict=True)]
    best = int(np.argmin(losses))
    head = _fit(samples, rows, [methods[best]])[0].tempered(temperatures[best])
    named = {name: round(loss, 4) for name, loss in zip(methods, losses, strict=True)}
    return Chosen(head, methods[best], temperatures[best], named)


def _fit(samples: SpeciesSamples, rows: Indices, methods: Sequence[str]) -> list[Head]:
    x = np.concatenate([view[rows] for view in samples.views.values()]).astype(np.float64)
    label = np.tile(samples.label[rows], len(samples.views))
    span = Subspace.of(x)
    return [span.fit(METHODS[method], label, samples.classes) for method in methods]
