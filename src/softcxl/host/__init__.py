"""What firmware and an operating system do with a machine's CXL, in process: tables, enumeration, regions, access."""
