"""A stand-in for cuda-python; only ``cuda.bindings.driver`` is there."""
