"""Samples from folders: found, read, freed of repeats, everything odd said in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibrate.blocks import blocks
from calibrate.extract import Extracted, extract
from calibrate.feature_cache import FeatureCache
from calibrate.folders import Picture, find_pictures
from calibrate.samples import Floats, Samples, drop_repeats
from edge.gate import join_views
from engines import Engine, ModelError

log = logging.getLogger(__name__)

SHOWN = 10


def gather(
    engine: Engine,
    positives: Path,
    negatives: Sequence[Path],
    views: Sequence[str],
    *,
    normalise: bool,
    cache: FeatureCache | None = None,
) -> Samples:
    """Samples of every readable, different picture below the folders; features (n, D) float32, views joined.

    Raises:
        UsageError: a folder is missing, empty or given twice.
        ModelError: ``engine`` gives no features, or none that are finite.
    """
    if engine.spec.task != "features":
        raise ModelError(
            f"{engine.spec.name}: task is {engine.spec.task!r}; a gate needs a model whose task is 'features'"
        )
    pictures = find_pictures(positives, negatives)
    extracted = extract(engine, [picture.path for picture in pictures], views, cache)
    _say("cannot be read, skipped", [f"{pictures[i].path}: {why}" for i, why in extracted.unreadable.items()])
    samples = _samples(pictures, extracted, views, normalise=normalise)
    samples, repeats = drop_repeats(samples)
    if repeats:
        log.warning("%d pictures are exact copies of others in their class; each is used once", repeats)
    places: dict[str, list[str]] = {digest: [] for digest in samples.torn}
    for digest, i in zip(extracted.digests, extracted.rows, strict=True):
        if digest in places:
            places[digest].append(str(pictures[i].path))
    _say(
        "lie both among the positives and the negatives, left out of both: mend the folders",
        [" = ".join(paths) for paths in places.values()],
    )
    return samples


def _samples(pictures: Sequence[Picture], extracted: Extracted, views: Sequence[str], *, normalise: bool) -> Samples:
    found = [pictures[i] for i in extracted.rows]
    features = _joined([extracted.views[view] for view in views], normalise=normalise)
    finite = [np.isfinite(features[b]).all(axis=1) & features[b].any(axis=1) for b in blocks(features)]
    usable = np.concatenate(finite)
    _say("have no finite features, skipped", [str(found[i].path) for i in np.flatnonzero(~usable)])
    samples = Samples(
        features,
        np.asarray([picture.positive for picture in found], dtype=np.bool_),
        np.asarray([picture.family for picture in found], dtype=np.str_),
        np.asarray([picture.source for picture in found], dtype=np.str_),
        extracted.digests,
    )
    return samples.take(usable)


def _joined(views: Sequence[Floats], *, normalise: bool) -> Floats:
    """Views (n, D) joined as on the box, float32; one view alone is not copied."""
    if len(views) == 1:
        return join_views(views, normalise=normalise)
    joined = np.empty(views[0].shape, np.float32)
    with np.errstate(invalid="ignore"):
        for rows in blocks(joined):
            joined[rows] = join_views([view[rows] for view in views], normalise=normalise)
    return joined


def _say(what: str, lines: list[str]) -> None:
    if lines:
        more = f"\n  … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        log.warning("%d pictures %s:\n  %s%s", len(lines), what, "\n  ".join(lines[:SHOWN]), more)
