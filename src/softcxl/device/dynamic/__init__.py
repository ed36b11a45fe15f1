"""Dynamic capacity: memory that comes to a device's hosts and leaves them while they run (CXL 3.1 §9.13.3)."""
