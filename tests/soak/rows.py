"""The registry of long runs: one entry for each row of the table of figures, in its order.

To add a row's run: write ``def run(effort: Effort) -> Outcome`` and ``def control(effort: Effort) -> str`` in a module
of this package (the control raises when the broken thing passes, and else says how it failed), and name both here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.soak.least import box_tests


@dataclass(frozen=True)
class Row:
    """A figure to reach: ``goal`` units of ``unit``; ``run`` and ``control`` are ``module:function`` of this package.

    ``elsewhere`` says what else holds the row; ``note`` adds to what was measured, such as why it falls short.
    """

    number: int
    title: str
    target: str
    goal: int = 1
    unit: str = "runs"
    kind: Literal["soak", "fuzz"] = "soak"
    run: str | None = None
    control: str | None = None
    note: str = ""
    elsewhere: str = ""


ROWS = [
    Row(
        1,
        "worker killed",
        "1000 kills, at least 100 000 frames, 0 lost, 0 duplicates after equal ids, raw at most 0.5 %",
        1000,
        "kills",
        run="kills:kill_worker",
        control="kills:kill_worker_control",
        note="One verdict is in flight at 200 frames a second, up to ten on a machine too busy for that: 0.85 % came "
        "twice in 350 kills at a load of six, these ran at a raised priority",
    ),
    Row(
        2,
        "broker killed",
        "100 kills with the shipped mosquitto.conf, 0 accepted frames lost",
        100,
        "kills",
        run="broker_kills:kill_broker",
        control="broker_kills:kill_broker_control",
        note="Mosquitto 2.0.11 confirms, then writes, syncs and renames its store: what it confirmed between a "
        "save and the kill it no longer holds when it is back, and no setting of it changes that. So a camera that "
        "goes by the confirmation alone loses frames, and the row does not hold for it; `edge publish` sends again "
        "what was confirmed in the last two seconds of a lost connection. Row 3 saved to the same disk meanwhile: one "
        "was lost later than the 250 ms that a save is given",
    ),
    Row(
        3,
        "mixed chaos",
        "500 seeded events in 30 minutes, 0 violations",
        500,
        "events",
        run="chaos:chaos",
        control="chaos:chaos_control",
        note="A frame or verdict confirmed within 250 ms of a broker's kill counts as that broker's loss (row 2)",
    ),
    Row(
        4,
        "delivery model",
        "10 000 runs x 50 steps, 0 counter-examples; all planted faults found",
        10_000,
        "runs",
        run="model:run",
        control="model:control",
    ),
    Row(
        5,
        "kill at every step",
        "20 kills at each step of the protocol, 0 lost",
        20,
        "rounds of 20 steps",
        run="kills:kill_at_every_step",
        control="kills:kill_at_every_step_control",
    ),
    Row(
        6,
        "stale, early and double acknowledgements",
        "0 wrong acknowledgements in 10 000 session losses",
        10_000,
        "session losses",
        run="model:lose_sessions",
        control="model:lose_sessions_control",
        note="Early and double acknowledgements are also planted faults of row 4",
    ),
    Row(
        7,
        "share group",
        "3 workers, 300 kills, 0 lost with restart under the same id; short session expiry refused",
        300,
        "kills",
        run="kills:share_group",
        control="kills:share_group_control",
    ),
    Row(
        8,
        "partition and spool",
        "10 min blackhole at 100 verdicts/s, 64 MB, 0 lost, drained in 60 s, within the server's Receive Maximum",
        60_000,
        "verdicts",
        run="partition:blackhole",
        control="partition:blackhole_control",
    ),
    Row(
        9,
        "spool file damaged",
        "cut at every byte: always starts, whole records kept; every damaged byte detected",
        1,
        "files of 64 records",
        run="spool:damage",
        control="spool:damage_control",
    ),
    Row(
        10,
        "disk full, read-only, EIO",
        "0 crashes, 0 lost, recovers within 5 s",
        1,
        "rounds",
        run="partition:failing_disk",
        control="partition:failing_disk_control",
    ),
    Row(
        11,
        "transport load",
        "2000 frames/s of 30 kB and 700/s of 200 kB for 10 min, 0 lost, p99 of the worker 3 ms",
        2,
        "loads",
        run="transport:transport_and_saving",
        control="transport:transport_control",
        note="Pictures are not decoded. Frames/s want a machine with nothing else to do; the CPU a frame less so. The "
        "broker of the loads saves nothing; what one carries that does, as the promise wants it, stands beside them",
    ),
    Row(
        12,
        "overload",
        "4x and 20x, 8 and 256 cameras: p99 age within 3 services + 50 ms, quiet served >= 99.9 %, exact count",
        4,
        "loads",
        run="overload:overload",
        control="overload:overload_control",
        note="Service 10 ms, as in the trial that the target is from: 80 ms from a camera's publishing to its "
        "verdict, with no allowance for a busy machine. At 50 ms the arrivals alone make 197 to 226 ms of 200 "
        "(`tests/soak/ideal.py`): one frame waits decoded, a whole service long. With nothing else to do; at a "
        "load of four to six 2000 frames a second fill two cores, and 89 to 1039 ms were seen",
    ),
    Row(
        13,
        "camera scale",
        "1000 camera topics, memory cap never passed; 100 000 topics refused at the cap",
        100_000,
        "topics",
        run="cameras:cameras",
        control="cameras:cameras_control",
        note="The mailbox holds 64 MiB, which is 67.1 MB",
    ),
    Row(
        14,
        "reconnect herd",
        "200 workers over at least 80 % of 10 s, all back within 15 s",
        200,
        "workers",
        run="herd:herd",
        control="herd:herd_control",
    ),
    Row(
        15,
        "slow link",
        "1.5 MB frame over 50 kB/s at keepalive 5: delivered, 0 disconnects",
        1,
        run="partition:slow_link",
        control="partition:slow_link_control",
    ),
    Row(
        16,
        "exception in a callback",
        "not live within 1 s, every callback",
        1,
        "rounds of all callbacks",
        run="callbacks:exceptions",
        control="callbacks:exceptions_control",
    ),
    Row(
        17,
        "progress watchdog",
        "engine, decode and publish hang, SIGSTOP found within 2x limit; 0 false alarms",
        20,
        "rounds of all hangs",
        run="hangs:hangs",
        control="hangs:hangs_control",
    ),
    Row(
        18,
        "restart storm",
        "100 instant crashes: back-off to 60 s, never more than 10 restarts in 5 min",
        100,
        "crashes",
        elsewhere="left to the supervisor: `deploy/parrotgate.service` backs off from 5 s to 60 s (systemd 254 and "
        "later; older ones wait 5 s each time), and `tests/deploy/test_systemd.py` has `systemd-analyze verify` read "
        "it; nothing was run under it, for want of a running systemd. Docker doubles its own pause up to a minute. "
        "A supervisor of our own would be one more that can fail",
    ),
    Row(
        19,
        "sticky GPU error",
        "exit within 1 s, successor within 5 s, 0 lost, 200 times",
        200,
        "errors",
        run="gpu:lose_gpu",
        control="gpu:lose_gpu_control",
        note="on the stand-in device, alone; beside row 21 at load 3 to 6, 4 of 200 successors took 5.1 to 6.0 s",
    ),
    Row(
        20,
        "poison frame",
        "dead-lettered after exactly 2 crashes, neighbours served",
        1,
        run="bad_pictures:poison",
        control="bad_pictures:poison_control",
    ),
    Row(
        21,
        "mutated JPEGs",
        "1 000 000, 0 crashes of the worker",
        1_000_000,
        "mutants",
        "fuzz",
        note="No answer may take more than 250 ms by the clock less what the worker's side or the decoder waited for a "
        "processor, whichever is more, as the kernel counts it; by the clock alone beside it",
        run="bad_pictures:mutants",
        control="bad_pictures:mutants_control",
    ),
    Row(
        22,
        "truncation",
        "every byte of 5 JPEGs, 0 pixels of another frame",
        5,
        "pictures",
        "fuzz",
        run="bad_pictures:truncation",
        control="bad_pictures:truncation_control",
    ),
    Row(
        23,
        "bombs",
        "30 files, each refused within 5 ms and 8 MB",
        30,
        "bombs",
        run="bad_pictures:bombs",
        control="bad_pictures:bombs_control",
    ),
    Row(
        24,
        "input matrix",
        "at least 120 cases, documented verdict for each",
        120,
        "cases",
        run="bad_input:matrix",
        control="bad_input:matrix_control",
    ),
    Row(
        25,
        "non-finite numbers",
        "10 000 at every stage: always an error verdict",
        10_000,
        "inputs",
        "fuzz",
        run="bad_input:not_finite",
        control="bad_input:not_finite_control",
    ),
    Row(
        26,
        "topics and JSON",
        "1 000 000 inputs, 0 crashes, 0 publications outside the template",
        1_000_000,
        "inputs",
        "fuzz",
        run="bad_input:topics_and_json",
        control="bad_input:topics_and_json_control",
    ),
    Row(
        27,
        "artifact integrity",
        "0 flips, truncations, swaps accepted",
        100_000,
        "flips",
        "fuzz",
        run="artifacts:integrity",
        control="artifacts:integrity_control",
    ),
    Row(
        28, "no code from data", "AST scan and audit hook", 1, run="no_code:no_code", control="no_code:no_code_control"
    ),
    Row(
        29,
        "wrong engine",
        "12 mismatches: clean not-ready within 2 s",
        12,
        "cases",
        elsewhere="`tests/engines/test_plan_manifest.py`, `tests/edge/test_worker_gpu.py`",
    ),
    Row(
        30,
        "SIGTERM",
        "500, exit 0, at most 5 s, 0 lost",
        500,
        "stops",
        run="kills:stop_worker",
        control="kills:stop_worker_control",
    ),
    Row(
        31,
        "hot swap",
        "1000 configurations, 200 models under load, 0 dropped, 0 mixed",
        1200,
        "swaps",
        run="swaps:swap",
        control="swaps:swap_control",
    ),
    Row(
        32,
        "clock",
        "+-2 h, 1970 to 2026: 0 lost, no false alarm",
        10,
        "rounds of five jumps",
        run="clock:clock",
        control="clock:clock_control",
    ),
    Row(
        33,
        "TLS and access lists",
        "17 cases, each with its sentence in edge check and log",
        17,
        "cases",
        run="access:access",
        control="access:access_control",
        note="Mosquitto 2.0 tells nobody that its client id was taken: three connections that end without a reason do",
    ),
    Row(
        34,
        "hostile broker",
        "100 000 mutated packets, 0 dead threads, at most +32 MB",
        100_000,
        "packets",
        "fuzz",
        run="hostile:hostile",
        control="hostile:hostile_control",
    ),
    Row(
        35,
        "soak",
        "1 000 000 frames, memory, descriptors, threads, latency flat",
        1_000_000,
        "frames",
        run="endurance:soak",
        control="endurance:soak_control",
        note="Engines are stood in for. The slope is not settled: resident memory stays for minutes and goes up or "
        "down by a third of a MiB when the machine is busy for a moment, which a fit over a quarter of an hour takes "
        "for growth. Latest long run: [plot](soak.svg)",
    ),
    Row(
        36,
        "least privilege",
        "suite green unprivileged, read-only root, no capabilities",
        len(box_tests()),
        "test files",
        run="least:least_privilege",
        control="least:least_privilege_control",
        note="`tests/edge` and `tests/engines`; the other rooms run on a workstation",
    ),
    Row(
        37,
        "supply chain",
        "hashed lock, no known high CVE, SBOM, same wheel twice",
        1,
        run="supply:supply_chain",
        control="supply:supply_chain_control",
    ),
    Row(
        38,
        "mutation score",
        "at least 90 % of the mutants of the delivery core killed",
        102,
        "mutants",
        run="mutation:score",
        control="mutation:score_control",
        note="96 %. Of the four survivors two change nothing; test_delivery_core.py has met the other two since",
    ),
]
