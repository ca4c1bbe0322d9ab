"""``report.html`` and ``report.json``: what a gate was fitted on, how good it is, and what that does not prove."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from calibrate.chooser import Rules, Use
from calibrate.report_findings import findings
from calibrate.report_page import render
from calibrate.study import Study
from engines import UsageError


def write_report(
    folder: Path,
    study: Study,
    use: Use | None = None,
    rules: Rules | None = None,
    cost: dict[str, Any] | None = None,
) -> Path:
    """Write both files into ``folder``, made where missing, and return the page's path.

    ``cost`` is what :func:`calibrate.view_cost.view_cost` measured; None: how often a frame is inferred alone is told.

    Raises:
        UsageError: the folder cannot be written.
    """
    found = findings(study, use or Use(), rules or Rules()) | {"cost": cost or _unmeasured(study)}
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1, sort_keys=True, allow_nan=False)
        _replace(folder / "report.json", text + "\n")
        _replace(page, render(study, found))
    except OSError as error:
        raise UsageError(f"{folder}: the report cannot be written ({error.strerror})") from error
    return page


def _unmeasured(study: Study) -> dict[str, Any]:
    return {"inferences": len(study.manifest.views), "ms": {}, "device": None}


def _replace(path: Path, text: str) -> None:
    """Write beside ``path``, then rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
