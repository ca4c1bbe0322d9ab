"""Rows 20 to 23: pictures made to hurt the decoder, against decoder processes as a worker uses them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from edge import isolated
from edge.errors import PoisonError
from edge.isolated import IsolatedOpener
from edge.picture import PictureOpener
from edge.poison import PoisonJournal
from engines import ImageError, ImageLimits, InputSpec
from tests.edge.decode_child_fault import ABORT, DEAF, HANG, LYING
from tests.engines import pictures
from tests.soak.ledger import Effort, Outcome

import cv2  # isort: skip - engines comes first: it sets OpenCV's limits

OPENER = PictureOpener(InputSpec(layout="NCHW", height=112, width=112), (112, 112), ImageLimits(max_pixels=4_000_000))
PICTURE_BYTES = 1 << 21
SLOWEST_MS, GROWN_MIB = 250.0, 20.0
REFUSED_MS, BOMB_MIB = 5.0, 8.0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def decoders(module: str = "edge.decode_child", journal: Path | None = None) -> Iterator[IsolatedOpener]:
    """Decoder processes of ``module``, one at a time, on a journal of crashes."""
    before, isolated._MODULE = isolated._MODULE, module
    opener = IsolatedOpener(OPENER, PICTURE_BYTES, 1, PoisonJournal(journal), patience_s=1.0)
    try:
        yield opener
    finally:
        opener.close()
        isolated._MODULE = before


# -- row 20: poison --------------------------------------------------------------------------------------------


def poison(effort: Effort) -> Outcome:
    """Each kind of poison between good pictures, a restart of the decoders in the middle, then once more."""
    outcome = Outcome()
    good = pictures.save(pictures.scene(), "JPEG")
    while effort.goes_on(outcome.done):
        for kind in (ABORT, HANG, LYING, DEAF):
            bad = pictures.save(pictures.scene(), "JPEG", quality=40) + kind + b"%d" % outcome.done + kind
            journal = effort.folder / f"{outcome.done}-{kind[1:].decode()}.json"
            journal.parent.mkdir(parents=True, exist_ok=True)
            spent, disturbed = _spend(bad, good, journal, outcome)
            outcome.demand(spent == 2, f"{kind!r} cost {spent} decoders")
            outcome.see("seconds between two good pictures", disturbed)
        outcome.done += 1
    outcome.demand(outcome.worst.get("seconds between two good pictures", 0.0) <= 10.0, "neighbours waited over 10 s")
    return outcome


def _spend(bad: bytes, good: bytes, journal: Path, outcome: Outcome) -> tuple[int, float]:
    """Decoders that ``bad`` costs over two lives of the worker, and the longest wait of a good picture, seconds."""
    spent, longest = 0, 0.0
    for _ in range(2):
        with decoders("tests.edge.decode_child_fault", journal) as opener:
            served = time.monotonic()
            for picture in (good, bad, good, bad, good):
                if not _served(opener, picture):
                    outcome.add("refused as poison")
                    continue
                longest = max(longest, time.monotonic() - served)
                served = time.monotonic()
                outcome.add("good pictures served")
            alive = [child.pid for child in opener._children]
            outcome.demand(len(alive) == 1, "not exactly one decoder is left")
        spent = max(spent, sum(json.loads(journal.read_text()).values()))
    return spent, longest


def _served(opener: IsolatedOpener, picture: bytes) -> bool:
    try:
        opener(picture, digest(picture))
    except PoisonError:
        return False
    return True


def poison_control(effort: Effort) -> str:
    """Without a journal a restarted worker tries the poison again."""
    good = pictures.save(pictures.scene(), "JPEG")
    crashes = 0
    for _ in range(2):
        with decoders("tests.edge.decode_child_fault") as opener:
            with suppress(PoisonError):
                opener(good + ABORT, digest(good + ABORT))
            crashes += sum(opener.journal._crashes.values())
    if crashes <= 2:
        raise AssertionError("without a journal the poison was not tried again")
    return f"without a journal the same picture costs {crashes} decoders over one restart"


# -- row 21: mutants -------------------------------------------------------------------------------------------


def mutants(effort: Effort) -> Outcome:
    """Mutated pictures through a decoder process: it may refuse each or not, but never take the worker along.

    An answer's time is the clock's without what the longer waiting of the two processes had to wait for a processor,
    which the kernel counts; the clock's own is told beside it. One that hangs is killed after its patience, and
    counted.
    """
    outcome, rng = Outcome(), random.Random(effort.seed)
    corpus = _corpus()
    with decoders() as opener:
        for data in corpus:
            opener(data, digest(data))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while effort.goes_on(outcome.done):
            data = mutate(rng, rng.choice(corpus))
            child = opener._children[0].pid if opener._children else os.getpid()
            before_ms, began = _waited_ms(child), time.monotonic()
            try:
                picture = opener(data, "mutant")
                outcome.add("decoded")
                outcome.demand(picture.features_input.shape == (3, 112, 112), "another shape than the engine's")
            except PoisonError:
                outcome.add("decoder lost")
                opener.journal = PoisonJournal()
            except ImageError:
                outcome.add("refused")
            _time_answer(outcome, 1000 * (time.monotonic() - began), before_ms, _waited_ms(child))
            outcome.done += 1
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    outcome.see("grown, MiB", grown)
    outcome.demand(grown <= GROWN_MIB, f"the parent grew by {grown:.1f} MiB")
    most = outcome.worst.get("slowest answer, ms", 0.0)
    outcome.demand(most <= SLOWEST_MS, f"an answer took {most:.0f} ms")
    return outcome


def _time_answer(outcome: Outcome, took_ms: float, before_ms: tuple[float, ...], after_ms: tuple[float, ...]) -> None:
    waited_ms = max(after - before for before, after in zip(before_ms, after_ms, strict=True))
    outcome.see("slowest answer, ms", round(took_ms - max(0.0, waited_ms), 1))
    outcome.see("slowest by the clock, ms", round(took_ms, 1))
    outcome.add("answers over 250 ms by the clock", took_ms > SLOWEST_MS)


def _waited_ms(child: int) -> tuple[float, float]:
    """How long this thread and its decoder have waited for a processor so far; 0 for a decoder that was killed."""
    own = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e6
    with suppress(FileNotFoundError, ProcessLookupError):
        return own, int(Path(f"/proc/{child}/schedstat").read_text().split()[1]) / 1e6
    return own, 0.0


def _corpus() -> list[bytes]:
    scene = pictures.scene(320, 240)
    return [
        *(pictures.save(scene, "JPEG", quality=q, subsampling=s) for q in (40, 80) for s in (0, 2)),
        pictures.save(scene, "JPEG", progressive=True),
        pictures.save(scene, "JPEG", restart_marker_blocks=16),
        pictures.save(scene[..., 0], "JPEG"),
        pictures.save(scene, "PNG"),
        pictures.save(scene, "WEBP"),
    ]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, removed, repeated or taken from elsewhere; headers are hit more often."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(changed), 700) if rng.random() < 0.4 else len(changed))
        end = min(len(changed), at + rng.choice((1, 1, 2, 8, 64)))
        action = rng.randrange(5)
        if action == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            changed[at:end] = rng.randbytes(end - at)
        elif action == 2:
            del changed[at:end]
        elif action == 3:
            changed[at:at] = changed[at:end]
        else:
            other = rng.randrange(len(changed))
            changed[at:end] = changed[other : other + end - at]
        if len(changed) < 4:
            return bytes(changed)
    return bytes(changed)


def mutants_control(effort: Effort) -> str:
    """The same fault in the worker's own process ends the worker."""
    code = "from tests.edge.decode_child_fault import *; import sys; ABORT_ = ABORT\n"
    code += "from tests.soak.bad_pictures import OPENER; FaultyOpener(OPENER.features, OPENER.minimum, OPENER.limits)"
    code += "(b'x' + ABORT_, '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    if done.returncode >= 0:
        raise AssertionError("the process survived")
    return f"decoded in the worker's own process, a picture that aborts the decoder ends it (signal {-done.returncode})"


