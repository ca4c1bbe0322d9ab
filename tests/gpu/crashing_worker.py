"""``edge`` with a GPU that is lost under it: python -m tests.gpu.crashing_worker FILE run --config edge.yaml

Once FILE exists, a kernel writes to address 0 in the process's own context.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from edge.__main__ import main
from engines.cuda import Gpu
from tests.gpu.kernels import kernel


def crash_when(there: Path) -> None:
    """Wait for the file, then lose the GPU."""
    while not there.exists():
        time.sleep(0.05)
    gpu = Gpu()
    with gpu.use("a kernel that fails"):
        kernel("write_nowhere")(block=(1, 1, 1), grid=(1, 1), stream=gpu.stream().raw())


if __name__ == "__main__":
    threading.Thread(target=crash_when, args=(Path(sys.argv.pop(1)),), daemon=True).start()
    main()
