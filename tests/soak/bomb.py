"""One bomb in a process of its own: ``python -m tests.soak.bomb picture|payload|gate FILE`` tells how it ends."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from edge.gate_file import load_gate
from edge.wire import parse_payload
from engines import ParrotgateError, decode_image
from tests.engines import pictures


def main(kind: str, path: str) -> None:
    decode_image(pictures.save(pictures.scene(), "JPEG"))  # what a first call allocates is not the bomb's doing
    data = Path(path).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    refused = False
    try:
        if kind == "picture":
            decode_image(data)
        elif kind == "payload":
            parse_payload(data, 8 << 20)
        else:
            load_gate(path)
    except ParrotgateError:
        refused = True
    took = time.thread_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"refused": refused, "ms": 1000 * took, "mib": grown}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:3])
