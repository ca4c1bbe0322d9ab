"""The roster: a flood of camera names is refused at the bound, and nobody who is in is pushed out by it."""

from __future__ import annotations

from edge.roster import IDLE_S, Roster


def test_flood_of_names_is_refused_and_those_who_are_in_stay() -> None:
    roster = Roster(1000)
    assert all(roster.admit(f"camera-{n}", 0.0) for n in range(1000))
    assert not any(roster.admit(f"bomb-{n}", 1.0) for n in range(100_000))
    assert len(roster) == 1000
    assert all(roster.admit(f"camera-{n}", 2.0) for n in range(1000))


def test_camera_that_was_silent_for_an_hour_gives_its_place_to_a_new_one() -> None:
    roster = Roster(2)
    roster.admit("old", 0.0)
    roster.admit("lively", IDLE_S - 1)
    assert not roster.admit("new", IDLE_S - 0.5)
    assert roster.admit("new", IDLE_S)
    assert not roster.admit("old", IDLE_S + 1)
    assert roster.admit("lively", IDLE_S + 1)
