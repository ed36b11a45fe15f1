"""Registers and tables of CXL: DVSECs, component registers, device registers, CDAT."""
