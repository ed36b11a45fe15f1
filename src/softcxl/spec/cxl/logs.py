"""What the logs that Get Log returns hold: component state dump and media test. The Command Effects Log is a list
of `CelEntry`, the DDR5 ECS log is in `softcxl.spec.cxl.scrub`."""

from __future__ import annotations

import enum
from uuid import UUID

from softcxl.spec.cxl.events import DramValidity
from softcxl.wire import (
    RO,
    Record,
    Register,
    bit,
    bits,
    counted,
    raw,
    reserved,
    tail,
    u8,
    u16,
    u24,
    u32,
    u64,
    uuid,
    word,
)


class ComponentStateDumpFlags(Register, width=32, spec="CXL 3.2 Table 8-89"):
    """Flags of the Component State Dump Log."""

    auto_populated = bit(0, RO, "the component filled the log by itself")


class ComponentStateDump(Record, size=0x40, spec="CXL 3.2 §8.2.10.5.2.3, Table 8-89"):
    """Component State Dump Log."""

    data_length: int = u32("of the data, in bytes")
    auto_populate_count: int = u8("times it was or would have been filled since it was cleared; stays at FFh")
    event_log: int = u8("an `EventLog`, which holds the event of the dump")
    event_record_handle: int = u16("of that event")
    timestamp: int = u64("when the dump was made, in ns since 1970")
    format: UUID = uuid("of the data; zero: not said")
    flags: ComponentStateDumpFlags = word(ComponentStateDumpFlags)
    _reserved: None = reserved(0x1C)
    data: bytes = tail("as the vendor says")


# -- media test --------------------------------------------------------------------------------------------


class MediaTestCapabilities(Register, width=8, spec="CXL 3.2 Table 8-92"):
    """Capabilities of all media tests."""

    data_ecc_disable = bit(0, RO)
    metadata_ecc_disable = bit(1, RO)
    data_and_metadata_ecc_disable = bit(2, RO)
    metadata_area_testing = bit(3, RO)


class MediaTestAttributes(Register, width=16, spec="CXL 3.2 Table 8-93"):
    """Capabilities of one media test."""

    address_configurable = bit(0, RO)
    inverse_pattern = bit(1, RO)
    exit_on_uncorrectable_error = bit(2, RO)
    threshold_programmable = bit(3, RO)
    update_poison_list = bit(4, RO, "uncorrectable errors go to the poison list")
    addressing_modes = bits(8, 5, RO)


class MediaTest(Record, size=0x10, spec="CXL 3.2 Table 8-93"):
    """Media Test Capability Log Entry."""

    test_id: int = u16()
    algorithm: int = u8()
    execution_time: int = u8("of a GB at most, encoded as the standard says")
    attributes: MediaTestAttributes = word(MediaTestAttributes)
    patterns: int = u16("one bit a supported pattern of 64 bytes")
    prbs_length: int = u8("of the pseudo-random sequence")
    _reserved: None = reserved(7)


class MediaTestCapabilityLog(Record, size=0x10, spec="CXL 3.2 §8.2.10.5.2.5, Tables 8-91 and 8-92"):
    """Media Test Capability Log."""

    count: int = u8("tests that the device supports")
    error_signatures: int = u32("that the device can keep")
    long_log_version: int = u8()
    short_log_version: int = u8()
    capabilities: MediaTestCapabilities = word(MediaTestCapabilities)
    _reserved: None = reserved(8)
    tests: list[MediaTest] = counted(MediaTest, "count")


class MediaTestsResult(enum.IntEnum):
    """Result of all tests of a run (CXL 3.2 Table 8-95)."""

    SUCCESS = 0
    FAILURE = 1
    ABORTED = 2
    ABORTED_AFTER_FAILURE = 3


class MediaTestResult(enum.IntEnum):
    """Result of one test (CXL 3.2 Table 8-96)."""

    SUCCESS = 0
    FAILURE = 1
    ABORTED = 2


class MediaTestResultFlags(Register, width=8, spec="CXL 3.2 Table 8-96"):
    """Flags of a test's results."""

    signatures_overflow = bit(0, RO, "more errors than signatures that can be kept")


class MediaTestResults(Record, size=0x20, spec="CXL 3.2 Table 8-96"):
    """Media Test Results Short Log Entry, which a long one begins with."""

    test_id: int = u16()
    start_time: int = u64("in ns since 1970")
    end_time: int = u64("in ns since 1970")
    result: int = u8("a `MediaTestResult`")
    flags: MediaTestResultFlags = word(MediaTestResultFlags)
    uncorrectable_errors: int = u32()
    correctable_errors: int = u32()
    _reserved: None = reserved(4)


class MediaTestResultsShortLog(Record, size=0x10, spec="CXL 3.2 §8.2.10.5.2.6, Tables 8-94 and 8-95"):
    """Media Test Results Short Log."""

    count: int = u8("tests that were run")
    version: int = u8(default=1)
    result: int = u8("a `MediaTestsResult`")
    _reserved: None = reserved(0x0D)
    results: list[MediaTestResults] = counted(MediaTestResults, "count")


class ErrorSignatureAddress(Register, width=64, spec="CXL 3.2 Table 8-100"):
    """Physical Address of an error signature."""

    volatile = bit(0, RO, "the address is of volatile memory")
    error_type = bits(2, 1, RO, "0: uncorrectable, 1: correctable")
    inverse_pattern = bit(3, RO)
    dpa = bits(63, 6, RO, "device physical address, in units of 64 bytes")


class ErrorSignature(Record, size=0x50, spec="CXL 3.2 Table 8-100"):
    """Error Signature. The place is told as in a DRAM event record."""

    iteration: int = u16("of the test in which the error was met")
    address: ErrorSignatureAddress = word(ErrorSignatureAddress)
    validity: DramValidity = word(DramValidity)
    channel: int = u8()
    rank: int = u8()
    nibble_mask: int = u24("one bit a nibble of the data bus")
    bank_group: int = u8()
    bank: int = u8()
    row: int = u24()
    column: int = u16()
    correction_mask: bytes = raw(0x20, "one bit a bit of the cache line in error")
    component_identifier: bytes = raw(0x10)
    sub_channel: int = u8()
    _reserved: None = reserved(7)


class MediaTestLongResults(MediaTestResults, size=0x30, spec="CXL 3.2 Table 8-99"):
    """Media Test Results Long Log Entry."""

    capacity_tested: int = u64("in multiples of 256 MiB")
    signature_count: int = u32()
    _reserved2: None = reserved(4)
    signatures: list[ErrorSignature] = counted(ErrorSignature, "signature_count")


class MediaTestResultsLongLog(Record, size=0x10, spec="CXL 3.2 §8.2.10.5.2.6, Tables 8-97 and 8-98"):
    """Media Test Results Long Log."""

    count: int = u8("tests that were run")
    version: int = u8(default=1)
    result: int = u8("a `MediaTestsResult`")
    _reserved: None = reserved(0x0D)
    results: list[MediaTestLongResults] = counted(MediaTestLongResults, "count")
