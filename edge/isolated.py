"""Decoding in child processes: what a picture can do to a decoder, it does to a process that holds nothing else.

Each decoder thread of the intake has a child at hand (:mod:`edge.decode_child`), reached by two pipes and a block of
shared memory that no other child sees. A child that dies, or takes longer than ``patience_s``, is killed and replaced;
the picture that did it gets one more chance in a fresh child and is then refused for good (:mod:`edge.poison`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import mmap
import os
import select
import subprocess
import sys
import time
from collections import deque
from typing import IO, Any

import numpy as np

from edge.decode_child import ANSWER, MAX_ANSWER, REQUEST
from edge.errors import DecoderError, PoisonError
from edge.picture import Picture, PictureOpener
from edge.poison import PoisonJournal
from engines import ImageError

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
START_S = 30.0
_KEPT_BYTES = 16 << 20  # shared memory that stays in use between pictures; more is given back
_FORMATS = ("jpeg", "png", "webp")
_MODULE = "edge.decode_child"


class IsolatedOpener:
    """Opens pictures as :class:`edge.picture.PictureOpener` does, in child processes; safe to call from any thread.

    Args:
        opener: what each child does.
        picture_bytes: the largest picture in bytes.
        children: how many are started at once; one more starts whenever a call finds none idle.
        journal: which pictures have killed a decoder.
        patience_s: the longest a picture may take.

    Raises:
        DecoderError: a child does not start.
    """

    def __init__(
        self,
        opener: PictureOpener,
        picture_bytes: int,
        children: int,
        journal: PoisonJournal,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._opener = opener
        self._picture_bytes = picture_bytes
        self.journal = journal
        self._patience_s = patience_s
        self._idle: deque[_Child] = deque(_Child(opener, picture_bytes) for _ in range(children))
        for child in self._idle:
            child.wait_until_ready()

    def __call__(self, image: bytes, digest: str) -> Picture:
        """Decode and prepare ``image``, whose SHA-256 is ``digest``.

        Raises:
            ImageError: no picture, damaged, too large, or too large for the shared memory.
            PoisonError: it has killed two decoders, now or before.
            DecoderError: no child starts any more.
        """
        if len(image) > self._picture_bytes:
            raise ImageError(f"the picture has {len(image)} bytes; at most {self._picture_bytes} are decoded")
        while not self.journal.is_poison(digest):
            child = self._take()
            try:
                picture = child.open(image, self._patience_s)
            except _ChildLost as lost:
                log.error("a picture has cost a decoder sha256=%s code=%s: %s", digest, child.kill(), lost)
                self.journal.crashed(digest)
                continue
            except ImageError:
                self._idle.append(child)
                raise
            except BaseException:
                child.kill()
                raise
            self._idle.append(child)
            self.journal.survived(digest)
            return picture
        raise PoisonError("the picture has killed its decoder twice; it is not tried again")

    def close(self) -> None:
        """End all children."""
        while self._idle:
            self._idle.pop().kill()

    def _take(self) -> _Child:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                child = _Child(self._opener, self._picture_bytes)
                child.wait_until_ready()
                return child
            if child.is_alive():
                return child
            log.warning("a decoder ended while it had nothing to do code=%s", child.kill())


class _ChildLost(Exception):  # noqa: N818 - never leaves this file
    """The child has died, hangs, or says what no decoder says."""


class _Child:
    """One process and its shared memory: the picture first, pixels and engine input behind it."""

    def __init__(self, opener: PictureOpener, picture_bytes: int) -> None:
        spec = opener.features
        self._shape, self._dtype = spec.shape, np.dtype(spec.numpy_dtype)
        self._prepared_bytes = math.prod(self._shape) * self._dtype.itemsize
        self._start = -(-picture_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pixel_bytes = 3 * opener.limits.max_pixels
        total = self._start + self._pixel_bytes + self._prepared_bytes
        settings = {
            "features": spec.model_dump(mode="json"),
            "minimum": opener.minimum,
            "limits": dataclasses.asdict(opener.limits),
            "picture_bytes": self._start,
            "total_bytes": total,
        }
        if not hasattr(os, "memfd_create"):
            raise DecoderError("decode.mode isolated needs Linux; write threads")
        descriptor = None
        try:
            descriptor = os.memfd_create("parrotgate-decode")
            os.ftruncate(descriptor, total)  # pages come into being as they are written
            self._memory = mmap.mmap(descriptor, total)
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(descriptor), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                start_new_session=True,  # a Ctrl-C is the worker's to handle
            )
        except OSError as error:
            raise DecoderError(f"a decoder process cannot be started: {error}") from error
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        try:
            self._read_answer(START_S)
        except _ChildLost as lost:
            self.kill()
            raise DecoderError(f"a decoder process did not start: {lost}") from lost

    def open(self, image: bytes, patience_s: float) -> Picture:
        self._memory[: len(image)] = image
        try:
            self._pipe(self._process.stdin).write(REQUEST.pack(len(image)))
            self._pipe(self._process.stdin).flush()
        except OSError as error:
            raise _ChildLost(f"it does not listen any more: {error}") from error
        answer = self._read_answer(patience_s)
        if isinstance(answer.get("error"), str):
            raise ImageError(answer["error"])
        return self._picture(answer)

    def _picture(self, answer: dict[str, Any]) -> Picture:
        """What the child says is believed only within the bounds of what it could have been asked."""
        width, height, rows, columns = (answer.get(key) for key in ("width", "height", "rows", "columns"))
        sizes = [n for n in (width, height, rows, columns) if isinstance(n, int) and 0 < n <= self._pixel_bytes]
        if len(sizes) != 4 or 3 * sizes[2] * sizes[3] > self._pixel_bytes or answer.get("format") not in _FORMATS:
            raise _ChildLost(f"its answer makes no sense: {answer}")
        nbytes = 3 * sizes[2] * sizes[3]
        end = self._start + nbytes
        pixels = np.frombuffer(self._memory, np.uint8, nbytes, self._start).reshape(sizes[2], sizes[3], 3).copy()
        count = math.prod(self._shape)
        prepared = np.frombuffer(self._memory[end : end + self._prepared_bytes], self._dtype, count)
        picture = Picture(sizes[0], sizes[1], answer["format"], pixels, prepared.reshape(self._shape))
        if nbytes > _KEPT_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE, self._start)
        return picture

    def _read_answer(self, patience_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience_s
        (length,) = ANSWER.unpack(self._read(ANSWER.size, deadline))
        if length > MAX_ANSWER:
            raise _ChildLost(f"its answer has {length} bytes")
        try:
            answer = json.loads(self._read(length, deadline))
        except (ValueError, RecursionError) as error:
            raise _ChildLost(f"its answer is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise _ChildLost("its answer is no JSON object")
        return answer

    def _read(self, count: int, deadline: float) -> bytes:
        descriptor = self._pipe(self._process.stdout).fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        data = b""
        while len(data) < count:
            if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                raise _ChildLost("it takes too long")
            part = os.read(descriptor, count - len(data))
            if not part:
                raise _ChildLost("it has ended, or closed its pipe")
            data += part
        return data

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise RuntimeError("the child was started with pipes")
        return pipe

    def kill(self) -> int:
        """End the child where it has not ended by itself; its exit code, negative for a signal."""
        self._process.kill()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what it never read is of no use to anyone
                    pipe.close()
        self._memory.close()
        return code
