"""Which pictures a person should look at: near the threshold, against their label, and some refused ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from calibrate.duplicates import near_duplicates
from calibrate.extract import extract
from calibrate.feature_cache import FeatureCache
from calibrate.folders import pictures_in
from calibrate.samples import Floats
from calibrate.study import Study
from edge.gate import Gate
from engines import Engine, UsageError

Why = Literal["disagreement", "near", "random"]
SHARES: dict[Why, float] = {"disagreement": 0.4, "near": 0.4, "random": 0.2}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that may be asked about; ``family`` and ``positive`` are its folder's, None where it has no label."""

    digest: str
    path: Path
    decisive: float
    accepted: bool
    family: str | None = None
    positive: bool | None = None

    @property
    def disagrees(self) -> bool:
        """Whether the gate says otherwise than the folder."""
        return self.positive is not None and self.positive != self.accepted


@dataclass(frozen=True, slots=True)
class Item:
    """One question: pictures that are nearly the same, and why they are asked about."""

    why: Why
    pictures: tuple[Candidate, ...]


def labelled_candidates(study: Study) -> tuple[list[Candidate], Floats]:
    """The pictures of ``study`` as candidates, with their features (n, D)."""
    samples, accepted = study.samples, study.accepted
    candidates = [
        Candidate(
            digest,
            study.path(row),
            float(study.decisive[row]),
            bool(accepted[row]),
            str(samples.family[row]),
            bool(samples.positive[row]),
        )
        for row, digest in enumerate(samples.digests)
    ]
    return candidates, samples.features


def unlabelled_candidates(
    gate: Gate, engine: Engine, folders: Sequence[Path], cache: FeatureCache | None = None
) -> tuple[list[Candidate], Floats]:
    """Readable, different pictures below ``folders`` as ``gate`` judges them, with their features (n, D).

    Raises:
        UsageError: there is no picture.
    """
    pictures = [picture for folder in folders for picture in pictures_in(folder)]
    if not pictures:
        raise UsageError(f"no picture in {', '.join(map(str, folders))}; give folders that hold some")
    extracted = extract(engine, pictures, gate.views, cache)
    features = gate.join_views([extracted.views[view] for view in gate.views])
    scores = gate.judge(features)
    first = {digest: row for row, digest in reversed(list(enumerate(extracted.digests)))}
    rows = sorted(row for row in first.values() if scores.finite[row])
    candidates = [
        Candidate(
            extracted.digests[row],
            pictures[int(extracted.rows[row])],
            float(scores.decisive[row]),
            bool(scores.accepted[row]),
        )
        for row in rows
    ]
    return candidates, features[rows]


def build_queue(
    candidates: Sequence[Candidate], features: Floats, threshold: float, limit: int, seed: int = 0
) -> list[Item]:
    """At most ``limit`` questions about ``candidates`` (n) with ``features`` (n, D), near-duplicates as one.

    Two in five are disagreements, the most certain first; two in five lie near the threshold, in the gate's odds; the
    rest are refused pictures at random. Pictures without a label come before those whose folder speaks for them. Where
    one kind runs short, pictures nearer the threshold take its place.
    """
    group = _groups(features)
    orders: dict[Why, list[int]] = {
        "disagreement": _disagreements(candidates, threshold),
        "near": _near(candidates, threshold),
        "random": _refused(candidates, seed),
    }
    asked: dict[int, Why] = {}
    for why, share in SHARES.items():
        _take(orders[why], group, asked, why, len(asked) + round(share * limit))
    _take(orders["near"], group, asked, "near", limit)
    members: dict[int, list[int]] = {}
    for row, number in enumerate(group):
        members.setdefault(number, []).append(row)
    return [Item(why, tuple(candidates[row] for row in members[number])) for number, why in asked.items()]


def _groups(features: Floats) -> list[int]:
    group = list(range(len(features)))
    for rows in near_duplicates(features):
        for row in rows.tolist():
            group[row] = int(rows[0])
    return group


def _take(order: Sequence[int], group: Sequence[int], asked: dict[int, Why], why: Why, until: int) -> None:
    for row in order:
        if len(asked) >= until:
            return
        asked.setdefault(group[row], why)


def _disagreements(candidates: Sequence[Candidate], threshold: float) -> list[int]:
    distance = _distances(candidates, threshold)
    rows = [row for row, candidate in enumerate(candidates) if candidate.disagrees]
    return sorted(rows, key=lambda row: -distance[row])


def _near(candidates: Sequence[Candidate], threshold: float) -> list[int]:
    distance = _distances(candidates, threshold)
    return sorted(range(len(candidates)), key=lambda row: (candidates[row].positive is not None, distance[row]))


def _refused(candidates: Sequence[Candidate], seed: int) -> list[int]:
    rows = [row for row, candidate in enumerate(candidates) if not candidate.accepted and not candidate.positive]
    mixed = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    return sorted(mixed, key=lambda row: candidates[row].positive is not None)


def _distances(candidates: Sequence[Candidate], threshold: float) -> list[float]:
    return [abs(a - b) for a, b in _log_odds(candidates, threshold)]


def _log_odds(candidates: Sequence[Candidate], threshold: float) -> Iterator[tuple[float, float]]:
    def logit(p: float) -> float:
        clipped = min(max(p, 1e-9), 1.0 - 1e-9)
        return float(np.log(clipped / (1.0 - clipped)))

    return ((logit(candidate.decisive), logit(threshold)) for candidate in candidates)
