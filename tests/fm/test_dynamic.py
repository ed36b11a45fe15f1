"""Dynamic capacity through the library, byte for byte."""

import asyncio
import struct
from uuid import UUID

import pytest

from softcxl.fm.device import Device
from softcxl.fm.dynamic import Extent, Tag
from softcxl.fm.errors import BadAnswer
from tests.fm.scripted import switch_of

MIB = 1 << 20
TAG = UUID("00112233-4455-6677-8899-aabbccddeeff")


def region(base):
    # QEMU hw/cxl: base, decode length in 256 MiB, length, block size, DSMAS flags, region flags
    return struct.pack("<QQQQB3xB3x", base, 4, 1 << 30, 2 * MIB, 0x28, 1)


def regions(count, page):
    def handle(payload):
        host, most, start = struct.unpack("<HBB", payload)
        shown = range(start, min(start + min(most, page), count))
        body = b"".join(region(one << 30) for one in shown)
        return 0, struct.pack("<HBB", host, count, len(shown)) + body + struct.pack("<IIII", 64, 60, 8, 7)

    return handle


@pytest.mark.parametrize("page", [8, 1, 3])
def test_regions(page):
    device, _ = switch_of({0x5601: regions(4, page)}, Device)
    found = asyncio.run(device.dc_regions(2))
    assert [one.base for one in found.regions] == [0, 1 << 30, 2 << 30, 3 << 30]
    assert found.regions[0].flags.sanitize_on_release
    assert (found.host, found.extents_supported, found.extents_available, found.tags_available) == (
        2,
        64,
        60,
        7,
    )


def test_a_device_that_keeps_its_regions_to_itself():
    device, _ = switch_of({0x5601: struct.pack("<HBB", 0, 3, 0) + bytes(16)}, Device)
    with pytest.raises(BadAnswer, match="3 regions, of which it returns 0"):
        asyncio.run(device.dc_regions(0))


def test_configuring_a_region():
    device, link = switch_of({0x5602: b""}, Device)
    asyncio.run(device.set_dc_region(3, 2 * MIB, sanitize_on_release=True))
    assert link.inputs(0x5602) == [struct.pack("<B3xQB3x", 3, 2 * MIB, 1).hex()]


def extent(number, tag=TAG):
    return struct.pack("<QQ16sH6x", number * MIB, MIB, tag.bytes, number)


class Extents:
    """Get DC Region Extent Lists, five at a time; the list changes once after each of `changes` requests."""

    def __init__(self, count, changes=0):
        self.count, self.changes, self.generation = count, changes, 1

    def __call__(self, payload):
        host, most, start = struct.unpack("<HxxII", payload)
        shown = range(start, min(start + min(most, 5), self.count))
        answer = struct.pack("<HxxIIIIxxxx", host, start, len(shown), self.count, self.generation)
        if self.changes:
            self.changes -= 1
            self.generation += 1
        return 0, answer + b"".join(map(extent, shown))


def test_extents_come_by_pages():
    device, link = switch_of({0x5603: Extents(12)}, Device)
    found = asyncio.run(device.dc_extents(1))
    assert found == [Extent(one * MIB, MIB, TAG, one) for one in range(12)]
    assert len(link.inputs(0x5603)) == 3


def test_no_extents():
    device, _ = switch_of({0x5603: Extents(0)}, Device)
    assert asyncio.run(device.dc_extents(1)) == []


def test_an_extent_without_a_tag():
    data = struct.pack("<HxxIIIIxxxx", 0, 0, 1, 1, 1) + extent(1, UUID(int=0))
    device, _ = switch_of({0x5603: data}, Device)
    assert asyncio.run(device.dc_extents(0)) == [Extent(MIB, MIB, None, 1)]


def test_a_list_that_changes_while_it_is_read_is_read_again():
    device, link = switch_of({0x5603: Extents(12, changes=2)}, Device)
    assert len(asyncio.run(device.dc_extents(1))) == 12
    assert len(link.inputs(0x5603)) == 2 + 3


def test_a_list_that_never_holds_still():
    device, _ = switch_of({0x5603: Extents(12, changes=1000)}, Device)
    with pytest.raises(BadAnswer, match="the list changes whenever it is read"):
        asyncio.run(device.dc_extents(1))


