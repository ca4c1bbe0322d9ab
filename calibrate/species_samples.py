"""From labelled folders to rows with labels and groups: repeats dropped, near-duplicates put into one group."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from calibrate.feature_cache import FeatureCache
from calibrate.fingerprints import VIEWS, fingerprint
from calibrate.species_folders import Labelled, check_sizes, find_labelled
from engines import Engine, UsageError

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
SHOWN = 10


@dataclass(frozen=True, slots=True)
class SpeciesSamples:
    """n pictures of K classes. ``views`` maps a view to fused unit rows (n, D), ``label`` (n,) indexes ``labels``,
    ``group`` (n,) numbers what stays in one fold, ``paths`` are the n files."""

    views: dict[str, Float32]
    label: Indices
    group: Indices
    labels: tuple[str, ...]
    paths: tuple[Path, ...]

    @property
    def classes(self) -> int:
        """K."""
        return len(self.labels)


def gather_species(
    engines: Sequence[Engine],
    folder: Path,
    views: Sequence[str],
    near: float | None,
    caches: Sequence[FeatureCache | None] | None = None,
) -> SpeciesSamples:
    """Read the labelled ``folder`` with every engine under ``views``, of which ``full`` must be one.

    ``near`` in (0, 1]: pictures of one class whose features have at least this cosine similarity, mirrored or not,
    share a group; None leaves the groups as the folders say. ``caches`` keep features, one for each engine.

    Raises:
        UsageError: the folders make no classifier; see :func:`find_labelled`.
    """
    pictures, labels = find_labelled(folder)
    shown = [view for view in VIEWS if view in views]
    found = fingerprint(engines, [picture.path for picture in pictures], shown, caches)
    _say("cannot be read, skipped", [f"{pictures[i].path}: {why}" for i, why in found.unreadable.items()])
    read = [pictures[i] for i in found.rows]
    keep = _without_repeats(read, found.digests)
    label = np.array([read[i].label for i in keep], dtype=np.intp)
    check_sizes(label.tolist(), labels)
    fused = {view: found.fused(view)[keep] for view in found.features}
    names = np.array([read[i].group for i in keep])
    group = np.unique(names, return_inverse=True)[1].astype(np.intp)
    if near is not None:
        group = _merged(group, label, fused, labels, near)
    return SpeciesSamples(fused, label, group, labels, tuple(read[i].path for i in keep))


def _without_repeats(read: Sequence[Labelled], digests: Sequence[str]) -> Indices:
    """Each file once; none that lies in two classes, for nobody knows which is right."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        rows[digest].append(row)
    torn = {digest for digest, same in rows.items() if len({read[i].label for i in same}) > 1}
    _say("lie in two classes, left out: mend the folders", [str(read[i].path) for d in sorted(torn) for i in rows[d]])
    keep = sorted(same[0] for digest, same in rows.items() if digest not in torn)
    if not keep:
        raise UsageError("no picture can be read that lies in one class only")
    return np.array(keep, dtype=np.intp)


def _merged(group: Indices, label: Indices, views: dict[str, Float32], labels: Sequence[str], near: float) -> Indices:
    """Groups joined wherever two of their pictures are near-duplicates."""
    full, mirror = views["full"], views.get("hflip", views["full"])
    pairs = [np.stack((np.arange(len(group)), group + len(group)))]  # picture and group hang together
    for one in np.unique(label):
        rows = np.flatnonzero(label == one)
        alike = np.maximum(full[rows] @ full[rows].T, full[rows] @ mirror[rows].T) >= near
        found = rows[np.stack(np.nonzero(np.triu(alike, 1)))]
        if len(np.unique(group[rows])) > 1 and len(np.unique(_joined(group, [*pairs[:1], found])[rows])) == 1:
            log.warning(
                "class %s: every picture has a near-duplicate under these features; none are joined", labels[one]
            )
            continue
        pairs.append(found)
    merged = _joined(group, pairs)
    count = len(np.unique(group)) - len(np.unique(merged))
    if count:
        log.info("%d groups joined others for near-duplicate pictures (cosine >= %g)", count, near)
    return merged


def _joined(group: Indices, pairs: Sequence[Indices]) -> Indices:
    a, b = np.concatenate(pairs, axis=1)
    size = len(group) + int(group.max()) + 1
    joined = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(size, size)), directed=False)[1]
    return np.unique(joined[: len(group)], return_inverse=True)[1].astype(np.intp)


def _say(what: str, lines: list[str]) -> None:
    if lines:
        more = f"\n  … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        log.warning("%d pictures %s:\n  %s%s", len(lines), what, "\n  ".join(lines[:SHOWN]), more)
