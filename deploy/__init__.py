"""The fleet: images, signed bundles, roll-out and roll-back. Nothing is built yet; the room stands for the import rules."""
