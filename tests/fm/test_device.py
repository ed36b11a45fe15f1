"""A device of several logical devices or heads through the library, byte for byte."""

import asyncio
import struct

import pytest

from softcxl.fm.device import Device
from softcxl.fm.errors import BadAnswer
from softcxl.spec.fm.mld import QosControl
from tests.fm.scripted import switch_of

MIB = 1 << 20
GIB = 1 << 30


def test_logical_devices():
    # libcxlmi cxlmi_cmd_fmapi_get_ld_info_rsp: memory size, LD count, QoS telemetry
    device, _ = switch_of({0x5400: struct.pack("<QHB", 16 * GIB, 8, 3)}, Device)
    found = asyncio.run(device.ld_info())
    assert (found.memory_size, found.ld_count, int(found.qos_telemetry)) == (16 * GIB, 8, 3)


def allocations(ranges, granularity=0, page=255):
    def handle(payload):
        start, limit = payload
        shown = ranges[start : start + min(limit, page)]
        return 0, struct.pack("<BBBB", len(ranges), granularity, start, len(shown)) + b"".join(
            struct.pack("<QQ", *one) for one in shown
        )

    return handle


@pytest.mark.parametrize(("granularity", "unit"), [(0, 256 * MIB), (1, 512 * MIB), (2, GIB)])
def test_allocations_are_in_bytes(granularity, unit):
    device, _ = switch_of({0x5401: allocations([(4, 0), (1, 2), (0, 0)], granularity)}, Device)
    found = asyncio.run(device.ld_allocations())
    assert found.granularity == unit
    assert found.ranges == [(4 * unit, 0), (unit, 2 * unit), (0, 0)]


def test_allocations_come_by_pages():
    ranges = [(one, 0) for one in range(16)]
    device, link = switch_of({0x5401: allocations(ranges, page=7)}, Device)
    assert [first // (256 * MIB) for first, _ in asyncio.run(device.ld_allocations()).ranges] == list(
        range(16)
    )
    assert [one[:2] for one in link.inputs(0x5401)] == ["00", "07", "0e"]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (bytes([2, 7, 0, 2]) + bytes(32), "memory granularity 7, which is none of 0 to 2"),
        (bytes([2, 0, 0, 0]), "0 entries from 0; from 0 on there are 2"),
        (bytes([2, 0, 1, 1]) + bytes(16), "1 entries from 1; from 0 on there are 2"),
        (bytes([2, 0, 0, 2]) + bytes(31), "31 bytes|given"),
    ],
)
def test_a_device_that_lies_about_its_allocations(payload, says):
    device, _ = switch_of({0x5401: payload}, Device)
    with pytest.raises(BadAnswer, match=rf"Get LD Allocations \(5401h\): .*({says})"):
        asyncio.run(device.ld_allocations())


def test_setting_allocations():
    device, link = switch_of(
        {0x5401: allocations([(0, 0)] * 4), 0x5402: lambda payload: (0, payload[:4] + payload[4:])}, Device
    )
    given = asyncio.run(device.set_ld_allocations([(GIB, 0), (0, 512 * MIB)], start=2))
    assert given == [(GIB, 0), (0, 512 * MIB)]
    assert link.inputs(0x5402) == ["02020000" + struct.pack("<QQQQ", 4, 0, 0, 2).hex()]


@pytest.mark.parametrize("size", [1, 300 * MIB, -256 * MIB])
def test_allocations_are_multiples_of_the_granularity(size):
    device, link = switch_of({0x5401: allocations([(0, 0)])}, Device)
    with pytest.raises(ValueError, match=f"^{size} bytes for a logical device; multiples of 268435456 bytes"):
        asyncio.run(device.set_ld_allocations([(size, 0)]))
    assert link.inputs(0x5402) == []


def test_quality_of_service():
    # libcxlmi cxlmi_cmd_fmapi_get_qos_control_rsp: control, egress moderate and severe, sample interval, ReqCmpBasis,
    # collection interval
    control = struct.pack("<BBBBHB", 3, 11, 26, 9, 0x1234, 65)
    device, link = switch_of({0x5403: control, 0x5404: lambda payload: (0, payload), 0x5405: b"\x2a"}, Device)
    found = asyncio.run(device.qos_control())
    assert (found.egress_moderate_percentage, found.egress_severe_percentage) == (11, 26)
    assert found.request_completion_basis == 0x1234
    assert asyncio.run(device.set_qos_control(found)) == QosControl.unpack(control)
    assert link.inputs(0x5404) == [control.hex()]
    assert asyncio.run(device.qos_status()) == 42


@pytest.mark.parametrize(
    ("get", "put", "opcode"),
    [
        ("allocated_bandwidth", "set_allocated_bandwidth", 0x5406),
        ("bandwidth_limit", "set_bandwidth_limit", 0x5408),
    ],
)
def test_bandwidth(get, put, opcode):
    shares = bytearray(range(100, 116))

    def read(payload):
        count, start = payload
        return 0, bytes([count, start]) + shares[start : start + count]

    def write(payload):
        count, start = payload[:2]
        shares[start : start + count] = payload[2:]
        return 0, payload

    device, link = switch_of({opcode: read, opcode + 1: write}, Device)
    assert asyncio.run(getattr(device, get)(3, start=2)) == [102, 103, 104]
    assert asyncio.run(getattr(device, put)([1, 2], start=3)) == [1, 2]
    assert link.inputs(opcode + 1) == ["02030102"]
    assert asyncio.run(getattr(device, get)(4, start=2)) == [102, 1, 2, 105]


def test_bandwidth_of_others_is_a_lie():
    device, _ = switch_of({0x5406: bytes([1, 4, 9])}, Device)
    with pytest.raises(BadAnswer, match="1 entries from LD 4; 2 from 0 were asked for"):
        asyncio.run(device.allocated_bandwidth(2))


def test_heads():
    def handle(payload):
        start, limit = payload
        mapped = bytes([0, 0, 1, 0xFF, 3])[start : start + min(limit, 2)]
        return 0, struct.pack("<BBxxBBxx", 5, 4, start, len(mapped)) + mapped

    device, link = switch_of({0x5500: handle}, Device)
    found = asyncio.run(device.heads())
    assert found.head_count == 4
    assert found.ld_heads == [0, 0, 1, None, 3]
    assert len(link.inputs(0x5500)) == 3


def test_links_of_heads():
    head = bytes([3, 16, 8, 0x1F, 5, 4, 4, 1, 3])
    device, link = switch_of({0x5501: struct.pack("<B3x", 1) + head}, Device)
    (found,) = asyncio.run(device.head_info(1, start=2))
    assert (found.port, found.maximum_link_width, found.negotiated_link_width) == (3, 16, 8)
    assert link.inputs(0x5501) == ["0201"]