def test_adding():
    device, link = switch_of({0x5604: b""}, Device)

    async def add():
        await device.dc_add(2, 64 * MIB)
        await device.dc_add(2, MIB, region=1, tag=TAG, contiguous=True)
        await device.dc_add_extents(3, [Extent(MIB, 2 * MIB, TAG, 1), Extent(8 * MIB, MIB)])
        await device.dc_share(4, TAG, region=1)

    asyncio.run(add())
    none, tag = bytes(16), TAG.bytes
    # libcxlmi cxlmi_cmd_fmapi_initiate_dc_add_req: host, policy, region, length, tag, extent count, extents
    assert link.inputs(0x5604) == [
        (struct.pack("<HBBQ16sI", 2, 0, 0, 64 * MIB, none, 0)).hex(),
        (struct.pack("<HBBQ16sI", 2, 1, 1, MIB, tag, 0)).hex(),
        (
            struct.pack("<HBBQ16sI", 3, 2, 0, 0, none, 2)
            + struct.pack("<QQ16sH6x", MIB, 2 * MIB, tag, 1)
            + struct.pack("<QQ16sH6x", 8 * MIB, MIB, none, 0)
        ).hex(),
        (struct.pack("<HBBQ16sI", 4, 3, 1, 0, tag, 0)).hex(),
    ]


def test_releasing():
    device, link = switch_of({0x5605: b""}, Device)

    async def release():
        await device.dc_release(2, TAG, MIB)
        await device.dc_release(2, None, MIB, forced=True, sanitize=True)
        await device.dc_release_extents(3, [Extent(MIB, MIB)], forced=True)

    asyncio.run(release())
    # flags: policy in bits 3:0, forced removal bit 4, sanitize bit 5
    assert link.inputs(0x5605) == [
        struct.pack("<HBxQ16sI", 2, 0x00, MIB, TAG.bytes, 0).hex(),
        struct.pack("<HBxQ16sI", 2, 0x30, MIB, bytes(16), 0).hex(),
        (
            struct.pack("<HBxQ16sI", 3, 0x11, 0, bytes(16), 1)
            + struct.pack("<QQ16sH6x", MIB, MIB, bytes(16), 0)
        ).hex(),
    ]


def test_references():
    device, link = switch_of({0x5606: b"", 0x5607: b""}, Device)

    async def refer():
        await device.dc_add_reference(TAG)
        await device.dc_remove_reference(TAG)

    asyncio.run(refer())
    assert link.inputs(0x5606) == link.inputs(0x5607) == [TAG.bytes.hex()]


def tags(valid):
    def handle(payload):
        start, most = struct.unpack("<II", payload)
        shown = range(start, min(start + min(most, 2), 3))
        hosts, pending = (0b101).to_bytes(32, "little"), (1 << 255).to_bytes(32, "little")
        body = b"".join(
            struct.pack("<16sB3x32s32s", UUID(int=one + 1).bytes, one == 0, hosts, pending) for one in shown
        )
        return 0, struct.pack("<IIIB3x", 9, 3, len(shown), valid) + body

    return handle


@pytest.mark.parametrize(
    ("valid", "hosts", "pending"), [(0, None, None), (1, [0, 2], None), (2, None, [255]), (3, [0, 2], [255])]
)
def test_tags(valid, hosts, pending):
    device, _ = switch_of({0x5608: tags(valid)}, Device)
    assert asyncio.run(device.dc_tags()) == [
        Tag(UUID(int=1), True, hosts, pending),
        Tag(UUID(int=2), False, hosts, pending),
        Tag(UUID(int=3), False, hosts, pending),
    ]


def test_what_the_device_is():
    blocks = [1 << 21, *[0] * 7]
    payload = struct.pack("<BBxxHxxHBxQ8Q", 4, 2, 0b111, 0b11, 0b01, 16, *blocks)
    device, _ = switch_of({0x5600: payload}, Device)
    found = asyncio.run(device.dc_info())
    assert (found.host_count, found.region_count, found.total_capacity) == (4, 2, 16)
    assert found.selection_policies.prescriptive
    assert found.block_sizes0 == 1 << 21


@pytest.mark.parametrize(("opcode", "ask"), [(0x5603, "dc_extents"), (0x5608, "dc_tags")])
def test_a_device_that_keeps_the_rest_to_itself(opcode, ask):
    empty = {
        0x5603: struct.pack("<HxxIIIIxxxx", 0, 0, 0, 3, 1),
        0x5608: struct.pack("<IIIB3x", 1, 3, 0, 0),
    }[opcode]
    device, _ = switch_of({opcode: empty}, Device)
    with pytest.raises(BadAnswer, match=r"3 (extents|tags), of which it returns 0"):
        asyncio.run(getattr(device, ask)(*([0] if ask == "dc_extents" else [])))


def test_tags_that_change_while_they_are_read():
    generations = iter([1, 2, *[3] * 9])

    def handle(payload):
        (start,) = struct.unpack_from("<I", payload)
        body = struct.pack("<16sB3x32s32s", UUID(int=start + 1).bytes, 0, bytes(32), bytes(32))
        return 0, struct.pack("<IIIB3x", next(generations), 2, 1, 0) + body

    device, link = switch_of({0x5608: handle}, Device)
    assert [one.tag.int for one in asyncio.run(device.dc_tags())] == [1, 2]
    assert len(link.inputs(0x5608)) == 4
