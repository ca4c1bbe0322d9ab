"""The fleet: today images and compose for one box; signed bundles, roll-out and roll-back are still to come."""
