"""The demo: simulated cameras, an embedded broker, the worker and its status page in one command.

``simulator`` draws what the cameras see (``paint`` is the paint box; ``plumage``, ``birds``, ``things`` and
``backdrops`` are what is painted; ``camera`` is the sensor). ``models`` holds two small networks and a gate that
``calibrate.demo_networks`` and ``calibrate.demo_gate`` made from such drawings. They know drawings only.
"""
