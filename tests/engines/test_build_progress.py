"""Nested phases as one fraction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.build_progress import Phases


def test_inner_phase_is_a_share_of_its_parents_step() -> None:
    phases = Phases()
    phases.start("build", None, 2)
    phases.start("time", "build", 4)
    phases.step("time", 0)
    assert phases.fraction == 1 / 8
    phases.finish("time")
    phases.step("build", 0)
    assert phases.fraction == 1 / 2


def test_a_new_outermost_phase_begins_at_nothing() -> None:
    phases = Phases()
    phases.start("first", None, 1)
    phases.step("first", 0)
    assert phases.fraction == 1
    phases.finish("first")
    phases.start("second", None, 4)
    assert phases.fraction == 0


NAMES = st.sampled_from(["a", "b", "c"])
EVENTS = st.one_of(
    st.tuples(st.just("start"), NAMES, st.none() | NAMES, st.integers(-1, 5)),
    st.tuples(st.just("step"), NAMES, st.integers(0, 9)),
    st.tuples(st.just("finish"), NAMES),
)


@given(st.lists(EVENTS, max_size=30))
def test_any_order_of_events_gives_a_fraction(events: list[tuple[object, ...]]) -> None:
    phases = Phases()
    for name, *arguments in events:
        getattr(phases, str(name))(*arguments)
        assert 0 <= phases.fraction <= 1
