"""Real features, extracted once for all tests of this room."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from calibrate.gather import gather
from calibrate.samples import Samples
from engines import open_engine

PER_KIND = {"parrots": 14, "other_birds": 1, "objects": 50, "rubber_ducks": 14}


@pytest.fixture(scope="session")
def real_folders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the given photos of every kind, as links, in the given folders."""
    chosen = tmp_path_factory.mktemp("photos")
    for source, limit in PER_KIND.items():
        taken: defaultdict[Path, int] = defaultdict(int)
        for path in sorted((shared / "images" / source).rglob("*.jpg")):
            taken[path.parent] += 1
            if taken[path.parent] <= limit:
                link = chosen / path.relative_to(shared / "images")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    return chosen


@pytest.fixture(scope="session")
def real_samples(shared: Path, real_folders: Path) -> Samples:
    """Their MobileNet features."""
    negatives = [real_folders / name for name in PER_KIND if name != "parrots"]
    with open_engine(shared / "models" / "mobilenet_v2_features.onnx", "cpu") as engine:
        return gather(engine, real_folders / "parrots", negatives, ("full",), normalise=False)
