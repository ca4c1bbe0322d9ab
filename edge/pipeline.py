"""Batches on their way through the cascade: two where the device computes one while the other is prepared, else one.

With one batch on the device the next is begun at two moments, both with frames that are decoded already:

- when the device is done with the first, before that one's gate, species and verdicts: what waits then is the batch;
- at once, where a whole batch waits and no frame ever gives way to a newer one (``mailbox.policy: every``): the engine
  is the bottleneck then, and the copies of the next batch are done beside the computing. Under ``latest`` frames would
  grow older by a batch's time on the device while they wait there.

A smaller batch is not put behind one that computes: the frames that come meanwhile would wait for both, and two small
batches cost more than one. With no frame decoded nothing waits: the first batch is finished as soon as it can be.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.cascade import Begun, Cascade, Embedded
from edge.pool import Intake
from edge.records import Frame, Verdict
from edge.unchanged import Unchanged
from engines import DeviceLostError, EngineRunError


class Flight:
    """One batch, finished by the cascade that began it, whatever a reload puts in its place meanwhile.

    What the engine refuses is kept until ``verdicts``, so that batches fail in their turn.

    Raises:
        DeviceLostError: only a new process helps. The other methods raise it as well.
    """

    def __init__(self, frames: list[Frame], cascade: Cascade, unchanged: Unchanged | None = None) -> None:
        self.frames = frames
        self.cascade = cascade
        self.unchanged = unchanged
        self._sound = [frame for frame in frames if not frame.poison]
        self._recalled = [None if unchanged is None else unchanged.recall(frame) for frame in self._sound]
        fresh = [frame for frame, old in zip(self._sound, self._recalled, strict=True) if old is None]
        self._begun: Begun | None = None
        self._embedded: Embedded | None = None
        self._error: EngineRunError | None = None
        try:
            self._begun = cascade.begin(fresh)
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._error = error

    def collect(self) -> None:
        """Wait until the device has computed the features; does nothing the second time."""
        begun, self._begun = self._begun, None
        if begun is None:
            return
        try:
            self._embedded = self.cascade.collect(begun)
        except DeviceLostError:
            raise
        except EngineRunError as error:
            self._error = error

    def verdicts(self) -> list[tuple[Frame, Verdict]]:
        """Each frame but the poisonous ones with its verdict, in order. To be called once.

        Raises:
            EngineRunError: an engine failed on this batch; no frame of it has been judged.
        """
        self.collect()
        if self._error is not None:
            raise self._error
        assert self._embedded is not None  # noqa: S101 - collected without an error
        judged = iter(self.cascade.finish(self._embedded))
        pairs = []
        for frame, old in zip(self._sound, self._recalled, strict=True):
            verdict = next(judged) if old is None else self.cascade.reuse(frame, old)
            if old is None and self.unchanged is not None:
                self.unchanged.remember(frame, verdict)
            pairs.append((frame, verdict))
        return pairs


class Pipeline:
    """At most two flights, begun and finished in the order in which the ``intake`` gives their frames.

    Not locked: one thread calls ``turn`` and ``settle``, whatever these raise ends its work.

    Args:
        intake: where decoded frames wait.
        begin: makes a flight of a batch. finish: takes its verdicts, and does with them what is to be done.
        fill: put a whole batch behind one that computes.
    """

    def __init__(
        self, intake: Intake, begin: Callable[[list[Frame]], Flight], finish: Callable[[Flight], None], *, fill: bool
    ) -> None:
        self._intake, self._begin, self._finish = intake, begin, finish
        self._fill = fill
        self._flight: Flight | None = None

    def turn(self, most: int, wait_s: float, timeout_s: float) -> None:
        """Finish one batch of at most ``most`` frames, and begin the next where it can be; idle for ``timeout_s``.

        ``wait_s`` holds a batch open for more frames, as ``Intake.next_batch`` does, and never delays one that flies.
        """
        flight = self._flight or self._next(self._intake.next_batch(most, wait_s, timeout_s))
        self._flight = None
        if flight is None:
            return
        if flight.cascade.overlaps:
            if self._fill:
                self._flight = self._next(self._intake.take(most, least=most))
            flight.collect()
            if self._flight is None:
                self._flight = self._next(self._intake.take(most, least=most if wait_s > 0 else 1))
        self._finish(flight)

    def settle(self) -> None:
        """Finish what is on its way, and begin nothing."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self._finish(flight)

    @property
    def frames(self) -> list[Frame]:
        """Those that were begun and are not finished, between two turns."""
        return [] if self._flight is None else self._flight.frames

    def _next(self, frames: list[Frame]) -> Flight | None:
        return self._begin(frames) if frames else None
