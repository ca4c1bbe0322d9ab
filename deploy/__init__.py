"""The fleet: images, signed bundles, roll-out and roll-back. Nothing is built here yet."""
