"""Features spread over a Dask cluster through joblib's own backend: the only file that imports dask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from joblib import Parallel, delayed, parallel_config

from calibrate.extract import BATCH, Extracted, Known, collect, features_of
from calibrate.feature_cache import open_cache
from engines import Engine, UsageError, open_engine

TASK = 8 * BATCH  # pictures a task: long enough beside the scheduler's milliseconds, short enough to share out


def extract_on_cluster(
    engine: Engine, model: Path, paths: Sequence[Path], views: Sequence[str], cache: Path | None, scheduler: str
) -> Extracted:
    """As :func:`calibrate.extract.extract`, each worker of the cluster with an engine of its own.

    ``model``, ``paths`` and ``cache`` must mean the same on every machine; ``engine`` is the model opened here, whose
    hash the workers' must equal. Raises :class:`UsageError` when Dask is missing or no cluster answers.
    """
    try:
        distributed = import_module("dask.distributed")
    except ImportError as error:
        raise UsageError("--backend dask needs Dask: pip install 'parrotgate[distributed]'") from error
    try:
        client = distributed.Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise UsageError(f"{scheduler}: no Dask scheduler answers ({error}); start one, or mend --scheduler") from error
    chunks = [paths[start : start + TASK] for start in range(0, len(paths), TASK)]
    whole = [[path.resolve() for path in chunk] for chunk in chunks]
    with client, parallel_config(backend="dask"):
        task = delayed(_features)
        found = Parallel()(
            task(model.resolve(), engine.spec.sha256, chunk, tuple(views), cache and cache.resolve()) for chunk in whole
        )
    return collect((item for chunk in found for item in chunk), len(paths), views, engine.spec.output.size)


def _features(
    model: Path, sha256: str, paths: Sequence[Path], views: Sequence[str], cache: Path | None
) -> list[Known | str]:
    engine = _opened(model, sha256)
    kept = open_cache(cache, engine.spec, engine.device) if cache else None
    with Parallel(n_jobs=1) as one:
        parts = [features_of(engine, paths[i : i + BATCH], views, kept, one) for i in range(0, len(paths), BATCH)]
    return [item for part in parts for item in part]


@lru_cache(maxsize=1)
def _opened(model: Path, sha256: str) -> Engine:
    return open_engine(model, "auto", threads=1, sha256=sha256)
