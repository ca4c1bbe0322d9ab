"""Logs on stderr: one line an event, ``key=value`` for people and grep, or JSON for collectors."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

Form = Literal["text", "json"]
_LEVELS = {"WARNING": "warn", "CRITICAL": "fatal"}


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_stamp(record)} {_level(record):<5} {record.name.rpartition('.')[2]}: {record.getMessage()}"
        line = line.replace("\n", "\\n")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"at": _stamp(record), "level": _level(record), "from": record.name, "message": record.getMessage()}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up_logging(form: Form = "text", level: int = logging.INFO) -> None:
    """Send every logger to stderr in ``form``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _stamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname, record.levelname.lower())
