"""A stand-in for the TensorRT bindings; names, arguments and answers are those of the real ones."""

from contextlib import suppress

from tensorrt._common import *  # noqa: F403 - one flat module, like the real one
from tensorrt._common import __version__ as __version__
from tensorrt._runtime import *  # noqa: F403

with suppress(ModuleNotFoundError):
    from tensorrt._builder import *  # noqa: F403
