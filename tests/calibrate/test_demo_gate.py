"""The demo's gate: drawn folders, a fit on them, and the count over simulated cameras."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from calibrate.demo_gate import MODELS, Count, draw_folders, fit, measure, table
from edge.demo.simulator import KINDS, SPECIES


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    shutil.copytree(MODELS, folder, ignore=shutil.ignore_patterns("gate.npz"))
    return folder


def test_draw_folders_parrots_share_one_folder_and_every_other_kind_has_its_own(tmp_path: Path) -> None:
    positives, negatives = draw_folders(tmp_path, seed=3, per_kind=1)
    assert sorted(path.name for path in positives.iterdir()) == sorted(f"{kind}-0000.jpg" for kind in SPECIES)
    assert {path.parent.name for path in negatives.glob("*/*.jpg")} == set(KINDS) - set(SPECIES)


def test_gate_fitted_on_few_drawings_judges_simulated_cameras(models: Path) -> None:
    first = fit(models, seed=31, per_kind=10)
    assert fit(models, seed=31, per_kind=10) == first
    counts = measure(models, seed=700, cameras=3, frames=40)
    assert sum(count.frames for count in counts.values()) == 120
    parrots = [count for kind, count in counts.items() if kind in SPECIES]
    others = [count for kind, count in counts.items() if kind not in SPECIES]
    assert sum(count.accepted for count in parrots) >= 0.8 * sum(count.frames for count in parrots) > 0
    assert sum(count.accepted for count in others) <= 0.1 * sum(count.frames for count in others)
    assert all(count.named <= count.accepted <= count.frames for count in counts.values())


def test_table_sums_recall_over_parrots_and_false_accepts_over_the_rest() -> None:
    counts = {"cockatoo": Count(10, 9, 9), "lorikeet": Count(30, 27, 18), "duck": Count(40, 2), "perch": Count(60, 0)}
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(table(counts))
    lines = {line.split("│")[1].strip(): line for line in shown.get().splitlines() if line.count("│") == 5}
    assert "90.0%" in lines["all parrots (recall)"]
    assert "75.0%" in lines["all parrots (recall)"]
    assert "2.0%" in lines["all others (false accepts)"]
