"""``calibrate compare``: every row on the same folds, related kinds held out together."""

from __future__ import annotations

import numpy as np
import pytest

from calibrate.comparison import compare, comparison_table
from calibrate.families import merge_families, parse_groups
from engines import UsageError
from tests.calibrate import clusters


def test_every_member_and_recipe_has_a_row_of_figures_with_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibrate.metrics.BOOTSTRAPS", 40)
    samples = clusters.samples(
        {"macaw": 20, "amazon": 20, "grey": 20}, {"birds/owl": 15, "birds/wren": 15, "ducks": 25}
    )
    rows = compare(samples)
    named = {row.name: row.figures for row in rows}
    assert {"robust", "seed", "one-class SVM", "isolation forest", "KDE", "kNN", "PPCA", "logistic"} <= set(named)
    for figures in named.values():
        low, high = figures["sources"]["all"]["auroc"]["ci95"]
        assert low <= figures["sources"]["all"]["auroc"]["value"] <= high
        assert set(figures["families"]) == {"birds/owl", "birds/wren", "ducks"}
        assert figures["log_loss"] > 0
    assert named["robust"]["sources"]["all"]["auroc"]["value"] > 0.9
    assert comparison_table(rows).row_count == len(rows)


def test_related_kinds_become_one_family() -> None:
    samples = clusters.samples({"macaw": 3, "military": 2, "grey": 4}, {"ducks": 5})
    merged = merge_families(samples, parse_groups(["macaw, military"]))
    assert set(merged.family[merged.positive]) == {"macaw+military", "parrots/grey"}
    assert (merged.family == "macaw+military").sum() == 5
    np.testing.assert_array_equal(merged.features, samples.features)


@pytest.mark.parametrize("together", [["macaw"], ["macaw,grey", "grey,amazon"]])
def test_group_of_one_or_in_two_is_refused(together: list[str]) -> None:
    with pytest.raises(UsageError, match="--together takes two folders or more"):
        parse_groups(together)


def test_unknown_kind_and_too_few_samples_are_refused() -> None:
    samples = clusters.samples({"macaw": 12}, {"ducks": 5})
    with pytest.raises(UsageError, match="no folder 'makaw'; there are ducks, macaw"):
        merge_families(samples, {"makaw": "a"})
    with pytest.raises(UsageError, match="at least 10 positives and 5 negatives"):
        compare(clusters.samples({"macaw": 12}, {"ducks": 4}))
