"""Features with their labels, as the recipes take them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Samples:
    """n pictures: ``features`` (n, D), ``positive`` (n,), ``family`` (n,) the folder that stays together in a fold,
    ``source`` (n,) the folder given on the command line, ``digests`` n SHA-256 of the files; ``torn`` those of files
    found on both sides, which are not among the n."""

    features: Floats
    positive: Booleans
    family: Strings
    source: Strings
    digests: tuple[str, ...]
    torn: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = {len(self.features), len(self.positive), len(self.family), len(self.source), len(self.digests)}
        if len(sizes) != 1:
            raise ValueError(f"samples need one label, family, source and digest per row; found lengths {sizes}")

    @property
    def positives(self) -> int:
        """How many rows are positive."""
        return int(self.positive.sum())

    @property
    def negatives(self) -> int:
        """How many rows are negative."""
        return len(self.positive) - self.positives

    def with_features(self, features: Floats) -> Samples:
        """The same pictures with other features (n, D)."""
        return replace(self, features=features)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Samples:
        """The samples at ``rows`` (a mask or indices)."""
        everything = np.arange(len(self.positive))
        chosen = everything[rows]
        if np.array_equal(chosen, everything):
            return self
        digests = tuple(self.digests[i] for i in chosen)
        return Samples(
            self.features[rows], self.positive[rows], self.family[rows], self.source[rows], digests, self.torn
        )

    def digest(self) -> str:
        """SHA-256 over the sorted lines ``label family picture-hash``: names the training set."""
        lines = sorted(f"{int(p)} {f} {d}\n" for p, f, d in zip(self.positive, self.family, self.digests, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def counts(self, *, positive: bool) -> dict[str, int]:
        """Pictures per family of the positives or the negatives."""
        return dict(sorted(Counter(map(str, self.family[self.positive == positive])).items()))


def drop_repeats(samples: Samples) -> tuple[Samples, int]:
    """Each file once, and none that lies on both sides (``torn``); also how many further copies were dropped.

    A copy in two folds would be judged by a member that knows it; of a file on both sides nobody knows which side is
    right, and held out from one it would be known from the other.
    """
    seen: dict[tuple[bool, str], int] = {}
    for row, key in enumerate(zip(samples.positive.tolist(), samples.digests, strict=True)):
        seen.setdefault(key, row)
    torn = {digest for positive, digest in seen if positive and (False, digest) in seen}
    keep = np.asarray(sorted(row for (_, digest), row in seen.items() if digest not in torn), dtype=np.intp)
    return replace(samples.take(keep), torn=tuple(sorted(torn))), len(samples.positive) - len(seen)
