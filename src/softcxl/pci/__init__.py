"""A PCI Express function: configuration space, BARs, interrupts, DOE."""
