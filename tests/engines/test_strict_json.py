"""JSON from outside: everything RFC 8259 allows, nothing else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import strict_json

LIMIT = 1 << 20
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_loads_returns_what_json_wrote(value: object) -> None:
    assert strict_json.loads(json.dumps(value).encode(), max_bytes=LIMIT) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "too large"),
        (b"[-1e999]", "too large"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"b": {"a": 1, "c": 3, "a": 2}}', "'a' stands twice"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": 1', "Expecting"),
        (b"\xff\xfe", "utf-8"),
        (b"[" + b"9" * 5000 + b"]", "4300"),
        (b"[1]" + b" " * LIMIT, "bytes, more than"),
        (b"", "Expecting value"),
    ],
)
def test_loads_refuses(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        strict_json.loads(text, max_bytes=LIMIT)


@given(st.binary(max_size=200))
def test_loads_of_any_bytes_raises_nothing_but_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        strict_json.loads(data, max_bytes=100)
