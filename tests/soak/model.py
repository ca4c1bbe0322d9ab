"""Row 4: the delivery path against the broker of the specification."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.edge.delivery_model import DeliveryModel
from tests.edge.delivery_mutants import MUTANTS
from tests.soak.ledger import Effort, Outcome

STEPS = 50
SLICE = 200  # runs between two looks at the clock


def explore(number: int, runs: int, parts: dict[str, Any] | None = None, *, shrink: bool = False) -> None:
    """``runs`` runs of at most 50 steps from seed ``number``, the worker's ``parts`` replaced; raises what is found."""
    machine = seed(number)(type("Machine", (DeliveryModel,), {"parts": parts or {}}))
    limits = settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def find(fault: str, number: int, runs: int) -> str | None:
    """What the model says to a planted fault; None when it finds nothing."""
    try:
        explore(number, runs, MUTANTS[fault])
    except AssertionError as error:
        return str(error).partition("\n")[0]
    return None


def run(effort: Effort) -> Outcome:
    outcome = Outcome()
    while effort.goes_on(outcome.done):
        size = min(SLICE, effort.count - outcome.done)
        try:
            explore(effort.seed + outcome.done, size, shrink=True)
        except AssertionError as error:
            outcome.failures.append(f"seed {effort.seed + outcome.done}: {str(error)[:300]}")
            break
        outcome.done += size
    return outcome


def control(effort: Effort) -> str:
    missed = [fault for fault in MUTANTS if find(fault, effort.seed, 2000) is None]
    assert not missed, f"planted faults that the model does not find: {missed}"
    return f"{len(MUTANTS)} of {len(MUTANTS)} planted faults found: {', '.join(MUTANTS)}"


def lose_sessions(effort: Effort, parts: dict[str, Any] | None = None) -> Outcome:
    """Row 6: the broker forgets us while frames are being judged, and counts its packet identifiers from 1 again.

    Verdicts of the old session come late, between the frames of the new one; any acknowledgement of a frame that is not
    safe, any second one and any before CONNECT raises inside the broker.
    """
    outcome, rng = Outcome(), random.Random(effort.seed)
    machine: Any = type("Machine", (DeliveryModel,), {"parts": parts or {}})
    while effort.goes_on(outcome.done) and not outcome.failures:
        model = machine()
        model.begin(rng.randint(1, 4), rng.choice(["latest", "every"]))
        try:
            for _ in range(100):
                _lose_one(model, rng)
                outcome.done += 1
            model.teardown()
        except AssertionError as error:
            outcome.failures.append(f"after {outcome.done} session losses: {error}")
        outcome.add("frames", model.frames)
    return outcome


def _lose_one(model: DeliveryModel, rng: random.Random) -> None:
    worker = model.worker
    assert worker is not None
    late = list(worker.taken)
    worker.taken.clear()
    model.cameras_publish(rng.choice("abc"), rng.randint(1, 3), 6, 2)
    for _ in range(rng.randint(1, 4)):
        worker.take()
    for frame in [*late, *rng.sample(worker.taken, rng.randint(0, len(worker.taken)))]:
        worker.judge(frame)
        worker.taken[:] = [taken for taken in worker.taken if taken is not frame]
    for _ in range(3):
        model.turn(1)
        for mid in list(model.broker.publications):
            model._confirm(mid, 0)
    model.disrupt(rng.choice(["broker forgets", "broker forgets", "cut and back"]))
    if not worker.online:
        model.worker_reconnects()


def lose_sessions_control(effort: Effort) -> str:
    """The same without epochs."""
    broken = Effort(effort.seed, 200, effort.deadline, effort.folder)
    outcome = lose_sessions(broken, MUTANTS["no epoch"])
    assert outcome.failures, "acknowledging by packet identifier alone was not noticed"
    return f"no epoch: {outcome.failures[0]}"
