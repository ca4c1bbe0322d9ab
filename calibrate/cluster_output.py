"""What ``calibrate cluster`` leaves behind: folders of links, a contact sheet and a JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from calibrate.cluster import Cluster, ClusterOptions
from engines import ImageError, UsageError, decode_image

UInt8 = npt.NDArray[np.uint8]

FORMAT = 1
UNCLUSTERED = "unclustered"
SHEET_ROWS, SHEET_COLUMNS = 60, 12
_TILE, _GAP, _MARGIN = 96, 6, 190  # pixels; the margin holds the cluster's name
_PAPER, _INK = 250, (40, 40, 40)


@dataclass(frozen=True, slots=True)
class Clustered:
    """n pictures and what became of them: ``clusters`` over their rows, ``digests`` n SHA-256 of the files."""

    paths: Sequence[Path]
    digests: Sequence[str]
    clusters: Sequence[Cluster]
    options: ClusterOptions
    models: Sequence[str]
    views: Sequence[str]
    unreadable: dict[str, str]

    def named(self) -> list[tuple[str, Cluster]]:
        """Each cluster with its folder's name."""
        return [(f"cluster-{i:03}", cluster) for i, cluster in enumerate(self.clusters, 1)]

    def rest(self) -> list[int]:
        """The rows in no cluster."""
        inside = {int(row) for cluster in self.clusters for row in cluster.rows}
        return [row for row in range(len(self.paths)) if row not in inside]


def check_empty(folder: Path) -> None:
    """Raise :class:`UsageError` unless ``folder`` is missing or empty: links of two runs must not mix."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is not an empty folder; give a new one, so that no old link stays in it")


def write_clusters(folder: Path, found: Clustered) -> None:
    """Write ``clusters.json``, ``contact.jpg`` and one folder of relative links per cluster into ``folder``.

    Raises:
        UsageError: the folder is not empty or cannot be written.
    """
    check_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, cluster in found.named():
            _link(folder / name, (found.paths[row] for row in cluster.rows))
        _link(folder / UNCLUSTERED, (found.paths[row] for row in found.rest()))
        text = json.dumps(summary(found), indent=2, ensure_ascii=False)
        (folder / "clusters.json").write_text(text + "\n", encoding="utf-8")
        _, jpeg = cv2.imencode(".jpg", contact_sheet(found)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        (folder / "contact.jpg").write_bytes(jpeg.tobytes())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def summary(found: Clustered) -> dict[str, Any]:
    """What ``clusters.json`` says: options, and of each cluster its pictures, central one and source folders."""
    return {
        "format": FORMAT,
        "models": list(found.models),
        "views": list(found.views),
        "options": asdict(found.options),
        "pictures": len(found.paths),
        "copies": len(found.digests) - len(set(found.digests)),
        "clusters": [
            {
                "name": name,
                "size": len(cluster.rows),
                "mean_similarity": round(cluster.similarity, 4),
                "central": str(found.paths[cluster.rows[0]]),
                "folders": dict(Counter(str(found.paths[row].parent) for row in cluster.rows).most_common()),
                "pictures": [_entry(found, int(row)) for row in cluster.rows],
            }
            for name, cluster in found.named()
        ],
        UNCLUSTERED: [_entry(found, row) for row in found.rest()],
        "unreadable": found.unreadable,
    }


def contact_sheet(found: Clustered) -> UInt8:
    """One row of thumbnails per cluster, at most ``SHEET_ROWS`` x ``SHEET_COLUMNS``: uint8 (h, w, 3) RGB."""
    shown = found.named()[:SHEET_ROWS]
    height = _GAP + max(1, len(shown)) * (_TILE + _GAP)
    sheet: UInt8 = np.full((height, _MARGIN + SHEET_COLUMNS * (_TILE + _GAP), 3), _PAPER, dtype=np.uint8)
    for line, (name, cluster) in enumerate(shown):
        top = _GAP + line * (_TILE + _GAP)
        _write(sheet, name, top + 36)
        _write(sheet, f"{len(cluster.rows)}, mean {cluster.similarity:.2f}", top + 60)
        for column, row in enumerate(cluster.rows[:SHEET_COLUMNS]):
            left = _MARGIN + column * (_TILE + _GAP)
            sheet[top : top + _TILE, left : left + _TILE] = _thumbnail(found.paths[row])
    return sheet


def _entry(found: Clustered, row: int) -> dict[str, str]:
    return {"path": str(found.paths[row]), "sha256": found.digests[row]}


def _link(folder: Path, pictures: Iterable[Path]) -> None:
    for number, picture in enumerate(pictures):
        folder.mkdir(exist_ok=True)
        target = os.path.relpath(picture.resolve(), folder.resolve())
        (folder / f"{number:04}-{picture.name}").symlink_to(target)


def _write(sheet: UInt8, text: str, baseline: int) -> None:
    cv2.putText(sheet, text, (10, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _INK, 1, cv2.LINE_AA)


def _thumbnail(path: Path) -> UInt8:
    """The picture's largest centred square, (``_TILE``, ``_TILE``, 3)."""
    try:
        pixels = decode_image(path.read_bytes(), minimum=(_TILE, _TILE)).pixels
    except (ImageError, OSError):  # it was read a moment ago: somebody took it away
        return np.full((_TILE, _TILE, 3), 128, dtype=np.uint8)
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side]
    return np.asarray(cv2.resize(square, (_TILE, _TILE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
