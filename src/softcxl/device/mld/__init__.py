"""Multi-logical devices: one memory device that is up to sixteen, each for another host, and multi-headed ones."""
