"""Scrubbing: the data of the patrol scrub and DDR5 error check scrub features, and the log of the latter.

A feature's readable attributes are what Get Feature returns, its writable attributes what Set Feature takes.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.wire import RO, Record, Register, bit, bits, raw, tail, u8, word

PATROL_SCRUB_VERSION: Final = 1
"""Get and Set Feature Version of patrol scrub control."""

ECS_VERSION: Final = 1
"""Get and Set Feature Version of DDR5 ECS control."""


class PatrolScrubCapabilities(Register, width=8, spec="CXL 3.2 Table 8-222"):
    """Scrub Cycle Change Capable, and what is reported while scrubbing."""

    cycle_changeable = bit(0, RO)
    real_time_reporting = bit(1, RO, "an error is reported when it is found")


class PatrolScrubCycle(Register, width=16, spec="CXL 3.2 Table 8-222"):
    """Scrub Cycle."""

    current = bits(7, 0, RO, "hours in which all memory is scrubbed once")
    minimum = bits(15, 8, RO, "fewest hours that can be set")


class PatrolScrubFlags(Register, width=8, spec="CXL 3.2 Table 8-222"):
    """Scrub Flags."""

    enable = bit(0, RO)


class PatrolScrubReadable(Record, size=0x04, spec="CXL 3.2 §8.2.10.9.11.1, Table 8-222"):
    """Device Patrol Scrub Control Feature Readable Attributes."""

    capabilities: PatrolScrubCapabilities = word(PatrolScrubCapabilities)
    cycle: PatrolScrubCycle = word(PatrolScrubCycle)
    flags: PatrolScrubFlags = word(PatrolScrubFlags)


class PatrolScrubWritable(Record, size=0x02, spec="CXL 3.2 §8.2.10.9.11.1, Table 8-223"):
    """Device Patrol Scrub Control Feature Writable Attributes."""

    cycle: int = u8("hours in which all memory is to be scrubbed once")
    flags: PatrolScrubFlags = word(PatrolScrubFlags)


# -- DDR5 error check scrub --------------------------------------------------------------------------------


class EcsLogEntryType(enum.IntEnum):
    """What an entry of the DDR5 ECS log is about (CXL 3.2 Table 8-225)."""

    DRAM = 0
    MEDIA_FRU = 1


class EcsThreshold(enum.IntEnum):
    """ECS Threshold Count per Gb of Memory Cells (CXL 3.2 Table 8-225)."""

    COUNT_256 = 3
    COUNT_1024 = 4
    COUNT_4096 = 5


class EcsCountMode(enum.IntEnum):
    """Codeword/Row Count Mode (CXL 3.2 Table 8-225)."""

    ROWS = 0
    CODEWORDS = 1


class EcsLogCapabilities(Register, width=8, spec="CXL 3.2 Table 8-225"):
    """DDR5 ECS Log Capabilities."""

    entry_type = bits(1, 0, RO, EcsLogEntryType)


class EcsCapabilities(Register, width=8, spec="CXL 3.2 Table 8-225"):
    """DDR5 ECS Capabilities of a memory media FRU."""

    real_time_reporting = bit(0, RO)


class EcsConfiguration(Register, width=16, spec="CXL 3.2 Table 8-225"):
    """DDR5 ECS Configuration of a memory media FRU."""

    threshold = bits(2, 0, RO, EcsThreshold)
    count_mode = bits(3, 3, RO, EcsCountMode)
    reset_counter = bit(4, RO, "written only: the counters begin again")


class EcsFruReadable(Record, size=0x04, spec="CXL 3.2 Table 8-225"):
    """What DDR5 ECS Control tells of one memory media FRU."""

    capabilities: EcsCapabilities = word(EcsCapabilities)
    configuration: EcsConfiguration = word(EcsConfiguration)
    flags: int = u8("none is defined")


class EcsReadable(Record, size=0x01, spec="CXL 3.2 §8.2.10.9.11.2, Table 8-225"):
    """DDR5 ECS Control Feature Readable Attributes."""

    log_capabilities: EcsLogCapabilities = word(EcsLogCapabilities)
    frus: list[EcsFruReadable] = tail(EcsFruReadable, "one a memory media FRU")


class EcsFruWritable(Record, size=0x02, spec="CXL 3.2 Table 8-226"):
    """What DDR5 ECS Control takes for one memory media FRU."""

    configuration: EcsConfiguration = word(EcsConfiguration)


class EcsWritable(Record, size=0x01, spec="CXL 3.2 §8.2.10.9.11.2, Table 8-226"):
    """DDR5 ECS Control Feature Writable Attributes."""

    log_capabilities: EcsLogCapabilities = word(EcsLogCapabilities)
    frus: list[EcsFruWritable] = tail(EcsFruWritable, "one a memory media FRU")


class EcsLogHeader(Register, width=32, spec="CXL 3.2 Table 8-90"):
    """Common Header of the DDR5 ECS Log."""

    entry_count = bits(9, 0, RO)
    component_identifier_format = bit(10, RO, "set: component identifiers are PLDM ones")
    entry_type = bits(12, 11, RO, EcsLogEntryType)


class EcsErrors(Register, width=128, spec="CXL 3.2 Table 8-90"):
    """Error Count and Address Information of an entry of the DDR5 ECS Log."""

    error_found = bit(0, RO)
    error_count = bits(23, 8, RO, "rows or codewords with errors, as the count mode says")
    max_row_errors = bits(31, 24, RO, "errors of the row that has most")
    max_row_address = bits(95, 32, RO, "where that row is")


class EcsLogEntry(Record, size=0x22, spec="CXL 3.2 Table 8-90"):
    """An entry of the DDR5 ECS Log."""

    component_identifier: bytes = raw(0x10)
    configuration: EcsConfiguration = word(EcsConfiguration)
    errors: EcsErrors = word(EcsErrors)


class EcsLog(Record, size=0x04, spec="CXL 3.2 §8.2.10.5.2.4, Table 8-90"):
    """DDR5 Error Check Scrub (ECS) Log."""

    header: EcsLogHeader = word(EcsLogHeader)
    entries: list[EcsLogEntry] = tail(EcsLogEntry)