# -- row 22: truncation ----------------------------------------------------------------------------------------


def truncation(effort: Effort) -> Outcome:
    """Every cut of five JPEGs, each after a red frame: refused, or the whole picture's own pixels."""
    outcome = Outcome()
    red = pictures.save(np.full((240, 320, 3), (255, 0, 0), np.uint8), "JPEG")
    for data in _references()[: effort.count]:
        whole = OPENER(data, "").pixels
        with decoders() as opener:
            for length in range(len(data)):
                opener(red, digest(red))
                try:
                    pixels = opener(data[:length], "cut").pixels
                except ImageError:
                    outcome.add("refused")
                    continue
                outcome.add("taken, whole but for its end marker")
                outcome.demand(np.array_equal(pixels, whole), f"cut at {length}: other pixels than the whole picture's")
        outcome.done += 1
        if time.monotonic() > effort.deadline:
            break
    return outcome


def _references() -> list[bytes]:
    scene = pictures.scene(160, 120)
    return [
        pictures.save(scene, "JPEG", quality=60),
        pictures.save(scene, "JPEG", quality=60, subsampling=0),
        pictures.save(scene[..., 0], "JPEG"),
        pictures.save(scene, "JPEG", quality=60, progressive=True),
        pictures.save(scene, "JPEG", quality=60, restart_marker_blocks=4),
    ]


def truncation_control(effort: Effort) -> str:
    """OpenCV alone takes what was cut."""
    data = _references()[0]
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    wrong = 0
    for length in range(1, len(data), 7):
        end = data[:length] + b"\xff\xd9"  # what a camera that lost its data in the middle sends
        pixels = cv2.imdecode(np.frombuffer(end, np.uint8), cv2.IMREAD_COLOR)
        wrong += pixels is not None and not np.array_equal(pixels, whole)
    if not wrong:
        raise AssertionError("OpenCV refused every cut picture")
    return f"OpenCV alone shows {wrong} of {len(range(1, len(data), 7))} cut pictures, with pixels that never were"


