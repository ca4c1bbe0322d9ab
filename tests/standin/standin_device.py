"""The one imaginary GPU that the stand-ins for ``tensorrt`` and ``pycuda.driver`` share.

Environment variables set what it is:

    STANDIN_TENSORRT   version of the bindings, default 10.3.0
    STANDIN_GPU        name, default Orin
    STANDIN_SM         compute capability as 8.7, the default
    STANDIN_CUDA       CUDA version as 12.6, the default
"""

from __future__ import annotations

import os

TENSORRT = os.environ.get("STANDIN_TENSORRT", "10.3.0")
GPU = os.environ.get("STANDIN_GPU", "Orin")
COMPUTE_CAPABILITY = tuple(int(part) for part in os.environ.get("STANDIN_SM", "8.7").split("."))
CUDA = tuple(int(part) for part in os.environ.get("STANDIN_CUDA", "12.6").split("."))
