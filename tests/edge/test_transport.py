"""Row 11 in seconds: a load that any machine holds goes through, and every frame is answered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.ledger import Outcome
from tests.soak.transport import one_load


@pytest.mark.mosquitto
def test_load_goes_through_and_every_frame_is_answered(tmp_path: Path) -> None:
    outcome = Outcome()
    one_load(outcome, tmp_path, size=30_000, rate=50.0, seconds=2.0)
    assert outcome.sums["lost"] == 0
    assert outcome.sums["frames of 30 kB"] >= 50
    assert "30 kB: frames/s" in outcome.worst
