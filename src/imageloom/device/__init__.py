"""The device process: the only one that imports torch."""
