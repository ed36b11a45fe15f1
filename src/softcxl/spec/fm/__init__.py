"""The fabric manager API: commands to switches, to devices of several logical devices or heads, and to devices with
dynamic capacity (CXL 3.1 §7.6).

Modules are its command sets, each ending in `COMMANDS`; `events` are its event records.
"""
