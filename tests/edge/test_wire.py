"""Topics and payloads: what is taken, what is refused, and that nothing else can happen."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import FrameError
from edge.wire import NAME, Topics, clean_captured_at, clean_frame_id, parse_payload

TOPICS = Topics("cameras", "orin-07")
JPEG = b"\xff\xd8\xff\xe0 picture"
B64 = base64.b64encode(JPEG).decode()
LIMIT = 1 << 20


@given(st.text(max_size=100))
def test_camera_of_any_topic_names_a_camera_or_refuses(topic: str) -> None:
    for candidate in (topic, f"cameras/{topic}/frame"):
        try:
            camera = TOPICS.camera_of(candidate)
        except FrameError:
            continue
        assert NAME.fullmatch(camera)
        assert candidate == f"cameras/{camera}/frame"
        assert TOPICS.of_camera(camera, "verdict") == f"cameras/{camera}/verdict"


@pytest.mark.parametrize(
    "topic",
    ["cameras/a/b/frame", "cameras//frame", "cameras/frame", "cameras/ü/frame", "cameras/a\n/frame", "x/a/frame",
     "cameras/a/verdict", "cameras/../frame", "cameras/" + "a" * 65 + "/frame", "cameras/#/frame", ""],
)  # fmt: skip
def test_camera_of_hostile_topic_is_refused(topic: str) -> None:
    with pytest.raises(FrameError):
        TOPICS.camera_of(topic)


@pytest.mark.parametrize("payload", [JPEG, b"\x89PNG", b"RIFF", b"\x00", b"no picture at all"])
def test_parse_raw_bytes_are_the_image(payload: bytes) -> None:
    assert parse_payload(payload, LIMIT).image == payload


def test_parse_envelope_gives_image_id_and_time() -> None:
    envelope = {"image": B64, "frame_id": "000123", "captured_at": 1763683200.25}
    parsed = parse_payload(json.dumps(envelope).encode(), LIMIT)
    assert (parsed.image, parsed.frame_id, parsed.captured_at) == (JPEG, "000123", 1763683200.25)


@pytest.mark.parametrize("envelope", [{"b64": B64}, [{"frame_id": 12, "other": {}}, B64], {"image": B64, "x": [1]}])
def test_parse_other_forms(envelope: Any) -> None:
    assert parse_payload(json.dumps(envelope).encode(), LIMIT).image == JPEG


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"[", b"{}", b"[]", b"[1]", b'{"image": 1}', b'{"image": ""}', b'{"image": "%%%"}',
        b'{"image": "AAAA", "image": "BBBB"}', b'{"image": "AAAA", "captured_at": NaN}',
        b'{"image": "AAAA", "captured_at": 1e999}', b'{"image": "AAAA", "captured_at": "soon"}',
        b'{"image": "AAAA", "frame_id": {}}', b'{"image": "AAAA", "frame_id": true}',
        b'{"image": "AAAA", "frame_id": "' + b"x" * 300 + b'"}', b'{"image": "AAAA", "frame_id": "\\ud800"}',
        b'{"image": "AAAA", "frame_id": "\\u0000"}', b"[" * 100_000, b'{"a":' * 50_000, b'{"image": ' + b"9" * 5000,
        b'{"captured_at": ' + b"9" * 5000 + b', "image": "AAAA"}', b"\x7b\xff\xfe",
    ],
)  # fmt: skip
def test_parse_broken_envelope_is_refused_with_a_sentence(payload: bytes) -> None:
    with pytest.raises(FrameError, match=r"\w"):
        parse_payload(payload, LIMIT)


def test_parse_oversized_payload_is_refused_unread() -> None:
    with pytest.raises(FrameError, match="max_frame_mib"):
        parse_payload(b"{" + b" " * 100, 100)


@given(st.binary(max_size=300))
def test_parse_any_bytes_give_a_payload_or_our_error(payload: bytes) -> None:
    try:
        assert parse_payload(payload, LIMIT).image
    except FrameError:
        assert payload[:1] in (b"", b"{", b"[")


KEYS = st.sampled_from(["image", "b64", "frame_id", "captured_at", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_parse_any_json_gives_clean_fields_or_our_error(value: Any) -> None:
    try:
        parsed = parse_payload(json.dumps(value).encode(), LIMIT)
    except FrameError:
        return
    assert parsed.image
    assert clean_frame_id(parsed.frame_id) == parsed.frame_id
    assert clean_captured_at(parsed.captured_at) == parsed.captured_at


@pytest.mark.parametrize("payload", [b"[" + b"{}," * 2_000_000 + b"{}]", b"[" * 4_000_000], ids=["wide", "deep"])
def test_envelope_of_millions_of_parts_is_refused_before_it_is_built(payload: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="parts"):
            parse_payload(payload, 8 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
