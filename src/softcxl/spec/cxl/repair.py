"""Repair of media: the data of the post package repair and memory sparing features.

A feature's readable attributes are what Get Feature returns, its writable attributes what Set Feature takes;
the repair itself is asked for by Perform Maintenance (`softcxl.spec.command.maintenance`).
"""

from __future__ import annotations

from typing import Final

from softcxl.wire import RO, Record, Register, bit, reserved, u8, word

PPR_VERSION: Final = 3
"""Get and Set Feature Version of soft and hard PPR in CXL 3.2."""

SPARING_VERSION: Final = 1
"""Get and Set Feature Version of the memory sparing features."""


class MaintenanceCapabilities(Register, width=16, spec="CXL 3.2 Table 8-128"):
    """Operations Supported."""

    device_initiated = bit(0, RO, "the device repairs by itself")


class MaintenanceMode(Register, width=16, spec="CXL 3.2 Table 8-128"):
    """Operation Mode."""

    device_initiated = bit(0, RO, "set: the device may repair by itself, clear: only when it is asked")


class PprCapabilities(Register, width=8, spec="CXL 3.2 Table 8-128"):
    """sPPR Flags and hPPR Flags."""

    dpa = bit(0, RO, "the DPA of a request is used")
    nibble_mask = bit(1, RO, "the nibble mask of a request is used")
    sparing_event_record = bit(2, RO, "a repair can log a memory sparing event")
    device_initiated_at_boot = bit(3, RO, "the device can repair by itself when it boots")


class PprRestrictions(Register, width=16, spec="CXL 3.2 Table 8-128"):
    """Restriction Flags of post package repair."""

    media_inaccessible = bit(0, RO, "requests to the media wait, or fail, during a repair")
    data_lost = bit(2, RO, "data may change with a repair")


class PprMode(Register, width=8, spec="CXL 3.2 Table 8-128"):
    """sPPR Operation Mode and hPPR Operation Mode."""

    sparing_event_record = bit(0, RO, "a repair logs a memory sparing event")
    device_initiated_at_boot = bit(1, RO, "the device repairs by itself when it boots")


class PprReadable(Record, size=0x14, spec="CXL 3.2 §8.2.10.7.2.1, Table 8-128, §8.2.10.7.2.2, Table 8-131"):
    """sPPR and hPPR Feature Readable Attributes."""

    maximum_latency: int = u8("Maximum Maintenance Operation Latency, encoded as the standard says")
    capabilities: MaintenanceCapabilities = word(MaintenanceCapabilities)
    mode: MaintenanceMode = word(MaintenanceMode)
    maintenance_class: int = u8("a `MaintenanceClass`")
    maintenance_subclass: int = u8("a `PprSubclass`")
    _reserved: None = reserved(9)
    ppr_capabilities: PprCapabilities = word(PprCapabilities)
    restrictions: PprRestrictions = word(PprRestrictions)
    ppr_mode: PprMode = word(PprMode)


class PprWritable(Record, size=0x03, spec="CXL 3.2 Table 8-129, Table 8-132"):
    """sPPR and hPPR Feature Writable Attributes."""

    mode: MaintenanceMode = word(MaintenanceMode)
    ppr_mode: PprMode = word(PprMode)


class SparingRestrictions(Register, width=16, spec="CXL 3.2 Table 8-134"):
    """Restriction Flags of memory sparing."""

    unsafe_in_use = bit(0, RO, "set: not while software uses the memory")
    hard_sparing = bit(1, RO, "can be permanent")
    soft_sparing = bit(2, RO, "can be until the next reset")


class SparingReadable(Record, size=0x13, spec="CXL 3.2 §8.2.10.7.2.3, Table 8-134"):
    """Memory Sparing Feature Readable Attributes, of cacheline, row, bank and rank sparing alike."""

    maximum_latency: int = u8("Maximum Maintenance Operation Latency, encoded as the standard says")
    capabilities: MaintenanceCapabilities = word(MaintenanceCapabilities)
    mode: MaintenanceMode = word(MaintenanceMode)
    maintenance_class: int = u8("a `MaintenanceClass`")
    maintenance_subclass: int = u8("a `SparingSubclass`")
    _reserved: None = reserved(10)
    restrictions: SparingRestrictions = word(SparingRestrictions)


class SparingWritable(Record, size=0x02, spec="CXL 3.2 Table 8-135"):
    """Memory Sparing Feature Writable Attributes."""

    mode: MaintenanceMode = word(MaintenanceMode)
