"""The keeper: puts verdicts into the spool while the disk takes them, and leaves them in memory while it does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock

from edge.delivery import Outgoing
from edge.errors import SpoolDamaged, SpoolError
from edge.spool import SYNC_EVERY_S, Spool

log = logging.getLogger(__name__)

MEMORY_MOST = 10_000  # publications, beyond which verdicts of QoS 0 frames are dropped: they may come without end
RETRY_S = 1.0  # how soon a disk that failed is tried again


class Keeper:
    """Joins a spool with the outbox; safe to call from any thread, and raises nothing but what ``payload`` says.

    Args:
        spool: where verdicts are kept; None keeps nothing.
        failed: told the sentence of each new failure.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        spool: Spool | None = None,
        failed: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._failed = failed
        self._clock = clock
        self._lock = Lock()
        self._retry_at = 0.0
        self._ill = self._flushing = self._doubt = False

    def recover(self) -> list[Outgoing]:
        """What an earlier process kept and nobody has confirmed, oldest first."""
        if self._spool is None:
            return []
        with self._lock:
            try:
                records = self._spool.start()
            except SpoolError as error:
                self._note(error)
                return []
            if self._spool.unread:
                self._note(SpoolError(f"cannot read in {self._spool.folder}: {'; '.join(self._spool.unread[:3])}"))
        if records:
            log.info("spool folder=%s verdicts=%d", self._spool.folder, len(records))
        return [Outgoing(r.key, "verdict", r.topic, b"", camera=r.camera, stored=True) for r in records]

    def keep(self, outgoing: Outgoing) -> list[str]:
        """Write a verdict down if the disk takes it, and out of memory; returns the keys of those dropped for it.

        A verdict whose frame waits at the broker is not written: the frame comes again, and of such there are few. None
        is while the last ``flush`` has failed.
        """
        held = outgoing.kind != "verdict" or any(ticket.qos for ticket in outgoing.tickets)
        if self._spool is None or held or self._clock() < self._retry_at:
            return []
        with self._lock:
            if self._doubt or outgoing.key in self._spool:
                return []
            dropped = self._spool.drop_old()
            try:
                dropped += self._spool.keep(outgoing.key, outgoing.topic, outgoing.payload, outgoing.camera)
            except SpoolError as error:
                self._note(error)
                return dropped + self._spool.dropped()
        if self._ill:
            self._ill = False
            log.warning("the spool in %s takes verdicts again", self._spool.folder)
        outgoing.stored, outgoing.payload = True, b""
        return dropped

    def flush(self) -> None:
        """Have the disk take what was kept; waits for it and holds nobody up meanwhile."""
        if self._spool is None:
            return
        with self._lock:
            if self._flushing:
                return
            self._flushing = True
        try:
            self._flush(self._spool)
        finally:
            self._flushing = False

    def _flush(self, spool: Spool) -> None:
        error = self._renew(spool)
        with self._lock:
            written = spool.unsynced()
        try:
            spool.flush(written)
        except SpoolError as failure:
            error = error or failure
            settle = spool.doubt
        else:
            settle = spool.synced
        with self._lock:
            settle(written)
            self._doubt = error is not None
            if error is not None:
                self._note(error)

    def _renew(self, spool: Spool) -> SpoolError | None:
        """Write what is in doubt anew where the disk works again; returns why it does not."""
        try:
            spool.probe()
            with self._lock:
                spool.renew()
        except SpoolError as error:
            return error
        return None

    def flush_until(self, over: Callable[[float], bool]) -> None:
        """Flush every second until ``over``, which waits as many seconds as it is given, says so."""
        while self._spool is not None and not over(SYNC_EVERY_S):
            self.flush()

    def close(self) -> None:
        """The last flush, unless one hangs, and the spool's folder is free for another process."""
        if self._spool is not None:
            self.flush()
            with self._lock:
                self._spool.close()

    def most(self) -> int:
        """How many publications the outbox may hold: those on disk, and a bounded number in memory."""
        return MEMORY_MOST + (0 if self._spool is None else len(self._spool))

    def payload(self, outgoing: Outgoing) -> bytes | None:
        """The bytes to publish; None where they are lost. Raises SpoolError where a later read may give them."""
        if not outgoing.stored or self._spool is None:
            return outgoing.payload
        with self._lock:
            try:
                return self._spool.payload(outgoing.key)
            except KeyError:  # dropped from a full spool after it was taken to be sent
                return None
            except SpoolDamaged as error:
                self._note(error)
                return None
            except SpoolError as error:
                self._note(error)
                raise

    def done(self, key: str) -> None:
        """The broker has answered for the verdict, or it was dropped."""
        if self._spool is None:
            return
        with self._lock:
            try:
                self._spool.remove(key)
            except SpoolError as error:  # it is told once more after a restart, under an id that is known
                self._note(error)

    def _note(self, error: Exception) -> None:
        self._retry_at = self._clock() + RETRY_S
        self._failed(str(error))
        if not self._ill:
            self._ill = True
            log.error("%s; verdicts stay in memory until the disk answers again", error)
