"""The decoder's child process, ``python -m edge.decode_child FD SETTINGS``: shared memory takes pictures and pixels.

The shared memory has one slot for each picture that may be on its way, and each slot a pipe for its answer. A request
on stdin names a slot and the length of the picture that lies there; several may wait, they are served in their order.
The answer is one write: sizes of what now lies in the slot, or an error's sentence. The child holds no socket, no file
and no secret, may not gain privileges, write files or outgrow its memory, and ends when its stdin does. One that hangs
while nobody is left to kill it ends itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from edge.picture import PictureOpener
from engines import ImageError, ImageLimits, InputSpec
from engines.image_header import ImageFormat

REQUEST = struct.Struct("<IQ")  # slot, bytes of the picture
ANSWER = struct.Struct("<BB4I")  # kind, format, width, height, rows, columns; behind an ERROR its sentence in UTF-8
READY, PICTURE, ERROR = range(3)
FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
MAX_ANSWER = 4096  # what a pipe takes in one piece
MEMORY_HEADROOM = 1 << 30  # bytes over what the started child maps: ImageLimits' worst picture fits
LONGEST_S = 60  # of one picture; the parent loses its patience long before
_PR_SET_NO_NEW_PRIVS = 38
_MAX_SENTENCE = 500


@dataclass(frozen=True, slots=True)
class Layout:
    """Bytes that a slot has for a picture, the engine's input and the pixels, one behind the other on whole pages."""

    picture: int
    prepared: int
    pixels: int

    @property
    def prepared_at(self) -> int:
        return _pages(self.picture)

    @property
    def pixels_at(self) -> int:
        return self.prepared_at + _pages(self.prepared)

    @property
    def size(self) -> int:
        return self.pixels_at + _pages(self.pixels)


def _pages(count: int) -> int:
    return -(-count // mmap.PAGESIZE) * mmap.PAGESIZE


def main(descriptor: str, settings: str) -> None:
    """Serve until stdin ends."""
    given: dict[str, Any] = json.loads(settings)
    opener = PictureOpener(
        InputSpec.model_validate(given["features"]),
        tuple(given["minimum"]),
        ImageLimits(**{**given["limits"], "formats": tuple(given["limits"]["formats"])}),
    )
    layout, answers = Layout(**given["layout"]), given["answers"]
    memory = memoryview(mmap.mmap(int(descriptor), len(answers) * layout.size))
    slots = [memory[n * layout.size : (n + 1) * layout.size] for n in range(len(answers))]
    os.close(int(descriptor))
    _confine()
    os.write(answers[0], ANSWER.pack(READY, 0, 0, 0, 0, 0))
    while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        slot, length = REQUEST.unpack(request)
        signal.alarm(LONGEST_S)
        answer = _open(opener, slots[slot], length, layout)
        signal.alarm(0)
        os.write(answers[slot], answer)


def _open(opener: PictureOpener, slot: memoryview, length: int, layout: Layout) -> bytes:
    try:
        picture = opener(bytes(slot[:length]), "")
        for array, at in ((picture.features_input, layout.prepared_at), (picture.pixels, layout.pixels_at)):
            np.frombuffer(slot, array.dtype, array.size, at).reshape(array.shape)[...] = array
    except ImageError as error:
        return _refusal(str(error))
    except MemoryError:
        return _refusal("decoding the picture takes more memory than a decoder is allowed; send it smaller")
    except Exception as error:  # noqa: BLE001 - a fault of ours is no crime of the picture's
        return _refusal(f"decoding failed inside the decoder: {type(error).__name__}")
    rows, columns = picture.pixels.shape[:2]
    return ANSWER.pack(PICTURE, FORMATS.index(picture.format), picture.width, picture.height, rows, columns)


def _refusal(sentence: str) -> bytes:
    return ANSWER.pack(ERROR, 0, 0, 0, 0, 0) + sentence[:_MAX_SENTENCE].encode()


def _confine() -> None:
    """Leave a picture that takes this process over little to do; where the system lacks a limit, the rest holds."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 16)
    mapped = _mapped_bytes()
    if mapped is not None:
        _limit(resource.RLIMIT_AS, mapped + MEMORY_HEADROOM)


def _limit(kind: int, most: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (most, most))


def _mapped_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None


if __name__ == "__main__":
    main(*sys.argv[1:3])
