"""TensorRT for RTX under TensorRT's name: ``PYTHONPATH=tests/gpu/rtx tests/gpu/run.sh``.

``tensorrt-rtx-cu13-bindings`` and ``tensorrt-rtx-cu13-libs`` are the one builder and runtime of TensorRT that the
package index has, with the interface of TensorRT 11. Its builder needs no GPU.
"""

import sys

import tensorrt_rtx_bindings

sys.modules[__name__] = tensorrt_rtx_bindings
