"""Row 4: the delivery path against the broker of the specification."""

from __future__ import annotations

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
