"""Compliance mode: data objects with which a test drives a component (CXL 3.1 §14.16.4).

They travel by DOE, with CXL's vendor ID and type `DATA_OBJECT_TYPE_COMPLIANCE`; the records here are bodies, after the
two header dwords, and a body ends at a whole dword.
"""

from __future__ import annotations

import enum
from typing import Final

from softcxl.wire import RO, Record, Register, bit, reserved, u8, u16, u32, u64, word

DATA_OBJECT_TYPE_COMPLIANCE: Final = 0x00
"""Type of the compliance mode data object, of the CXL vendor ID (CXL 3.1 §14.16.4)."""


class ComplianceRequestCode(enum.IntEnum):
    """Request Code, which the response repeats (CXL 3.1 §14.16.4)."""

    CAPABILITY = 0x0
    STATUS = 0x1
    HALT_ALL = 0x2
    MULTIPLE_WRITE_STREAMING = 0x3
    PRODUCER_CONSUMER = 0x4
    BOGUS_WRITES = 0x5
    INJECT_POISON = 0x6
    INJECT_CRC = 0x7
    INJECT_FLOW_CONTROL = 0x8
    TOGGLE_CACHE_FLUSH = 0x9
    INJECT_MAC_DELAY = 0xA
    INSERT_UNEXPECTED_MAC = 0xB
    INJECT_VIRAL = 0xC
    INJECT_ALMP = 0xD
    IGNORE_ALMP = 0xE
    INJECT_BIT_ERROR = 0xF


class ComplianceStatus(enum.IntEnum):
    """Status of a response (CXL 3.1 §14.16.4)."""

    SUCCESS = 0
    NOT_AUTHORIZED = 1
    UNKNOWN_FAILURE = 2
    UNSUPPORTED_INJECTION = 3
    INTERNAL_ERROR = 4
    TARGET_BUSY = 5
    TARGET_NOT_INITIALIZED = 6


class ComplianceProtocol(enum.IntEnum):
    """Protocol of a request (CXL 3.1 §14.16.4)."""

    CXL_IO = 0
    CXL_CACHE = 1
    CXL_MEM = 2


class ComplianceRequest(Record, size=0x04, spec="CXL 3.1 §14.16.4"):
    """Body of a request that has no arguments: capability, status, halt all. Others begin with it."""

    code: int = u8("a `ComplianceRequestCode`")
    version: int = u8("of the request")
    _reserved: None = reserved(2)


class ComplianceResponse(Record, size=0x04, spec="CXL 3.1 §14.16.4"):
    """Body of a response that says only how it went."""

    code: int = u8("that of the request")
    version: int = u8("of the response")
    length: int = u8("of the whole data object, in bytes")
    status: int = u8("a `ComplianceStatus`")


class ComplianceOptions(Register, width=64, spec="CXL 3.1 §14.16.4.1"):
    """Which requests a component supports, or has enabled: one bit a request code."""

    capability = bit(0, RO)
    status = bit(1, RO)
    halt_all = bit(2, RO)
    multiple_write_streaming = bit(3, RO)
    producer_consumer = bit(4, RO)
    bogus_writes = bit(5, RO)
    inject_poison = bit(6, RO)
    inject_crc = bit(7, RO)
    inject_flow_control = bit(8, RO)
    toggle_cache_flush = bit(9, RO)
    inject_mac_delay = bit(10, RO)
    insert_unexpected_mac = bit(11, RO)
    inject_viral = bit(12, RO)
    inject_almp = bit(13, RO)
    ignore_almp = bit(14, RO)
    inject_bit_error = bit(15, RO)


class ComplianceCapabilityResponse(ComplianceResponse, size=0x14, spec="CXL 3.1 §14.16.4.1"):
    """Body of the response to a capability request."""

    available: ComplianceOptions = word(ComplianceOptions)
    enabled: ComplianceOptions = word(ComplianceOptions)


class ComplianceStatusResponse(Record, size=0x0A, spec="CXL 3.1 §14.16.4.2"):
    """Body of the response to a status request."""

    code: int = u8("that of the request")
    version: int = u8("of the response")
    length: int = u8("of the whole data object, in bytes")
    capabilities: int = u32("one bit an algorithm or injection that is under way")
    cache_size: int = u16("of the component's cache, in `cache_size_unit`s")
    cache_size_unit: int = u8("as the standard numbers them")


