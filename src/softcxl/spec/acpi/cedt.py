"""The CXL Early Discovery Table: host bridges, fixed memory windows, XOR maps (CXL 3.1 §9.18.1).

Structures are records with their type filled in. Where one ends in a list the builder sets `record_length`.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.wire import (
    RO,
    Record,
    Register,
    bit,
    bits,
    counted,
    nested,
    reserved,
    tail,
    u8,
    u16,
    u32,
    u64,
    word,
)


class Cedt(Record, size=0x24, spec="CXL 3.1 §9.18.1.1"):
    """CXL Early Discovery Table."""

    header: SdtHeader = nested(SdtHeader)
    structures: bytes = tail("CEDT structures, one after another")


class CedtType(enum.IntEnum):
    """CEDT Structure Types (CXL 3.1 §9.18.1.1)."""

    CHBS = 0
    CFMWS = 1
    CXIMS = 2
    RDPAS = 3


class CedtStructureHeader(Record, size=0x04, spec="CXL 3.1 §9.18.1.1"):
    """What every CEDT structure begins with."""

    type: int = u8("a `CedtType`")
    _reserved: None = reserved(1)
    record_length: int = u16("of the structure, in bytes")


class CxlVersion(enum.IntEnum):
    """What a CHBS is about (CXL 3.1 §9.18.1.2)."""

    CXL_1_1 = 0
    CXL_2_0 = 1


CHBS_LENGTH_RCRB: Final = 0x2000
CHBS_LENGTH_COMPONENT: Final = 0x10000


class Chbs(Record, size=0x20, spec="CXL 3.1 §9.18.1.2"):
    """CXL Host Bridge Structure."""

    type: CedtType = u8(CedtType, default=CedtType.CHBS)
    _reserved1: None = reserved(1)
    record_length: int = u16(default=0x20)
    uid: int = u32("_UID of the host bridge")
    cxl_version: int = u32("a `CxlVersion`", default=CxlVersion.CXL_2_0)
    _reserved2: None = reserved(4)
    base: int = u64("of the RCRB or component register block, in host physical addresses")
    length: int = u64("in bytes: 2000h for an RCRB, 10000h for a component", default=CHBS_LENGTH_COMPONENT)


class InterleaveArithmetic(enum.IntEnum):
    """How a window's target is found from the address (CXL 3.1 §9.18.1.3)."""

    MODULO = 0
    XOR = 1


class WindowRestrictions(Register, width=16, spec="CXL 3.1 §9.18.1.3"):
    """Window Restrictions: what the window may be used for."""

    device_coherent = bit(0, RO, "HDM-D, HDM-DB")
    host_only = bit(1, RO, "HDM-H")
    volatile = bit(2, RO)
    persistent = bit(3, RO)
    fixed = bit(4, RO, "its configuration may not be changed")
    back_invalidate = bit(5, RO, "HDM-DB")


class Cfmws(Record, size=0x24, spec="CXL 3.1 §9.18.1.3"):
    """CXL Fixed Memory Window Structure. `record_length` is 24h and 4 for each target."""

    type: CedtType = u8(CedtType, default=CedtType.CFMWS)
    _reserved1: None = reserved(1)
    record_length: int = u16(default=0x24)
    _reserved2: None = reserved(4)
    base_hpa: int = u64("in bytes, a multiple of 256 MiB")
    window_size: int = u64("in bytes, a multiple of 256 MiB and of the ways")
    interleave_ways: int = u8("ENIW; 0 to 4: 1 << value ways, 8 to 10: 3 << (value - 8)")
    interleave_arithmetic: int = u8("an `InterleaveArithmetic`")
    _reserved3: None = reserved(2)
    granularity: int = u32("HBIG: 256 bytes << value, 0 to 6")
    restrictions: WindowRestrictions = word(WindowRestrictions)
    qtg_id: int = u16("QoS throttling group")
    targets: list[int] = tail(u32, "_UIDs of host bridges by interleave position")


class Cxims(Record, size=0x08, spec="CXL 3.1 §9.18.1.4"):
    """CXL XOR Interleave Math Structure. `record_length` is 8 and 8 for each map."""

    type: CedtType = u8(CedtType, default=CedtType.CXIMS)
    _reserved1: None = reserved(1)
    record_length: int = u16(default=0x08)
    _reserved2: None = reserved(2)
    granularity: int = u8("HBIG of the windows that it is for: 256 bytes << value")
    map_count: int = u8("2-based logarithm of the ways, or of their power-of-two factor")
    maps: list[int] = counted(u64, "map_count", "address bits that are XORed into each bit of the position")


class RdpasProtocol(enum.IntEnum):
    """What an RDPAS points to (CXL 3.1 §9.18.1.5)."""

    IO = 0
    CACHE_MEM = 1


class RdpasBdf(Register, width=16, spec="CXL 3.1 §9.18.1.5"):
    """BDF of an RDPAS."""

    function = bits(2, 0, RO)
    device = bits(7, 3, RO)
    bus = bits(15, 8, RO)


class Rdpas(Record, size=0x11, spec="CXL 3.1 §9.18.1.5"):
    """RCEC Downstream Port Association Structure."""

    type: CedtType = u8(CedtType, default=CedtType.RDPAS)
    _reserved: None = reserved(1)
    record_length: int = u16(default=0x11)
    segment: int = u16("PCI segment of the RCEC")
    bdf: RdpasBdf = word(RdpasBdf, "of the RCEC")
    protocol: int = u8("an `RdpasProtocol`")
    base: int = u64("RCRB or component register block of the downstream port, in host physical addresses")
