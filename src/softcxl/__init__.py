"""SoftCXL: a CXL fabric in software."""

__version__ = "0.1.0"
