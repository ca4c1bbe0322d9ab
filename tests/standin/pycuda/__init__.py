"""A stand-in for pycuda; only ``pycuda.driver`` is there."""

VERSION = (2026, 1)
VERSION_STATUS = ""
VERSION_TEXT = "2026.1"
