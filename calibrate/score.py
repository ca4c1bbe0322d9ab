"""Pictures scored by a gate file, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from calibrate.extract import extract
from calibrate.folders import pictures_in
from edge.gate import Gate
from engines import Engine, UsageError

HEADER = ("path", "score", "probability", "accepted")


def score_pictures(gate: Gate, engine: Engine, paths: Sequence[Path], out: TextIO) -> dict[Path, str]:
    """Write :data:`HEADER` and a row per picture, in the order given, folders walked; returns the unreadable ones.

    ``accepted`` is at the gate's own threshold. ``probability`` stays empty for a gate fitted without negatives; all
    three fields do for a picture that cannot be read or whose features are not finite.
    """
    pictures = [picture for path in paths for picture in pictures_in(path)]
    if not pictures:
        raise UsageError(f"no picture in {', '.join(map(str, paths))}; give pictures or folders that hold some")
    extracted = extract(engine, pictures, gate.views)
    scores = gate.judge(gate.join_views([extracted.views[view] for view in gate.views]))
    rows: dict[int, tuple[str, str, str]] = {}
    for i, index in enumerate(extracted.rows):
        if scores.finite[i]:
            probability = "" if scores.probability is None else f"{scores.probability[i]:.6f}"
            rows[int(index)] = (f"{scores.score[i]:.6f}", probability, "true" if scores.accepted[i] else "false")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((str(path), *rows.get(i, ("", "", ""))) for i, path in enumerate(pictures))
    return {pictures[i]: reason for i, reason in extracted.unreadable.items()}
