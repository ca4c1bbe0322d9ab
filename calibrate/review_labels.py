"""A person's labels: one JSON line each, on the disk before the page hears that it was saved."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from calibrate.review_queue import Candidate
from engines import UsageError

FAMILY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Label:
    """``family`` and side of a picture; ``family`` None says that it is of no use for fitting."""

    digest: str
    path: Path
    family: str | None
    positive: bool


class LabelFile:
    """The labels of one review, in ``path``; the last line about a picture counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._labels: dict[str, Label] = {}
        if path.exists():
            self._read()

    @property
    def labels(self) -> Mapping[str, Label]:
        """The label of every labelled picture, by its digest."""
        return MappingProxyType(self._labels)

    def give(self, pictures: Sequence[Candidate], family: str | None, *, positive: bool) -> None:
        """Label ``pictures``; returns when the lines are on the disk.

        Raises:
            UsageError: the family's name cannot be a folder's, or the file cannot be written.
        """
        if family is not None and not FAMILY.fullmatch(family):
            raise UsageError(
                f"{family!r} cannot name a family: letters, digits, space, dot, dash, underscore, up to 64"
            )
        labels = [Label(picture.digest, picture.path, family, positive) for picture in pictures]
        self._append({**_plain(label), "gate_said": p.decisive} for label, p in zip(labels, pictures, strict=True))
        self._labels.update({label.digest: label for label in labels})

    def take_back(self, pictures: Sequence[Candidate]) -> None:
        """Forget the labels of ``pictures``; the lines that gave them stay in the file."""
        self._append({"digest": picture.digest, "taken_back": True} for picture in pictures)
        for picture in pictures:
            self._labels.pop(picture.digest, None)

    def _append(self, rows: Iterable[dict[str, Any]]) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = "".join(json.dumps({**row, "at": now}, sort_keys=True) + "\n" for row in rows)
        try:
            # One write to a file opened for appending: lines of two writers never mix, and none is half there.
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, lines.encode())
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise UsageError(f"{self._path}: the label cannot be saved ({error.strerror})") from error

    def _read(self) -> None:
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # the power failed within a line; nobody was told that it was saved
            os.truncate(self._path, len(whole))
        for number, line in enumerate(whole.decode("utf-8", "replace").splitlines(), start=1):
            try:
                row = json.loads(line)
                if row.get("taken_back"):
                    self._labels.pop(row["digest"], None)
                    continue
                label = Label(str(row["digest"]), Path(row["path"]), row["family"], bool(row["positive"]))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{self._path}: line {number} is no label; mend or remove it") from error
            self._labels[label.digest] = label


def _plain(label: Label) -> dict[str, Any]:
    path = str(label.path.resolve())
    return {"digest": label.digest, "path": path, "family": label.family, "positive": label.positive}
