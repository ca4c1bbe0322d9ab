"""The box's own errors, beside those of ``engines.errors``.

ParrotgateError
├── ConfigError       exit 78   the configuration file cannot be used; lists every fault with its line
├── GateError         exit 78   a gate file is damaged, of another format, or of another feature model
├── FrameError                  a message is no frame: bad envelope, bad topic, too large
│   └── PoisonError             its picture kills decoders: a dead letter, never tried again
├── DecoderError      exit 75   no decoder process starts
├── SpoolError                  the disk refuses the verdict spool; the worker goes on without it
│   └── SpoolDamaged            a kept verdict is damaged for good
├── SpoolTaken        exit 75   another running worker uses the spool's folder
└── LinkError         exit 75   the broker cannot be reached or refuses us
    └── LinkRefused   exit 78   wrong credentials or certificate: a restart will not help
"""

from __future__ import annotations

from engines.errors import EXIT_CONFIG, EXIT_TRANSIENT, ParrotgateError


class ConfigError(ParrotgateError):
    """The configuration cannot be used.

    ``faults`` holds one sentence per fault, each with the line it stands on where that is known.
    """

    exit_code = EXIT_CONFIG

    def __init__(self, source: str, faults: list[str]) -> None:
        self.source = source
        self.faults = faults
        count = f"{len(faults)} fault{'s' if len(faults) != 1 else ''}"
        super().__init__(f"{source}: {count} in the configuration\n" + "\n".join(f"  {fault}" for fault in faults))


class GateError(ParrotgateError):
    """A gate file cannot be used."""

    exit_code = EXIT_CONFIG


class FrameError(ParrotgateError):
    """A message is no frame that can be judged; it ends in an error verdict, never in a crash."""


class PoisonError(FrameError):
    """The frame's picture has killed two decoders; it ends as a dead letter."""


class DecoderError(ParrotgateError):
    """No decoder process can be started now; a new worker may have more luck."""

    exit_code = EXIT_TRANSIENT


class SpoolError(ParrotgateError):
    """The verdict spool's disk is full, read-only or failing; verdicts stay in memory until it answers again."""


class SpoolDamaged(SpoolError):  # noqa: N818 - named for what is there
    """A kept verdict is damaged or its file is gone: no later read gives it back."""


class SpoolTaken(ParrotgateError):  # noqa: N818 - named for what is there
    """Another worker of this name runs on the same spool; it may be one that is about to end."""

    exit_code = EXIT_TRANSIENT


class LinkError(ParrotgateError):
    """The broker cannot be reached now; trying again may help."""

    exit_code = EXIT_TRANSIENT


class LinkRefused(LinkError):  # noqa: N818 - named for what the broker did
    """The broker refuses this worker for good: credentials, certificate or rights must be mended."""

    exit_code = EXIT_CONFIG
