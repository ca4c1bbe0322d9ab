"""Rows 24 to 26: the matrix of inputs, numbers that are not finite, topics and JSON."""

from __future__ import annotations

import base64
import json
import math
import random
import re
from contextlib import suppress

import numpy as np

from edge.decode import Decoder
from edge.errors import FrameError
from edge.records import Frame
from edge.records import Outcome as Verdict
from edge.verdict import encode
from edge.wire import Topics, parse_payload
from tests.edge.frames import raw_frame
from tests.edge.test_cascade import Kit
from tests.engines import pictures
from tests.soak.bad_pictures import OPENER, decoders
from tests.soak.ledger import Effort, Outcome

MAX_BYTES = 8 << 20
BAD_NUMBERS = (math.nan, math.inf, -math.inf)


# -- row 24: the matrix ----------------------------------------------------------------------------------------


def matrix(effort: Effort) -> Outcome:
    """Every case by decoder threads and by decoder processes: the documented end, and the same in both."""
    outcome = Outcome()
    here = Decoder(OPENER, MAX_BYTES)
    with decoders() as opener:
        there = Decoder(opener, MAX_BYTES)
        for name, (payload, sentence) in list(cases().items())[: effort.count]:
            for way, decoder in (("threads", here), ("isolated", there)):
                frame = decoder(raw_frame(payload=payload))
                outcome.demand(_as_documented(frame, sentence), f"{name}, {way}: {frame.error or 'a picture'}")
            outcome.add("pictures" if sentence is None else "refusals")
            outcome.done += 1
    return outcome


def _as_documented(frame: Frame, sentence: str | None) -> bool:
    if sentence is None:
        return frame.error is None and frame.pixels is not None and frame.features_input is not None
    return frame.error is not None and re.search(sentence, frame.error) is not None and frame.pixels is None


def cases() -> dict[str, tuple[bytes, str | None]]:
    """Name -> payload, and what its error sentence holds; None for what is a picture."""
    return {**_jpegs(), **_pngs(), **_webps(), **_no_pictures(), **_envelopes()}


