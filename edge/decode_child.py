"""The decoder's child process, ``python -m edge.decode_child FD SETTINGS``: shared memory takes pictures and pixels.

A request on stdin is the picture's length (8 bytes, little-endian); its bytes lie at the start of the shared memory.
The answer on stdout is a length (4 bytes) and that much JSON: sizes of what now lies behind the picture, or an error.
The child holds no socket, no file and no secret, may not gain privileges, write files or outgrow its memory, and ends
when its stdin does. One that hangs while nobody is left to kill it ends itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import mmap
import os
import resource
import struct
import sys
from typing import Any, BinaryIO

import numpy as np

from edge.picture import PictureOpener
from engines import ImageError, ImageLimits, InputSpec

REQUEST = struct.Struct("<Q")
ANSWER = struct.Struct("<I")
MAX_ANSWER = 4096
MEMORY_HEADROOM = 1 << 30  # bytes over what the started child maps: ImageLimits' worst picture fits
LONGEST_S = 60.0  # of one picture; the parent loses its patience long before
_PR_SET_NO_NEW_PRIVS = 38
_MAX_SENTENCE = 500


def main(descriptor: str, settings: str) -> None:
    """Serve until stdin ends."""
    given: dict[str, Any] = json.loads(settings)
    opener = PictureOpener(
        InputSpec.model_validate(given["features"]),
        tuple(given["minimum"]),
        ImageLimits(**{**given["limits"], "formats": tuple(given["limits"]["formats"])}),
    )
    with mmap.mmap(int(descriptor), given["total_bytes"]) as memory:
        os.close(int(descriptor))
        _confine()
        requests, answers = sys.stdin.buffer, sys.stdout.buffer
        _answer(answers, {"ready": True})
        while len(request := requests.read(REQUEST.size)) == REQUEST.size:
            (length,) = REQUEST.unpack(request)
            faulthandler.dump_traceback_later(LONGEST_S, exit=True)
            answer = _open(opener, memory, length, given["picture_bytes"])
            faulthandler.cancel_dump_traceback_later()
            _answer(answers, answer)


def _open(opener: PictureOpener, memory: mmap.mmap, length: int, at: int) -> dict[str, Any]:
    try:
        picture = opener(memory[:length], "")
        pixels, prepared = picture.pixels, picture.features_input
        np.frombuffer(memory, np.uint8, pixels.nbytes, at)[:] = pixels.reshape(-1)
        end = at + pixels.nbytes
        memory[end : end + prepared.nbytes] = prepared.tobytes()
    except ImageError as error:
        return {"error": str(error)[:_MAX_SENTENCE]}
    except MemoryError:
        return {"error": "decoding the picture takes more memory than a decoder is allowed; send it smaller"}
    except Exception as error:  # noqa: BLE001 - a fault of ours is no crime of the picture's
        return {"error": f"decoding failed inside the decoder: {type(error).__name__}"}
    return {
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "rows": pixels.shape[0],
        "columns": pixels.shape[1],
    }


def _answer(answers: BinaryIO, content: dict[str, Any]) -> None:
    data = json.dumps(content).encode()
    answers.write(ANSWER.pack(len(data)) + data)
    answers.flush()


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
