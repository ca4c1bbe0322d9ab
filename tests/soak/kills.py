"""Rows 1, 5, 7 and 30: workers killed at any moment, at every step, in a share group, and stopped by SIGTERM."""

from __future__ import annotations

import random
import signal
import time

from edge.config import Config
from tests.soak.fleet import Forked, Yard, must_fail
from tests.soak.ledger import Effort, Outcome
from tests.soak.zygote import MOMENTS

FPS = 100.0  # of each of two cameras
MOST_RAW = 0.5  # per cent of the frames


def kill_worker(effort: Effort, **changes: object) -> Outcome:
    """Row 1: SIGKILL after 50 to 1500 ms of connection, again and again."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    with Yard(effort.folder) as yard:
        worker = yard.worker(**changes)
        worker.start()
        worker.wait_ready()
        yard.camera("a", FPS)
        yard.camera("b", FPS)
        while effort.goes_on(outcome.done):
            time.sleep(rng.uniform(0.05, 1.5))
            worker.kill()
            worker.start()
            worker.wait_connected()
            outcome.done += 1
        yard.settle(outcome, effort.patience_s)
    share = 100 * outcome.sums["raw duplicates"] / max(1, outcome.sums["frames"])
    outcome.see("raw duplicates %", round(share, 2))
    outcome.demand(share <= MOST_RAW, f"{share:.2f} % of the frames have two verdicts of one id")
    return outcome


def kill_worker_control(effort: Effort) -> str:
    """A worker whose session ends with its connection."""

    def measure(outcome: Outcome) -> None:
        outcome.failures += kill_worker(effort.broken(5), mqtt={"session_expiry_s": 0}).failures

    return f"with session_expiry_s 0: {must_fail(measure)}"


def kill_at_every_step(effort: Effort, **changes: object) -> Outcome:
    """Row 5: one kill at each moment of the protocol, ``effort.count`` times round."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    with Yard(effort.folder) as yard:
        worker = yard.worker(**changes)
        worker.start()
        worker.wait_ready()
        worker.kill()
        yard.camera("a", 50)
        while effort.goes_on(outcome.done):
            for moment in MOMENTS:
                _kill_at(worker, moment, rng, outcome)
            outcome.done += 1
        worker.start()
        yard.settle(outcome, effort.patience_s)
    return outcome


def _kill_at(worker: Forked, moment: str, rng: random.Random, outcome: Outcome) -> None:
    once = moment.split()[1] in ("connect", "connected", "subscribed")  # these pass once in a connection
    worker.start(kill_at=moment, nth=1 if once else rng.randint(1, 12))
    code = worker.wait()
    outcome.add("kills")
    outcome.demand(code == -signal.SIGKILL, f"{moment}: ended with {code} instead of the kill")


def kill_at_every_step_control(effort: Effort) -> str:
    def measure(outcome: Outcome) -> None:
        outcome.failures += kill_at_every_step(effort.broken(1), mqtt={"session_expiry_s": 0}).failures

    return f"with session_expiry_s 0: {must_fail(measure)}"


def share_group(effort: Effort, **changes: object) -> Outcome:
    """Row 7: three workers divide the frames; one of them is killed and comes back under its own id."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    mqtt = {"share_group": "yard", **dict(changes.pop("mqtt", {}))}  # type: ignore[call-overload]
    with Yard(effort.folder) as yard:
        workers = [yard.worker(f"box-{n}", mqtt=mqtt, **changes) for n in range(3)]
        for worker in workers:
            worker.start()
            worker.wait_ready()
        yard.camera("a", FPS)
        yard.camera("b", FPS)
        while effort.goes_on(outcome.done):
            time.sleep(rng.uniform(0.05, 1.0))
            worker = rng.choice(workers)
            worker.kill()
            if not changes.get("stay_away"):
                time.sleep(rng.uniform(0.0, 0.3))
                worker.start()
                worker.wait_connected()
            outcome.done += 1
        yard.settle(outcome, effort.patience_s)
    return outcome


def share_group_control(effort: Effort) -> str:
    """Without the restart under the same id the broker keeps a third of the frames for a worker that never comes."""
    outcome = Outcome()
    with Yard(effort.folder) as yard:
        workers = [yard.worker(f"box-{n}", mqtt={"share_group": "yard"}) for n in range(3)]
        for worker in workers:
            worker.start()
            worker.wait_ready()
        yard.camera("a", FPS)
        time.sleep(1.0)
        workers[0].kill()
        time.sleep(1.0)
        yard.settle(outcome, effort.broken(1).patience_s)
    assert outcome.failures, "nothing was lost without the restart"
    try:
        Config.model_validate(
            {
                "worker": "x",
                "features": {"model": "x"},
                "gate": {"file": "x"},
                "mqtt": {"share_group": "g", "session_expiry_s": 599},
            }
        )
    except ValueError:
        return f"no restart: {outcome.failures[0]}; session_expiry_s 599 is refused"
    raise AssertionError("a share group with a short session expiry is not refused")


def stop_worker(effort: Effort, **changes: object) -> Outcome:
    """Row 30: SIGTERM at any moment of a connection under load."""
    outcome, rng = Outcome(), random.Random(effort.seed)
    with Yard(effort.folder) as yard:
        worker = yard.worker(**changes)
        worker.start()
        worker.wait_ready()
        yard.camera("a", FPS)
        while effort.goes_on(outcome.done):
            time.sleep(rng.uniform(0.0, 1.0))
            began = time.monotonic()
            worker.send(signal.SIGTERM)
            code = worker.wait()
            took = time.monotonic() - began
            outcome.see("slowest s", round(took, 2))
            outcome.demand(code == 0, f"exit code {code}")
            outcome.demand(took <= 5.0, f"a stop took {took:.1f} s")
            worker.start()
            worker.wait_connected()
            outcome.done += 1
        yard.settle(outcome, effort.patience_s)
    return outcome


def stop_worker_control(effort: Effort) -> str:
    def measure(outcome: Outcome) -> None:
        outcome.failures += stop_worker(effort.broken(5), mqtt={"session_expiry_s": 0}).failures

    return f"with session_expiry_s 0: {must_fail(measure)}"
