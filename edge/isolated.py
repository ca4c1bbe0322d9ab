"""Decoding in child processes: what a picture can do to a decoder, it does to a process that holds nothing else.

The decoder threads of the intake have a few children at hand (:mod:`edge.decode_child`), each reached by pipes and a
block of shared memory that no other child sees. Two pictures may be at a child, so that it decodes one while the
other is handed over. A child that dies, or takes longer than ``patience_s``, is killed and replaced; the picture that
did it gets one more chance in a fresh child and is then refused for good (:mod:`edge.poison`), its neighbour is tried
again and blamed for nothing.
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
from threading import Lock

import numpy as np

from edge.decode_child import ANSWER, ERROR, FORMATS, MAX_ANSWER, PICTURE, READY, REQUEST, Layout
from edge.errors import DecoderError, PoisonError
from edge.picture import Picture, PictureOpener
from edge.poison import PoisonJournal
from engines import ImageError

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # pictures at a child
PATIENCE_S = 5.0
START_S = 30.0
_KEPT_BYTES = 16 << 20  # shared memory that stays in use between pictures; more is given back
_MODULE = "edge.decode_child"


class IsolatedOpener:
    """Opens pictures as :class:`edge.picture.PictureOpener` does, in child processes; safe to call from any thread.

    Args:
        opener: what each child does.
        picture_bytes: the largest picture in bytes.
        children: how many are started at once, each for two threads; one more starts where a call finds no room.
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
        self._lock, self._starting = Lock(), Lock()
        self._closed = False
        self._children: list[_Child] = []
        try:
            for _ in range(children):
                self._children.append(_Child(opener, picture_bytes))
            for child in self._children:
                child.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __call__(self, image: bytes, digest: str) -> Picture:
        """Decode and prepare ``image``, whose SHA-256 is ``digest``.

        Raises:
            ImageError: no picture, damaged, too large, or too large for the shared memory.
            PoisonError: it has killed two decoders, now or before.
            DecoderError: no child starts any more, or the decoders were closed.
        """
        if len(image) > self._picture_bytes:
            raise ImageError(f"the picture has {len(image)} bytes; at most {self._picture_bytes} are decoded")
        while not self.journal.is_poison(digest):
            child, slot = self._take()
            try:
                picture = child.open(slot, image, self._patience_s)
            except _ChildLost as lost:
                self._forget(child)
                code = child.kill()
                if lost.guilty and not self._closed:
                    log.error("a picture has cost a decoder sha256=%s code=%s: %s", digest, code, lost)
                    self.journal.crashed(digest)
            except ImageError:
                raise
            except BaseException:
                self._forget(child)
                child.kill()
                raise
            else:
                self.journal.survived(digest)
                return picture
            finally:
                child.release(slot)
        raise PoisonError("the picture has killed its decoder twice; it is not tried again")

    def close(self) -> None:
        """End all children."""
        with self._lock:
            self._closed = True
            children, self._children = self._children, []
        for child in children:
            child.kill()

    def _take(self) -> tuple[_Child, _Slot]:
        """A place at the child with the fewest pictures, a fresh child where there is none."""
        while (place := self._find() or self._begin()) is None:
            pass
        return place

    def _find(self) -> tuple[_Child, _Slot] | None:
        """A place at a child that lives; None where no child has room."""
        while True:
            with self._lock:
                if self._closed:
                    raise DecoderError("the decoders were closed")
                places = ((child, child.reserve()) for child in sorted(self._children, key=_Child.load))
                child, slot = next((place for place in places if place[1] is not None), (None, None))
            if child is None or slot is None:
                return None
            if child.is_alive():
                return child, slot
            log.warning("a decoder ended while it had nothing to do code=%s", child.kill())
            self._forget(child)
            child.release(slot)

    def _begin(self) -> tuple[_Child, _Slot] | None:
        """A place at a fresh child, or at one that another thread has started meanwhile; None where that is full.

        One start at a time: threads that lose a child together need one successor, not one each, which would stay.
        """
        with self._starting:
            if (place := self._find()) is not None:
                return place
            child = _Child(self._opener, self._picture_bytes)
            child.wait_until_ready()
            with self._lock:
                if not self._closed:
                    self._children.append(child)
            if self._closed:
                child.kill()
            return self._find()

    def _forget(self, child: _Child) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._children.remove(child)


