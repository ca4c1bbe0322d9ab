"""Real features, extracted once for all tests of this room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from calibrate.gather import gather
from calibrate.samples import Samples
from engines import open_engine


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A feature cache of this run's own, so that commands neither find nor leave anything in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