# -- row 23: bombs ---------------------------------------------------------------------------------------------


def bombs(effort: Effort) -> Outcome:
    """Every bomb in a process of its own, which tells the time of its refusal and how much it grew."""
    outcome = Outcome()
    effort.folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, data) in list(_bombs().items())[: effort.count]:
        path = effort.folder / "bomb"
        path.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.bomb", kind, str(path)], capture_output=True, check=False, timeout=120
        )
        told = json.loads(done.stdout) if done.returncode == 0 else {"refused": False, "ms": 1e9, "mib": 1e9}
        outcome.demand(told["refused"], f"{name} was not refused: {done.stderr[-200:]!r}")
        outcome.demand(told["ms"] <= REFUSED_MS, f"{name} took {told['ms']:.1f} ms")
        outcome.demand(told["mib"] <= BOMB_MIB, f"{name} took {told['mib']:.1f} MiB")
        outcome.see("slowest refusal, ms", told["ms"])
        outcome.see("most memory, MiB", told["mib"])
        outcome.done += 1
    return outcome


def _bombs() -> dict[str, tuple[str, bytes]]:
    jpeg = pictures.save(pictures.scene(), "JPEG")
    progressive = pictures.save(pictures.scene(640, 480), "JPEG", progressive=True)
    second = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
    third = progressive.index(b"\xff\xda", second + 2)
    found: dict[str, tuple[str, bytes]] = {
        f"JPEG of {w}x{h}": ("picture", pictures.claim_size(jpeg, w, h))
        for w, h in [(65500, 65500), (65535, 65535), (30000, 30000), (16000, 16000), (9000, 9000), (65500, 800)]
    }
    sides = [(2**31 - 1, 2**31 - 1), (30000, 30000), (65535, 65535), (8000, 8000), (1, 2**30)]
    found |= {f"PNG of {w}x{h}": ("picture", pictures.png(w, h, b"x" * 999)) for w, h in sides}
    found["flat PNG of 7100x7100"] = ("picture", pictures.flat_png(7100, 7100))
    found["16-bit PNG of 6000x6000"] = ("picture", pictures.png(6000, 6000, b"x" * 999, bits=16))
    found["progressive JPEG of 4000 scans"] = (
        "picture", progressive[:second] + progressive[second:third] * 4000 + progressive[third:]
    )  # fmt: skip
    found["JPEG of 60 000 segments"] = ("picture", b"\xff\xd8" + b"\xff\xfe\x00\x02" * 60_000)
    webp = pictures.save(pictures.scene(), "WEBP", lossless=True)
    found["WebP of 16383x16383"] = ("picture", webp[:21] + b"\xff\xff\xff\x0f" + webp[25:])
    for other in ("GIF", "TIFF", "BMP", "PPM", "ICO"):
        found[f"{other} file"] = ("picture", pictures.save(pictures.scene(64, 64), other))
    found |= {
        "JSON nested 100 000 deep": ("payload", b"[" * 100_000),
        "JSON objects nested 50 000 deep": ("payload", b'{"a":' * 50_000),
        "JSON of a million keys": ("payload", b"{" + b",".join(b'"%d":0' % n for n in range(400_000)) + b"}"),
        "JSON of a million numbers": ("payload", b"[" + b"0," * 999_999 + b"0]"),
        "JSON with a number of 5000 digits": ("payload", b'{"image": ' + b"9" * 5000 + b"}"),
        "payload of 64 MiB": ("payload", bytes(64 << 20)),
        "gate of one huge array": ("gate", _npz({"a": (10**9,)})),
        "gate whose header claims 10^13 numbers": ("gate", _npz({"a": (10**13,)})),
        "gate of 5000 members": ("gate", _npz({f"a{n}": (0,) for n in range(5000)})),
        "compressed gate": ("gate", _npz({"a": (1000,)}, zipfile.ZIP_DEFLATED, zeros=1 << 24)),
    }
    return found


def _npz(shapes: dict[str, tuple[int, ...]], method: int = zipfile.ZIP_STORED, zeros: int = 64) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, shape in shapes.items():
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", head.getvalue() + bytes(zeros))
    return file.getvalue()


def bombs_control(effort: Effort) -> str:
    """OpenCV alone, without our look at the header."""
    code = (
        "import os, sys, resource; os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'] = str(1 << 30)\n"
        "import cv2, numpy as np\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "cv2.imdecode(np.fromfile(sys.argv[1], np.uint8), 1)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    effort.folder.mkdir(parents=True, exist_ok=True)
    path = effort.folder / "bomb.jpg"
    path.write_bytes(_bombs()["JPEG of 9000x9000"][1])
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True, timeout=120)
    grown = float(done.stdout)
    if grown <= BOMB_MIB:
        raise AssertionError("OpenCV refused the bomb by itself")
    return f"OpenCV alone grows by {grown:.0f} MiB over a JPEG of {os.path.getsize(path)} bytes that claims 9000x9000"
