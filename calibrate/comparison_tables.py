"""A comparison as tables for the terminal, in 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from calibrate.comparison import Comparison, Row

CELL = 9  # columns of text of a member's cell in the table of families, its heading apart
ALL_IN_ONE = 100  # columns from which on the figures over all negatives stand in one table
SHOWN_FAMILIES = 12

_RANKS = {
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "tpr_at_fpr_1": "TPR at\n1 % FPR",
    "average_precision": "average\nprecision",
}
_OWN = {"brier": "Brier", "log_loss": "log-loss", "ece": "ECE", "recall": "recall"}


def comparison_tables(found: Comparison, width: int, *, all_families: bool = False) -> list[RenderableType]:
    """Every row over all negatives, then against each folder of them, each family, and the worst of all, for a
    terminal of ``width`` columns."""
    parts = [{**_RANKS, **_OWN}] if width >= ALL_IN_ONE else [_RANKS, _OWN]
    return [
        *(overall_table(found, part) for part in parts),
        *([mixture_table(found)] if found.mixtures else []),
        source_table(found),
        *family_tables(found.rows, width, None if all_families else SHOWN_FAMILIES),
        worst_table(found.rows),
        *([paired_table(found)] if found.paired else []),
    ]


def overall_table(found: Comparison, figures: Mapping[str, str]) -> Table:
    """``figures`` and their headings over all negatives together."""
    table = _table(
        "Held out, nested: no fit saw the picture, its kind or its family; 95 % intervals over folders; "
        f"recall {_at(found)}",
        found.folds,
    )
    _columns(table, "recipe or member", *figures.values())
    for row in found.rows:
        known = row.figures["sources"]["all"] | row.figures
        table.add_row(row.name, *(_cell(known[name]) for name in figures))
    return table


def mixture_table(found: Comparison) -> Table:
    """The candidates of the Gaussian mixture on all positives."""
    table = _table("Gaussian mixture: the likeliest on left-out folders is taken in each fit; here on all positives")
    _columns(table, "covariance", "mixtures", "left-out log-likelihood", "BIC", "")
    least = min(candidate.bic for candidate in found.mixtures)
    for i, candidate in enumerate(found.mixtures):
        remarks = [word for word, holds in (("taken", i == 0), ("least BIC", candidate.bic == least)) if holds]
        numbers = str(candidate.mixtures), f"{candidate.left_out:.2f}", f"{candidate.bic:.0f}"
        table.add_row(candidate.covariance, *numbers, ", ".join(remarks))
    return table


def source_table(found: Comparison) -> Table:
    """Each folder of negatives by member."""
    rows = found.rows
    table = _table(f"Against each folder of negatives; accepted {_at(found)}; last column: recall with none accepted")
    _columns(table, "recipe or member", *_RANKS.values(), "accepted", "TPR at\nnone")
    for source in (name for name in rows[0].figures["sources"] if name != "all"):
        n = rows[0].figures["sources"][source]["false_accepts"]["n"]
        table.add_section()
        table.add_row(f"[bold]{source}[/] {n}")
        for row in rows:
            figures = row.figures["sources"][source]
            table.add_row(row.name, *(_cell(figures[name]) for name in (*_RANKS, "false_accepts", "tpr_at_fpr_0")))
    return table


def family_tables(rows: Sequence[Row], width: int, most: int | None) -> list[Table]:
    """Families held out whole by member, AUROC and FPR95, those that fare worst in the first row on top."""
    first = rows[0].families
    names = sorted(first, key=lambda name: (-first[name]["fpr95"]["value"], first[name]["auroc"]["value"], name))[:most]
    hidden = len(first) - len(names)
    more = f"{hidden} more with --all-families; intervals with --json" if hidden else "intervals with --json"
    tables = []
    for shown in _side_by_side(rows, width - max(map(len, names)) - 8):
        table = _table("Each family of negatives, held out whole: AUROC and FPR95", more)
        _columns(table, "family", "n", *(row.name.replace(" ", "\n", 1) for row in shown))
        for name in names:
            table.add_row(name, str(first[name]["n"]), *(_pair(row.families[name]) for row in shown))
        tables.append(table)
    return tables


def _side_by_side(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """Rows as columns, as many in each table as ``width`` holds."""
    parts: list[list[Row]] = [[]]
    left = width
    for row in rows:
        needed = max(CELL, *map(len, row.name.split())) + 1
        if parts[-1] and needed > left:
            parts.append([])
            left = width
        parts[-1].append(row)
        left -= needed
    return parts


def worst_table(rows: Sequence[Row]) -> Table:
    """The family that each member takes for positives most, and the kind that it knows least."""
    table = _table("The worst family and the worst kind of each")
    _columns(table, "recipe or member", "worst family", "n", "AUROC", "FPR95", "worst kind", "n", "recall")
    for column in (table.columns[1], table.columns[5]):
        column.justify, column.overflow = "left", "fold"
    for row in rows:
        family, kind = row.families[row.worst_family], row.kinds[row.worst_kind]
        rates = _short(family["auroc"]["value"]), _short(family["fpr95"]["value"])
        taken = _leaf(row.worst_family), str(family["n"]), *rates
        table.add_row(row.name, *taken, _leaf(row.worst_kind), str(kind["n"]), _short(kind["value"]))
    return table


def paired_table(found: Comparison) -> Table:
    """The first two rows side by side, and their difference."""
    first, second = found.rows[:2]
    table = _table(f"{first.name} against {second.name}; an interval of the difference without 0 is a difference")
    _columns(table, "", first.name, second.name, "difference")
    for source, differences in found.paired["sources"].items():
        label = "all negatives" if source == "all" else source
        own, other = first.figures["sources"][source], second.figures["sources"][source]
        for name, words in (("auroc", "AUROC"), ("fpr95", "FPR95")):
            table.add_row(f"{words}, {label}", _cell(own[name]), _cell(other[name]), _cell(differences[name], "+"))
        table.add_row(f"accepted, {label}", _cell(own["false_accepts"]), _cell(other["false_accepts"]), "")
    table.add_row("recall", _cell(first.figures["recall"]), _cell(second.figures["recall"]), "")
    for name, words in (("ece", "ECE"), ("brier", "Brier"), ("log_loss", "log-loss")):
        table.add_row(words, _cell(first.figures[name]), _cell(second.figures[name]), _cell(found.paired[name], "+"))
    return table


def _at(found: Comparison) -> str:
    return f"at {found.threshold}" if ":" in found.threshold else f"at probability {found.threshold}"


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0),
    )


def _columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for name in others:
        table.add_column(name, justify="right")


def _cell(figure: dict[str, Any], sign: str = "") -> str:
    low, high = figure["ci95"]
    return f"{_short(figure['value'], sign)} [dim]{_short(low, sign)}–{_short(high, sign)}[/]"


def _leaf(family: str) -> str:
    """The folder's own name; of kinds held out together the first, and how many more."""
    first, *more = family.rpartition("/")[2].split("+")
    return f"{first} and {len(more)} more" if more else first


def _pair(figures: dict[str, Any]) -> str:
    return f"{_short(figures['auroc']['value'])} {_short(figures['fpr95']['value'])}"


def _short(value: float, sign: str = "") -> str:
    """Three places, without the zero before the point: eight columns of figures and intervals stand side by side."""
    text = f"{value:{sign}.3f}"
    return text.replace("0.", ".", 1) if text.lstrip("+-").startswith("0.") else f"{value:{sign}.2f}"
