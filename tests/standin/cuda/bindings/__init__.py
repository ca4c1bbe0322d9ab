"""A stand-in for cuda-python's bindings; only ``driver`` is there."""
