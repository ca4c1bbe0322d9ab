"""Arrays in, arrays out: picture decoding, input preparation, and the engines that compute.

    decode_image(bytes) -> pixels -> prepare_input(pixels, spec.input) -> row -> Engine.infer(batch of rows) -> (n, d)

This package knows nothing of brokers, gates or animals. Backends are imported when a model file asks for them.
"""

import os

# ONNX Runtime from 1.29 on reports sessions, model names and hashes to its maker unless it is told not to before it is
# imported. A box beside someone's cameras tells nobody anything.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# ``image`` comes first: it sets OpenCV's limits before anything imports OpenCV.
from engines.image import DecodedImage, ImageLimits, decode_image  # isort: skip
from engines.base import Engine, Pending, open_engine
from engines.errors import (
    DeviceLostError,
    EngineInputError,
    EngineRunError,
    ImageError,
    ModelError,
    ParrotgateError,
    UsageError,
)
from engines.image_header import ImageHeader, probe_image
from engines.prepare import prepare_input
from engines.spec import InputSpec, ModelSpec, OutputSpec, load_spec, write_spec

__all__ = [
    "DecodedImage",
    "DeviceLostError",
    "Engine",
    "EngineInputError",
    "EngineRunError",
    "ImageError",
    "ImageHeader",
    "ImageLimits",
    "InputSpec",
    "ModelError",
    "ModelSpec",
    "OutputSpec",
    "ParrotgateError",
    "Pending",
    "UsageError",
    "decode_image",
    "load_spec",
    "open_engine",
    "prepare_input",
    "probe_image",
    "write_spec",
]
