"""Kinds that are related, held out together: a macaw is no unseen kind to a gate that knows other macaws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from calibrate.samples import Samples
from engines import UsageError


def merge_families(samples: Samples, groups: Mapping[str, str]) -> Samples:
    """The samples with families renamed by ``groups``, so that kinds that are related are held out together.

    Raises :class:`UsageError` for a name that no family bears.
    """
    families = set(map(str, samples.family))
    known = {family.rpartition("/")[2]: family for family in sorted(families)}
    for name in groups:
        if name not in known and name not in families:
            raise UsageError(f"--together: no folder {name!r}; there are {', '.join(sorted(known))}")
    merged = [groups.get(f, groups.get(f.rpartition("/")[2], f)) for f in map(str, samples.family)]
    return replace(samples, family=np.asarray(merged, np.str_))


def parse_groups(together: Sequence[str]) -> dict[str, str]:
    """``["macaw,military_macaw", "cockatoo,gang_gang"]`` as family -> group; the first name leads the group."""
    groups: dict[str, str] = {}
    for text in together:
        names = [part.strip() for part in text.split(",") if part.strip()]
        if len(names) < 2 or any(name in groups for name in names):
            raise UsageError(f"--together takes two folders or more, each in one group, with commas; found {text!r}")
        groups |= dict.fromkeys(names, "+".join(names))
    return groups
