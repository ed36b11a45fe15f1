"""ACPI tables that tell an operating system of CXL host bridges and windows."""
