"""CXL host bridges, root ports and switches, and the machine made of them."""