def _jpegs() -> dict[str, tuple[bytes, str | None]]:
    scene = pictures.scene(160, 120)
    found: dict[str, tuple[bytes, str | None]] = {}
    for mode in ("L", "RGB", "CMYK"):
        picture = pictures.Image.fromarray(scene).convert(mode)
        for progressive in (False, True):
            found[f"JPEG {mode} progressive={progressive}"] = (
                pictures.save(picture, "JPEG", progressive=progressive), None
            )  # fmt: skip
    for subsampling in (0, 1, 2):
        for quality in (1, 50, 100):
            name = f"JPEG subsampling {subsampling} quality {quality}"
            found[name] = (pictures.save(scene, "JPEG", subsampling=subsampling, quality=quality), None)
    for orientation in range(10):
        found[f"JPEG EXIF {orientation}"] = (pictures.save(scene, "JPEG", exif=pictures.exif(orientation)), None)
    for blocks in (1, 8):
        found[f"JPEG restart {blocks}"] = (pictures.save(scene, "JPEG", restart_marker_blocks=blocks), None)
    for size in ((1, 1), (65500, 1), (1, 65500), (7, 3), (8, 8), (9, 17), (1920, 1080)):
        found[f"JPEG {size}"] = (pictures.save(pictures.scene(*size), "JPEG", quality=30), None)
    whole = pictures.save(scene, "JPEG")
    found["JPEG without its end marker"] = (whole[:-2], None)
    found["JPEG with a tail"] = (whole + b"tail" * 100, None)
    found["JPEG with a comment"] = (pictures.save(scene, "JPEG", comment=b"c" * 60_000), None)
    found["JPEG with a colour profile"] = (pictures.save(scene, "JPEG", icc_profile=b"p" * 3000), None)
    for cut in (2, 20, 200, len(whole) // 2, len(whole) - 40):
        found[f"JPEG cut at {cut}"] = (whole[:cut], "cut off|damaged|decoded")
    found["JPEG of nothing"] = (pictures.claim_size(whole, 0, 100), "positive|damaged|decoded|cut off")
    found["JPEG that claims 9000x9000"] = (pictures.claim_size(whole, 9000, 9000), "more than|cut off")
    for marker in (0xC3, 0xC5, 0xC9, 0xCA, 0xCB):
        found[f"JPEG frame ff{marker:02x}"] = (whole.replace(b"\xff\xc0", bytes((0xFF, marker)), 1), "no camera makes")
    found["JPEG of 12 bits"] = (_with_precision(whole, 12), "12 bits")
    return found


def _with_precision(jpeg: bytes, bits: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:at] + bytes((bits,)) + jpeg[at + 1 :]


def _pngs() -> dict[str, tuple[bytes, str | None]]:
    scene = pictures.scene(160, 120)
    found: dict[str, tuple[bytes, str | None]] = {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        picture = pictures.Image.fromarray(scene)
        grey = pictures.Image.fromarray(scene[..., 0].astype(np.uint16) * 257)
        found[f"PNG {mode}"] = (pictures.save(grey if mode == "I;16" else picture.convert(mode), "PNG"), None)
    for colour in (0, 2, 4, 6):
        channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
        rows = b"".join(b"\0" + bytes(2 * channels * 20) for _ in range(20))
        data = pictures.png(20, 20, pictures.zlib.compress(rows), bits=16, color=colour)
        found[f"PNG 16 bits colour type {colour}"] = (data, None)
    for size in ((1, 1), (4000, 1), (1, 4000)):
        found[f"PNG {size}"] = (pictures.save(pictures.scene(*size), "PNG"), None)
    for orientation in range(1, 9):
        found[f"PNG EXIF {orientation}"] = (pictures.save(scene, "PNG", exif=pictures.exif(orientation)), None)
    palette = pictures.Image.fromarray(scene).convert("P")
    found["PNG palette with transparency"] = (pictures.save(palette, "PNG", transparency=3), None)
    whole = pictures.save(scene, "PNG")
    for cut in (8, 30, len(whole) // 2, len(whole) - 5):
        found[f"PNG cut at {cut}"] = (whole[:cut], "cut off|damaged")
    found["PNG with a wrong checksum"] = (whole.replace(b"IDAT", b"IDAU"), "decoded|damaged|cut off")
    return found


def _webps() -> dict[str, tuple[bytes, str | None]]:
    scene = pictures.scene(160, 120)
    alpha = np.dstack([scene, scene[..., 0]])
    found: dict[str, tuple[bytes, str | None]] = {
        f"WebP lossless={lossless} alpha={picture.shape[2] == 4}": (
            pictures.save(picture, "WEBP", lossless=lossless), None
        )
        for lossless in (False, True)
        for picture in (scene, alpha)
    }  # fmt: skip
    for orientation in range(1, 9):
        found[f"WebP EXIF {orientation}"] = (pictures.save(scene, "WEBP", exif=pictures.exif(orientation)), None)
    whole = pictures.save(scene, "WEBP")
    for cut in (10, 20, 40, len(whole) - 3):
        found[f"WebP cut at {cut}"] = (whole[:cut], "cut off|damaged|no JPEG")
    return found


def _no_pictures() -> dict[str, tuple[bytes, str | None]]:
    scene = pictures.scene(64, 48)
    found: dict[str, tuple[bytes, str | None]] = {
        f"{kind} file": (pictures.save(scene, kind), "no JPEG, PNG or WebP")
        for kind in ("GIF", "TIFF", "BMP", "PPM", "ICO", "TGA", "PDF", "PCX", "SGI")
    }
    starts = {
        "HEIC": b"\0\0\0\x18ftypheic", "AVIF": b"\0\0\0\x1cftypavif", "MP4": b"\0\0\0\x18ftypisom", "JPEG 2000":
        b"\0\0\0\x0cjP  \r\n\x87\n", "OpenEXR": b"v/1\x01", "Radiance": b"#?RADIANCE", "ELF": b"\x7fELF", "zip":
        b"PK\x03\x04", "pickle": b"\x80\x04\x95", "text": b"hello", "HTML": b"<html>", "SVG": b"<svg ", "NUL": b"\0",
    }  # fmt: skip
    found |= {f"{name} bytes": (start + bytes(100), "no JPEG, PNG or WebP") for name, start in starts.items()}
    found["no bytes"] = (b"", "no bytes|empty")
    found["one byte"] = (b"\xff", "no JPEG|cut off")
    found["beyond the size cap"] = (b"\xff\xd8" + bytes(MAX_BYTES), "at most")
    found["beyond the decoder's memory"] = (b"GIF" + bytes(3 << 20), "no JPEG|at most")
    return found


def _envelopes() -> dict[str, tuple[bytes, str | None]]:
    picture = base64.b64encode(pictures.save(pictures.scene(), "JPEG")).decode()
    good = [
        {"image": picture}, {"b64": picture}, [{"frame": 1}, picture], {"image": picture, "frame_id": "7"},
        {"image": picture, "captured_at": 1763683200.25}, {"image": picture, "other": [1, {"a": None}]},
    ]  # fmt: skip
    bad = [
        {}, [], [1, 2, 3], {"image": 5}, {"image": None}, {"image": "%%%"}, {"image": picture, "b64": 7, "x": None},
    ]  # fmt: skip
    found = {f"envelope {n}": (json.dumps(value).encode(), None) for n, value in enumerate(good)}
    for n, value in enumerate(bad[:-1]):
        found[f"bad envelope {n}"] = (json.dumps(value).encode(), ".")
    broken = [b"{", b"[", b'{"image"', b'{"image": "' + b"A" * 50, b"[" * 5000, b'{"image": NaN}', b'{"a":1,"a":2}']
    for n, data in enumerate(broken):
        found[f"broken JSON {n}"] = (data, ".")
    return found


def matrix_control(effort: Effort) -> str:
    """A decoder that takes whatever OpenCV takes gives pictures where a refusal is documented."""
    import cv2

    taken = 0
    for payload, sentence in cases().values():
        if sentence is not None and 0 < len(payload) < 1 << 20:
            with suppress(cv2.error):
                taken += cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR) is not None
    if not taken:
        raise AssertionError("OpenCV alone refuses all of it")
    return f"OpenCV alone takes {taken} of what the matrix refuses for pictures"


# -- row 25: numbers that are not finite -----------------------------------------------------------------------


def not_finite(effort: Effort) -> Outcome:
    """NaN or an infinity at any place of the features or of the species' answer: an error verdict, and strict JSON."""
    outcome, rng, kit = Outcome(), random.Random(effort.seed), Kit()
    cascade = kit.cascade()
    frames = [kit.frame("scarlet_macaw", seed) for seed in range(3)]
    while effort.goes_on(outcome.done):
        stage = rng.choice((kit.features, kit.species))
        row, column = rng.randrange(3), rng.randrange(stage.spec.output.size)
        stage.spoil[row, column] = rng.choice(BAD_NUMBERS)
        verdicts = cascade.judge(frames)
        stage.spoil.clear()
        bad = verdicts[row]
        told = json.loads(encode(bad), parse_constant=_refuse)
        outcome.demand(bad.verdict is Verdict.ERROR and told["species"] is None, f"{row}, {column}: {bad.verdict}")
        others = [verdict for n, verdict in enumerate(verdicts) if n != row]
        outcome.demand(all(v.verdict is Verdict.POSITIVE for v in others), "a neighbour was judged otherwise")
        outcome.done += 1
    return outcome


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} in a verdict")


def not_finite_control(effort: Effort) -> str:
    """What a gate without the check would say."""
    answers = [value >= 0.5 for value in BAD_NUMBERS]
    if answers != [False, True, False] or int(np.argmax([0.9, math.nan, 0.1])) != 1:
        raise AssertionError("comparisons are not what they were")
    return "without the check NaN reads as 'no animal', inf as 'yes', and NaN wins the species"


# -- row 26: topics and JSON -----------------------------------------------------------------------------------


def topics_and_json(effort: Effort) -> Outcome:
    """Half topics, half payloads: our error or a clean answer, and no publication outside the template."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    topics = Topics("cameras", "w")
    template = re.compile(r"cameras/[A-Za-z0-9_-]{1,64}/verdict")
    while effort.goes_on(outcome.done):
        try:
            if rng.random() < 0.5:
                camera = topics.camera_of(_topic(rng))
                found = topics.of_camera(camera, "verdict")
                outcome.demand(template.fullmatch(found) is not None, f"publishes on {found!r}")
                outcome.add("topics taken")
            else:
                parsed = parse_payload(_payload(rng), 1 << 16)
                clean = isinstance(parsed.image, bytes) and (parsed.frame_id is None or parsed.frame_id.isprintable())
                finite = parsed.captured_at is None or math.isfinite(parsed.captured_at)
                outcome.demand(clean and finite, f"{parsed.frame_id!r}, {parsed.captured_at!r}")
                outcome.add("payloads taken")
        except FrameError:
            outcome.add("refused")
        outcome.done += 1
    return outcome


_LETTERS = "abcZ019_-+#/$\0 \n.\u00e9\u202e\ufeff\U0001f99c"


def _topic(rng: random.Random) -> str:
    name = "".join(rng.choices(_LETTERS, k=rng.choice((0, 1, 3, 8, 64, 65))))
    if rng.random() < 0.3:
        name = "".join(rng.choices("abcXYZ019_-", k=rng.choice((1, 8, 64, 65))))
    return rng.choice(("cameras/{}/frame",) * 6 + ("{}/frame", "cameras/{}", "cameras/{}/frame/", "{}")).format(name)


_ATOMS = (
    "null",
    "true",
    "1",
    "-0.5",
    "1e999",
    "NaN",
    "Infinity",
    '""',
    '"a"',
    '"\\ud800"',
    "9" * 400,
    '"' + "A" * 80 + '"',
)
_KEYS = ('"image"', '"b64"', '"frame_id"', '"captured_at"', '"a"', "image", "1")


def _payload(rng: random.Random) -> bytes:
    text = _value(rng, 3)
    if rng.random() < 0.3:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(("", "{", "]", ",", "\0", '"', "\ud83d")) + text[at + rng.randrange(3) :]
    return text.encode("utf-8", "surrogatepass")


def _value(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(_ATOMS)
    many = range(rng.randrange(4))
    if rng.random() < 0.3:
        return "[" + ", ".join(_value(rng, depth - 1) for _ in many) + "]"
    return "{" + ", ".join(f"{rng.choice(_KEYS)}: {_value(rng, depth - 1)}" for _ in many) + "}"


def topics_and_json_control(effort: Effort) -> str:
    """A publisher that pastes whatever the topic names."""
    rng = random.Random(1)
    outside = 0
    for _ in range(2000):
        topic = _topic(rng)
        parts = topic.split("/")
        camera = parts[1] if len(parts) > 1 else ""
        outside += re.fullmatch(r"cameras/[A-Za-z0-9_-]{1,64}/verdict", f"cameras/{camera}/verdict") is None
    if not outside:
        raise AssertionError("every pasted topic fits the template")
    return f"topics pasted unchecked: {outside} of 2000 publications outside the template"
