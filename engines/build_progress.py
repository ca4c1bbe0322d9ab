"""How far a build is: nested phases, as TensorRT tells them, become one fraction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Told how much of the work is done (0 to 1) and what is done now; answers whether to go on.
Progress = Callable[[float, str], bool]


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Phases that run now. Each step of a phase is one inner phase, or none; phases may overlap. Not thread-safe."""

    def __init__(self) -> None:
        self._running: dict[str, _Phase] = {}
        self._reached = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps has begun, as a step of ``parent`` or as the outermost one."""
        if not self._running:
            self._reached = 0.0
        self._running[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, index: int) -> None:
        """Step ``index``, counted from 0, is done."""
        if phase := self._running.get(name):
            phase.done = min(phase.steps, max(phase.done, index + 1))

    def finish(self, name: str) -> None:
        """The phase has ended, whether all its steps were told or not."""
        self._running.pop(name, None)

    @property
    def fraction(self) -> float:
        """Share of the outermost phase that is done, 0 to 1; never falls while that phase runs."""
        outermost = [name for name, phase in self._running.items() if phase.parent not in self._running]
        self._reached = max([self._reached, *(self._share(name) for name in outermost[:1])])
        return self._reached

    def _share(self, name: str) -> float:
        phase = self._running[name]
        inner = [self._share(child) for child, told in self._running.items() if told.parent == name and child != name]
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.steps)
