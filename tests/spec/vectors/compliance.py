"""Compliance mode data objects, by Avery's `include/hw/cxl/cxl_compliance.h` for QEMU (CXL 2.0), without their two
header dwords. Every field has a value of its own."""

from __future__ import annotations

from typing import Any

from softcxl.spec.cxl import compliance
from softcxl.wire import Record
from tests.spec.vectors import Payload, c


def _request(name: str, record: type[Record], layout: str, **fields: Any) -> Payload:
    """A request: CXLCompReqHeader's code, version and two reserved bytes, then `fields` as C lays them out."""
    data = c("BBxx" + layout, 0x11, 0x12, *fields.values())
    return Payload(f"Avery {name}", record, data, {"code": 0x11, "version": 0x12, **fields})


PAYLOADS = [
    _request("CXLCompCapReq", compliance.ComplianceRequest, ""),
    Payload(
        "Avery __CXLCompStatusOnlyRsp",
        compliance.ComplianceResponse,
        c("BBBB", 5, 1, 4, 3),
        {
            "code": compliance.ComplianceRequestCode.BOGUS_WRITES,
            "version": 1,
            "length": 4,
            "status": compliance.ComplianceStatus.UNSUPPORTED_INJECTION,
        },
    ),
    Payload(
        "Avery CXLCompCapRsp",
        compliance.ComplianceCapabilityResponse,
        c("BBBBQQ", 0, 1, 0x1C, 2, 0x8040, 0x0040),
        {
            "code": 0,
            "version": 1,
            "length": 0x1C,
            "status": compliance.ComplianceStatus.UNKNOWN_FAILURE,
            "available.inject_bit_error": True,
            "available.inject_poison": True,
            "enabled": 0x0040,
        },
    ),
    Payload(
        "Avery CXLCompStatusRsp",
        compliance.ComplianceStatusResponse,
        c("BBBIHB", 1, 2, 3, 0x04050607, 0x0809, 0x0A),
        {
            "code": 1,
            "version": 2,
            "length": 3,
            "capabilities": 0x04050607,
            "cache_size": 0x0809,
            "cache_size_unit": 0x0A,
        },
    ),
    _request(
        "CXLCompMultiWriteStreamingReq",
        compliance.MultipleWriteStreamingRequest,
        "BBBBBBBxQQQQIIII",
        protocol=2,
        virtual_address=3,
        self_checking=4,
        verify_read_semantics=5,
        increments=6,
        sets=7,
        loops=8,
        start_address=0x0102_0304_0506_0708,
        write_address=0x1112_1314_1516_1718,
        write_back_address=0x2122_2324_2526_2728,
        byte_mask=0x3132_3334_3536_3738,
        address_increment=0x41424344,
        set_offset=0x51525354,
        pattern=0x61626364,
        pattern_increment=0x71727374,
    ),
    _request(
        "CXLCompProducerConsumerReq",
        compliance.ProducerConsumerRequest,
        "BBBBB3xQQIII",
        protocol=1,
        increments=2,
        sets=3,
        loops=4,
        write_semantics=5,
        start_address=0x0102_0304_0506_0708,
        byte_mask=0x1112_1314_1516_1718,
        address_increment=0x21222324,
        set_offset=0x31323334,
        pattern=0x41424344,
    ),
    _request("CXLCompBogusWritesReq", compliance.BogusWritesRequest, "BxI", count=2, pattern=0x03040506),
    _request("CXLCompInjectPoisonReq", compliance.InjectPoisonRequest, "B", protocol=1),
    _request("CXLCompInjectCrcReq", compliance.InjectCrcRequest, "BB", bits=1, flits=2),
    _request("CXLCompInjectFlowCtrlReq", compliance.InjectFlowControlRequest, "B", enable=1),
    _request("CXLCompToggleCacheFlushReq", compliance.ToggleCacheFlushRequest, "B", control=1),
    _request("CXLCompInjectMacDelayReq", compliance.InjectMacDelayRequest, "BBB", enable=1, mode=2, delay=3),
    _request("CXLCompInsertUnexpMacReq", compliance.InsertUnexpectedMacRequest, "BB", operation=1, mode=2),
    _request("CXLCompInjectViralReq", compliance.InjectViralRequest, "B", protocol=2),
    _request("CXLCompInjectAlmpReq", compliance.InjectAlmpRequest, "B3x", operation=1),
    _request("CXLCompInjectBitErrInFlitReq", compliance.InjectBitErrorRequest, "B", operation=2),
]

# Each list in order from 0
ENUMS = [
    (
        "CXL_COMP_MODE_*",
        compliance.ComplianceRequestCode,
        [
            "CAPABILITY",
            "STATUS",
            "HALT_ALL",
            "MULTIPLE_WRITE_STREAMING",
            "PRODUCER_CONSUMER",
            "BOGUS_WRITES",
            "INJECT_POISON",
            "INJECT_CRC",
            "INJECT_FLOW_CONTROL",
            "TOGGLE_CACHE_FLUSH",
            "INJECT_MAC_DELAY",
            "INSERT_UNEXPECTED_MAC",
            "INJECT_VIRAL",
            "INJECT_ALMP",
            "IGNORE_ALMP",
            "INJECT_BIT_ERROR",
        ],
    ),
    (
        "CXL_COMP_MODE_RET_*",
        compliance.ComplianceStatus,
        [
            "SUCCESS",
            "NOT_AUTHORIZED",
            "UNKNOWN_FAILURE",
            "UNSUPPORTED_INJECTION",
            "INTERNAL_ERROR",
            "TARGET_BUSY",
            "TARGET_NOT_INITIALIZED",
        ],
    ),
]
