"""From labels to a new gate: folders of links, the same fit again, and both gates on the same pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from calibrate.folders import Picture
from calibrate.metrics import clopper_pearson
from calibrate.review_labels import Label
from calibrate.samples import Booleans, Samples
from engines import ParrotgateError, UsageError

REVIEWED = "reviewed"


class WorseGateError(ParrotgateError):
    """The gate fitted again does worse by a family than the gate before."""


@dataclass(frozen=True, slots=True)
class Change:
    """One family, or a folder of several, under both gates: accepted pictures out of ``n``.

    ``worse`` says that the gate after lies beyond the 95 % interval of the gate before, on the side that hurts.
    """

    name: str
    positive: bool
    n: int
    before: int
    after: int

    @property
    def worse(self) -> bool:
        """Beyond the interval of the gate before."""
        low, high = clopper_pearson(self.before, self.n)
        share = self.after / self.n
        return share < low if self.positive else share > high

    def json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "worse": self.worse}


def link_training(
    folder: Path, pictures: Sequence[tuple[Picture, str]], labels: Mapping[str, Label]
) -> tuple[Path, list[Path]]:
    """Folders of links to ``pictures`` (each with its digest) as they were labelled; (positives, negatives).

    A labelled picture leaves the folder that it lay in, unless it bears its own folder's name; one without a family
    is left out. ``folder`` is made anew.

    Raises:
        UsageError: the links cannot be made.
    """
    kinds = {p.source for p, _ in pictures if p.family != p.source}
    positive = next(p.source for p, _ in pictures if p.positive)
    try:
        if folder.exists():
            shutil.rmtree(folder)
        for picture, digest in pictures:
            label = labels.get(digest)
            if label is None or _agrees(label, picture):
                _link(folder / _side(picture.positive) / picture.family, digest, picture.path)
        for label in labels.values():
            kept = any(digest == label.digest and _agrees(label, picture) for picture, digest in pictures)
            if label.family is not None and not kept:
                _link(folder / _place(label, positive, kinds), label.digest, label.path)
    except OSError as error:
        raise UsageError(f"{folder}: the links cannot be made ({error.strerror})") from error
    negatives = folder / _side(positive=False)
    return folder / _side(positive=True) / positive, sorted(negatives.iterdir()) if negatives.is_dir() else []


def compare_gates(samples: Samples, after: Booleans, before: Mapping[str, bool]) -> list[Change]:
    """Every family of ``samples`` and every folder of them, by what ``after`` (n,) and ``before`` (by digest) accept.

    Pictures that the gate before could not judge are left out.
    """
    known = np.array([digest in before for digest in samples.digests])
    earlier = np.array([before.get(digest, False) for digest in samples.digests])
    changes: list[Change] = []
    for positive in (True, False):
        side = known & (samples.positive == positive)
        names = [(name, samples.source == name) for name in dict.fromkeys(samples.source[side].tolist())]
        kinds = sorted(set(samples.family[side].tolist()) - {name for name, _ in names})
        names += [(name, samples.family == name) for name in kinds]
        for name, members in names:
            rows = side & members
            counts = int(rows.sum()), int(earlier[rows].sum()), int(after[rows].sum())
            changes.append(Change(name, positive, *counts))
    return changes


def changes_table(changes: Sequence[Change]) -> Table:
    """Recall and false accepts before and after, of every folder and of the families in it that changed."""
    shown = [change for change in changes if change.before != change.after or "/" not in change.name]
    rest = f"{len(changes) - len(shown)} families are as they were; all are in comparison.json"
    table = Table(title="Held-out pictures accepted, before and after", title_justify="left", box=SIMPLE_HEAD)
    table.caption, table.caption_justify = rest, "left"
    for column in ("family", "", "pictures", "before", "after", "verdict"):
        table.add_column(column, justify="left" if column in ("family", "", "verdict") else "right", overflow="fold")
    for change in shown:
        share = (f"{count} ({count / change.n:.1%})" for count in (change.before, change.after))
        what = "recall" if change.positive else "false accepts"
        table.add_row(change.name, what, str(change.n), *share, _word(change), style="bold" if change.worse else "")
    return table


def worse_sentence(changes: Sequence[Change]) -> str | None:
    """What got worse beyond its interval, None where nothing did."""
    parts = [
        f"{change.name} ({'recall' if change.positive else 'false accepts'} "
        f"{change.before / change.n:.1%} before, {change.after / change.n:.1%} after, of {change.n})"
        for change in changes
        if change.worse
    ]
    return f"the gate got worse beyond the interval of the one before: {'; '.join(parts)}" if parts else None


def _word(change: Change) -> str:
    if change.worse:
        return "WORSE"
    gain = (change.after - change.before) * (1 if change.positive else -1)
    return "better" if gain > 0 else "worse, by chance perhaps" if gain < 0 else "same"


def _agrees(label: Label, picture: Picture) -> bool:
    return label.positive == picture.positive and label.family in (picture.source, picture.family)


def _place(label: Label, positive: str, kinds: set[str]) -> Path:
    """Where a newly labelled picture goes: into its folder, or beside that folder's kinds."""
    family = str(label.family)
    source = positive if label.positive else family
    kind = REVIEWED if family == source else family
    inner = kind if source in kinds or kind != REVIEWED else ""
    return Path(_side(label.positive), source, inner)


def _side(positive: bool) -> str:
    return "positives" if positive else "negatives"


def _link(folder: Path, digest: str, target: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / f"{digest[:16]}{target.suffix.lower()}"
    if not link.is_symlink():
        link.symlink_to(target.resolve())
