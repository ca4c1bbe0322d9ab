"""Features kept on disk: one small .npy per picture and view, named by what the features depend on.

The name is a SHA-256 over the picture's bytes, the model's bytes and preprocessing, and the view, so that a stale
entry cannot be met, and an interrupted run goes on where it stopped. Nothing here is unpickled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines import ModelSpec, UsageError

Float32 = npt.NDArray[np.float32]
VERSION = "1"  # raise when decoding or a view changes what a picture's features are


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/parrotgate/features``, below ``~/.cache`` where that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrotgate" / "features"


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """The entries of one model below ``folder``; safe to share between threads and processes."""

    folder: Path
    model: str
    size: int

    def get(self, digest: str, views: Sequence[str]) -> tuple[Float32, ...] | None:
        """A row (D,) for each view of the picture with SHA-256 ``digest``, or None unless all are there and sound."""
        rows = [self._read(self._path(digest, view)) for view in views]
        found = tuple(row for row in rows if row is not None)
        return found if len(found) == len(views) else None

    def put(self, digest: str, view: str, row: Float32) -> None:
        """Keep ``row`` (D,), in one step: no reader ever sees half of it."""
        path = self._path(digest, view)
        draft = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.save(file, row, allow_pickle=False)
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise UsageError(
                f"{self.folder}: cannot keep features ({error.strerror}); choose another --cache, or --no-cache"
            ) from error

    def _path(self, digest: str, view: str) -> Path:
        key = hashlib.sha256(f"{VERSION} {self.model} {view} {digest}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npy"

    def _read(self, path: Path) -> Float32 | None:
        try:
            with path.open("rb") as file:
                row = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or damaged: computed again
            return None
        if not isinstance(row, np.ndarray) or row.dtype != np.float32 or row.shape != (self.size,):
            return None
        return row


def open_cache(folder: Path, spec: ModelSpec, device: str) -> FeatureCache:
    """The cache below ``folder`` of the features that ``spec``'s model gives on ``device``."""
    model = hashlib.sha256(f"{spec.sha256} {device} {spec.input.model_dump_json()}".encode()).hexdigest()
    return FeatureCache(folder, model, spec.output.size)
