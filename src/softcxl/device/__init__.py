"""CXL behaviour: what a device does with its registers, commands and media."""
