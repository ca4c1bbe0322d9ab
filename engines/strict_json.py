"""JSON as RFC 8259 means it: no NaN or infinity, no key twice, no depth or length that could hurt the reader."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def loads(data: bytes, *, max_bytes: int) -> Any:
    """Parse ``data`` (UTF-8, at most ``max_bytes`` bytes).

    Raises:
        ValueError: too long, no UTF-8, no JSON, a key twice in one object, NaN or an infinity (also by overflow,
            as ``1e999``), or nested too deeply. The message is one clause without a full stop.
    """
    if len(data) > max_bytes:
        raise ValueError(f"it has {len(data)} bytes, more than the {max_bytes} allowed")
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large for a 64-bit float")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return unique
