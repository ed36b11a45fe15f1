"""Configuration space of a PCI Express function: header, capabilities, data objects."""
