"""Tools for tests, public for people who extend SoftCXL: laws, conformance kits, strategies, fakes."""