class _ChildLost(Exception):  # noqa: N818 - never leaves this file
    """The child has died, hangs, or says what no decoder says; ``guilty``: because of the picture asked for."""

    def __init__(self, sentence: str, guilty: bool) -> None:
        super().__init__(sentence)
        self.guilty = guilty


class _Slot:
    """A place for one picture in a child's shared memory, and the pipe on which its answer comes."""

    def __init__(self, number: int, at: int) -> None:
        self.number, self.at = number, at
        self.answers, self.childs_end = os.pipe()
        self._poll = select.poll()
        self._poll.register(self.answers, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Whether an answer, or the pipe's end, came in time."""
        return bool(self._poll.poll(max(0.0, 1000 * seconds)))

    def has_answer(self) -> bool:
        """For any thread: one poll object is not, while another waits."""
        look = select.poll()
        look.register(self.answers, select.POLLIN)
        return any(event & select.POLLIN for _, event in look.poll(0))


class _Child:
    """One process, its shared memory and the pictures that are at it."""

    def __init__(self, opener: PictureOpener, picture_bytes: int) -> None:
        spec = opener.features
        self._shape, self._dtype = spec.shape, np.dtype(spec.numpy_dtype)
        prepared = math.prod(self._shape) * self._dtype.itemsize
        self._layout = Layout(picture_bytes, prepared, 3 * opener.limits.max_pixels)
        self._lock = Lock()
        self._sent: deque[_Slot] = deque()  # not answered yet, in the order in which the child takes them
        self._head_s = 0.0  # since when the first of them has been the first
        self._ended = False
        self._guilty: _Slot | None = None
        if not hasattr(os, "memfd_create"):
            raise DecoderError("decode.mode isolated needs Linux; write threads")
        self._slots = [_Slot(number, number * self._layout.size) for number in range(IN_FLIGHT)]
        self._free = list(self._slots)
        try:
            self._memory, self._process = self._start(opener)
        except OSError as error:
            for slot in self._slots:
                os.close(slot.answers)
            raise DecoderError(f"a decoder process cannot be started: {error}") from error
        finally:
            for slot in self._slots:
                os.close(slot.childs_end)

    def _start(self, opener: PictureOpener) -> tuple[mmap.mmap, subprocess.Popen[bytes]]:
        ends = [slot.childs_end for slot in self._slots]
        settings = {
            "features": opener.features.model_dump(mode="json"),
            "minimum": opener.minimum,
            "limits": dataclasses.asdict(opener.limits),
            "layout": dataclasses.asdict(self._layout),
            "answers": ends,
        }
        descriptor = os.memfd_create("parrotgate-decode")
        try:
            os.ftruncate(descriptor, IN_FLIGHT * self._layout.size)  # pages come into being as they are written
            memory = mmap.mmap(descriptor, IN_FLIGHT * self._layout.size)
            process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(descriptor), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor, *ends),
                bufsize=0,
                start_new_session=True,  # a Ctrl-C is the worker's to handle
            )
        finally:
            os.close(descriptor)
        return memory, process

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self) -> int:
        return len(self._slots) - len(self._free)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def reserve(self) -> _Slot | None:
        """A place for one picture until ``release``; None where there is none."""
        with self._lock:
            return self._free.pop() if self._free and not self._ended else None

    def release(self, slot: _Slot) -> None:
        with self._lock:
            self._free.append(slot)
            self._close_if_over()

    def wait_until_ready(self) -> None:
        ready = self._slots[0]
        if ready.wait(START_S) and os.read(ready.answers, MAX_ANSWER)[:1] == bytes([READY]):
            return
        raise DecoderError(f"a decoder process did not start: it ended with {self.kill()}")

    def open(self, slot: _Slot, image: bytes, patience_s: float) -> Picture:
        """What the child makes of ``image``; raises ImageError as a decoder does, or _ChildLost."""
        self._memory[slot.at : slot.at + len(image)] = image
        self._send(slot, len(image))
        answer = self._receive(slot, patience_s)
        try:
            kind, kept_as, width, height, rows, columns = ANSWER.unpack(answer[: ANSWER.size])
            if kind == ERROR:
                raise ImageError(answer[ANSWER.size :].decode())
        except (ValueError, ArithmeticError) as error:
            raise self._lost(slot, f"its answer makes no sense: {answer[:40]!r}", guilty=True) from error
        sizes = (width, height, rows, columns)
        if kind != PICTURE or kept_as >= len(FORMATS) or not min(sizes) or 3 * rows * columns > self._layout.pixels:
            raise self._lost(slot, f"its answer makes no sense: {(kind, kept_as, *sizes)}", guilty=True)
        prepared = self._copy(slot.at + self._layout.prepared_at, self._shape, self._dtype)
        pixels = self._copy(slot.at + self._layout.pixels_at, (rows, columns, 3), np.dtype(np.uint8))
        if pixels.nbytes > _KEPT_BYTES:
            self._memory.madvise(
                mmap.MADV_REMOVE, slot.at + self._layout.pixels_at, self._layout.size - self._layout.pixels_at
            )
        return Picture(width, height, FORMATS[kept_as], pixels, prepared)

    def _copy(self, at: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.frombuffer(self._memory, dtype, math.prod(shape), at).reshape(shape).copy()

    def _send(self, slot: _Slot, length: int) -> None:
        with self._lock:
            try:
                os.write(self._stdin(), REQUEST.pack(slot.number, length))
            except OSError as error:  # it ended before it saw the picture
                raise _ChildLost(f"it does not listen any more: {error}", guilty=False) from error
            if not self._sent:
                self._head_s = time.monotonic()
            self._sent.append(slot)

    def _receive(self, slot: _Slot, patience_s: float) -> bytes:
        deadline = time.monotonic() + patience_s
        while not slot.wait(deadline - time.monotonic()):
            with self._lock:
                is_head, now = self._sent[0] is slot, time.monotonic()
                deadline = (self._head_s if is_head else now) + patience_s
            if is_head and now >= deadline:
                raise self._lost(slot, "it takes too long")
        with self._lock:  # so that nobody sees the answer gone and the picture still unanswered
            answer = os.read(slot.answers, MAX_ANSWER)
            if answer:
                self._sent.remove(slot)
                self._head_s = time.monotonic()
                return answer
        raise self._lost(slot, "it has ended, or closed its pipe")

    def _lost(self, slot: _Slot, sentence: str, *, guilty: bool = False) -> _ChildLost:
        """End the child; at fault is the picture that says so, else the first that it has not answered."""
        self.kill(slot if guilty else None)
        return _ChildLost(sentence, slot is self._guilty)

    def _stdin(self) -> int:
        if self._process.stdin is None:
            raise RuntimeError("the child was started with pipes")
        return self._process.stdin.fileno()

    def kill(self, guilty: _Slot | None = None) -> int:
        """End the child where it has not ended by itself; its exit code, negative for a signal."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._process.kill()
                self._process.wait()
                self._guilty = guilty or next((slot for slot in self._sent if not slot.has_answer()), None)
                self._close_if_over()
            return self._process.wait()

    def _close_if_over(self) -> None:
        if not self._ended or len(self._free) < len(self._slots):
            return
        for slot in self._slots:
            os.close(slot.answers)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._memory.close()
