"""What can go wrong, and how the process should end.

    ParrotgateError                 base of every error that the four rooms raise on purpose
    ├── ImageError                  these bytes are no picture that we judge (a bad frame never ends the process)
    ├── ModelError        exit 78   a model file, its manifest or its labels cannot be used
    ├── UsageError        exit 2    the command's words cannot be carried out
    ├── BuildStoppedError exit 1    a build was stopped before its end
    ├── FetchError        exit 75   a file could not be had from the network
    ├── EngineInputError            a batch does not have the shape or dtype of the manifest
    └── EngineRunError    exit 75   inference failed at run time
        └── DeviceLostError         the device is gone for good; only a new process helps

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TRANSIENT = 75  # EX_TEMPFAIL: restart me
EXIT_CONFIG = 78  # EX_CONFIG: do not restart


class ParrotgateError(Exception):
    """Base class; ``exit_code`` is what a command ends with when nothing below it handles the error."""

    exit_code = EXIT_FAILED


class ImageError(ParrotgateError):
    """The bytes are not a picture that may be judged."""


class ModelError(ParrotgateError):
    """A model file, its manifest or its labels are missing, damaged or of the wrong kind."""

    exit_code = EXIT_CONFIG


class UsageError(ParrotgateError):
    """The command cannot be carried out as it was given."""

    exit_code = EXIT_USAGE


class BuildStoppedError(ParrotgateError):
    """A build was stopped before its end, and has left nothing behind."""


class FetchError(ParrotgateError):
    """A file could not be had from any of its addresses, or not be written."""

    exit_code = EXIT_TRANSIENT


class EngineInputError(ParrotgateError):
    """A batch does not match the manifest; raised before the device is touched."""


class EngineRunError(ParrotgateError):
    """Inference failed at run time."""

    exit_code = EXIT_TRANSIENT


class DeviceLostError(EngineRunError):
    """The device cannot recover inside this process; end it and let the supervisor start a new one."""