class MultipleWriteStreamingRequest(ComplianceRequest, size=0x3C, spec="CXL 3.1 §14.16.4.4"):
    """Body of a request for algorithm 1a: multiple write streaming."""

    protocol: int = u8("a `ComplianceProtocol`")
    virtual_address: int = u8("1: addresses are virtual")
    self_checking: int = u8("1: what was written is read and compared")
    verify_read_semantics: int = u8()
    increments: int = u8("writes of a set")
    sets: int = u8()
    loops: int = u8("0: without end")
    _reserved2: None = reserved(1)
    start_address: int = u64()
    write_address: int = u64()
    write_back_address: int = u64()
    byte_mask: int = u64("one bit a byte of a write that is enabled")
    address_increment: int = u32("between writes of a set, in bytes")
    set_offset: int = u32("between sets, in bytes")
    pattern: int = u32("first data written")
    pattern_increment: int = u32()


class ProducerConsumerRequest(ComplianceRequest, size=0x28, spec="CXL 3.1 §14.16.4.5"):
    """Body of a request for algorithm 1b or 2: producer and consumer."""

    protocol: int = u8("a `ComplianceProtocol`")
    increments: int = u8("writes of a set")
    sets: int = u8()
    loops: int = u8("0: without end")
    write_semantics: int = u8()
    _reserved2: None = reserved(3)
    start_address: int = u64()
    byte_mask: int = u64("one bit a byte of a write that is enabled")
    address_increment: int = u32("between writes of a set, in bytes")
    set_offset: int = u32("between sets, in bytes")
    pattern: int = u32("first data written")


class BogusWritesRequest(ComplianceRequest, size=0x0A, spec="CXL 3.1 §14.16.4.6"):
    """Body of a request for bogus writes."""

    count: int = u8("bogus writes between the others")
    _reserved2: None = reserved(1)
    pattern: int = u32("data written")


class InjectPoisonRequest(ComplianceRequest, size=0x05, spec="CXL 3.1 §14.16.4.7"):
    """Body of a request to send poison."""

    protocol: int = u8("a `ComplianceProtocol`")


class InjectCrcRequest(ComplianceRequest, size=0x06, spec="CXL 3.1 §14.16.4.8"):
    """Body of a request to send flits with a wrong CRC."""

    bits: int = u8("flipped in a flit")
    flits: int = u8()


class InjectFlowControlRequest(ComplianceRequest, size=0x05, spec="CXL 3.1 §14.16.4.9"):
    """Body of a request to stop the flow of credits."""

    enable: int = u8("1: on, 0: off")


class ToggleCacheFlushRequest(ComplianceRequest, size=0x05, spec="CXL 3.1 §14.16.4.10"):
    """Body of a request to switch cache flushing."""

    control: int = u8("whether caches are flushed, as the standard says")


class InjectMacDelayRequest(ComplianceRequest, size=0x07, spec="CXL 3.1 §14.16.4.11"):
    """Body of a request to hold MACs of IDE back."""

    enable: int = u8("1: on, 0: off")
    mode: int = u8("how, as the standard says")
    delay: int = u8()


class InsertUnexpectedMacRequest(ComplianceRequest, size=0x06, spec="CXL 3.1 §14.16.4.12"):
    """Body of a request to send a MAC of IDE where none is due."""

    operation: int = u8("which, as the standard says")
    mode: int = u8("how, as the standard says")


class InjectViralRequest(ComplianceRequest, size=0x05, spec="CXL 3.1 §14.16.4.13"):
    """Body of a request to enter the viral state."""

    protocol: int = u8("a `ComplianceProtocol`")


class InjectAlmpRequest(ComplianceRequest, size=0x08, spec="CXL 3.1 §14.16.4.14, §14.16.4.15"):
    """Body of a request to send an unexpected ALMP, or to ignore those received."""

    operation: int = u8("which, as the standard says")
    _reserved2: None = reserved(3)


class InjectBitErrorRequest(ComplianceRequest, size=0x05, spec="CXL 3.1 §14.16.4.16"):
    """Body of a request to flip bits of a flit."""

    operation: int = u8("which, as the standard says")
