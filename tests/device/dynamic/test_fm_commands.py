"""5600h to 5608h as a fabric manager sends them, by libcxlmi's structures (api-types.h).

Return codes are those of QEMU's handlers of the same commands where it has them (cmd_fm_initiate_dc_add,
cmd_fm_initiate_dc_release, cmd_fm_set_dc_region_config, cmd_fm_get_dc_region_extent_list in
hw/cxl/cxl-mailbox-utils.c), else the standard's.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

import pytest

from softcxl.device.dynamic.owner import OwnerCommands
from softcxl.device.dynamic.selection import Selection
from softcxl.device.type3 import Type3
from softcxl.spec.fm import dcd as spec
from tests.device.dynamic.dc_host import BASE, MIB, DcHost, Found

SUCCESS, INPUT, UNSUPPORTED, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST = 0, 2, 3, 0xF, 0x16, 0x1D, 0x1E
FREE, CONTIGUOUS, PRESCRIPTIVE, SHARED = range(4)
BY_TAG, BY_EXTENT, FORCED, SANITIZE = 0, 1, 1 << 4, 1 << 5
NO_TAG = bytes(16)
TAG, OTHER = bytes(range(16)), bytes(range(16, 32))
SHARABLE = BASE + 256 * MIB


class TagFound(NamedTuple):
    tag: bytes
    referenced: bool
    hosts: set[int]
    pending: set[int]


class Manager:
    """What a fabric manager does with a device, by one door."""

    def __init__(self, device: Type3) -> None:
        self._device, self._door = device, device.management(lambda notification: None)

    def send(self, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
        with self._device.lock:
            reply = self._door.execute(opcode, payload)
        return int(reply.code), reply.payload

    def add(self, policy, *, host=0, region=0, length=0, tag=NO_TAG, extents=()):
        head = struct.pack("<HBBQ16s", host, policy, region, length, tag)
        return self.send(0x5604, head + listed(extents))[0]

    def release(self, flags, *, host=0, length=0, tag=NO_TAG, extents=()):
        return self.send(0x5605, struct.pack("<HBxQ16s", host, flags, length, tag) + listed(extents))[0]

    def extents(self, host=0, count=99, start=0):
        """(host, start, returned, total, generation, extents)"""
        code, payload = self.send(0x5603, struct.pack("<H2xII", host, count, start))
        assert code == SUCCESS
        found = [Found(*one) for one in struct.iter_unpack("<QQ16sH6x", payload[24:])]
        return (*struct.unpack_from("<H2xIIII4x", payload), found)

    def tags(self, count=99, start=0):
        """(generation, total, returned, validity, tags)"""
        code, payload = self.send(0x5608, struct.pack("<II", start, count))
        assert code == SUCCESS
        found = [
            TagFound(tag, bool(flags & 1), members(hosts), members(pending))
            for tag, flags, hosts, pending in struct.iter_unpack("<16sB3x32s32s", payload[16:])
        ]
        return (*struct.unpack_from("<IIIB3x", payload), found)


def listed(extents):
    """uint32_t ext_count, then start_dpa, len, tag, shared_seq, rsvd each."""
    whole = [one if len(one) == 4 else (*one, NO_TAG, 0) for one in extents]
    return struct.pack("<I", len(whole)) + b"".join(struct.pack("<QQ16sH6x", *one) for one in whole)


def members(bitmap):
    """The hosts whose bits are set, host 0 the lowest bit of the first byte."""
    return {8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte >> bit & 1}


@pytest.fixture
def fm(dcd):
    return Manager(dcd)


@pytest.fixture
def second(make, dcd):
    """Host 9 of the same capacity; the device by which it speaks has no commands of its own for it."""
    other = make(dynamic=dcd.dynamic.regions)
    for opcode in (0x4800, 0x4801, 0x4802, 0x4803):
        del other.cci.handlers[opcode]
    other.cci.add([dcd.dynamic.connect(9, other.events, 4096)])
    return DcHost(other)


# -- which interface has them --------------------------------------------------------------------------------------


def test_a_door_has_all_of_them_and_lists_their_effects(fm):
    listed = fm.send(0x0400)[1]
    cel = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
    sizes = dict(struct.iter_unpack("<16sI", listed[8:]))
    log = dict(struct.iter_unpack("<HH", fm.send(0x0401, cel + struct.pack("<II", 0, sizes[cel]))[1]))
    assert set(range(0x5600, 0x5609)) <= set(log)
    # QEMU: cold, conventional and CXL reset, immediate configuration and data change
    assert all(
        log[one] == 1 | 1 << 1 | 1 << 2 | 1 << 9 | 1 << 10 | 1 << 11 for one in (0x5602, 0x5604, 0x5605)
    )
    assert all(log[one] == 0 for one in (0x5600, 0x5601, 0x5603, 0x5608))


def test_no_mailbox_has_them(host):
    for declared in spec.COMMANDS:
        assert host.driver.send(declared.opcode, bytes(16)) == (UNSUPPORTED, b"")


def test_a_device_without_dynamic_capacity_has_none(make):
    fm = Manager(make())
    assert fm.send(0x5600) == (UNSUPPORTED, b"")


# -- what there is -------------------------------------------------------------------------------------------------


def test_dcd_info(fm):
    code, payload = fm.send(0x5600)
    assert (code, len(payload)) == (SUCCESS, 84)
    head = struct.unpack_from("<BB2xH2xHBxQ", payload)
    # one host, two regions, free, contiguous and prescriptive, by tag and by extent, both can sanitize
    # 256 + 128 MiB are one whole multiple of 256 MiB
    assert head == (1, 2, 0b111, 0b11, 0b11, 1)
    sizes = struct.unpack_from("<8Q", payload, 20)
    assert sizes == (sum(1 << n for n in range(6, 29)), sum(1 << n for n in range(6, 28)), 0, 0, 0, 0, 0, 0)


def test_dcd_info_counts_hosts(fm, second):
    assert fm.send(0x5600)[1][0] == 10  # LD IDs 0 to 9


def test_region_configuration(fm, dcd):
    dcd.dynamic.add(region=1, length=MIB, tag=UUID(bytes=TAG))
    code, payload = fm.send(0x5601, struct.pack("<HBB", 0, 8, 0))
    assert (code, len(payload)) == (SUCCESS, 4 + 2 * 40 + 16)
    assert struct.unpack_from("<HBB", payload) == (0, 2, 2)
    region = struct.Struct("<QQQQB3xB3x")
    managed, sharable, non_volatile = 1 << 5, 1 << 3, 1 << 2  # CXL_DSMAS_FLAGS_* of QEMU
    assert region.unpack_from(payload, 4) == (BASE, 1, 256 * MIB, 2 * MIB, managed, 0)
    assert region.unpack_from(payload, 44) == (
        SHARABLE,
        1,
        128 * MIB,
        MIB,
        managed | sharable | non_volatile,
        0,
    )
    assert struct.unpack_from("<4I", payload, 84) == (512, 511, 64, 63)


def test_region_configuration_in_parts(fm):
    assert fm.send(0x5601, struct.pack("<HBB", 0, 1, 1))[1][:4] == b"\0\0\2\1"
    assert len(fm.send(0x5601, struct.pack("<HBB", 0, 0, 0))[1]) == 20
    for host, start in ((0, 2), (0, 255), (1, 0), (0xFFFF, 0)):
        assert fm.send(0x5601, struct.pack("<HBB", host, 1, start)) == (INPUT, b"")


def test_set_region_configuration(fm, dcd, host):
    def configure(region, size, flags=0):
        return fm.send(0x5602, struct.pack("<B3xQB3x", region, size, flags))

    assert configure(0, 64 << 10, 1) == (SUCCESS, b"")
    (record,) = host.events()
    assert (record.kind, record.region) == (3, 0)
    assert struct.unpack_from("<QB3xB3x", fm.send(0x5601, bytes([0, 0, 1, 0]))[1], 28) == (
        64 << 10,
        1 << 5,
        1,
    )
    assert configure(0, 64 << 10, 1) == (SUCCESS, b"")  # which it has: nobody is told
    assert host.events() == []
    for region, size in ((0, 3), (0, 32), (0, 1 << 30), (0, 0), (2, 4096), (255, 4096)):
        assert configure(region, size) == (INPUT, b"")
    assert fm.add(FREE, length=64 << 10) == SUCCESS
    for size in (2 * MIB, 64 << 10):  # as it is, too: QEMU looks for extents first
        assert configure(0, size, 1) == (UNSUPPORTED, b"")


# -- adding --------------------------------------------------------------------------------------------------------


def test_free_and_contiguous(fm, host):
    assert fm.add(PRESCRIPTIVE, extents=[(BASE + 4 * MIB, 2 * MIB)]) == SUCCESS
    assert fm.add(FREE, length=6 * MIB, tag=TAG) == SUCCESS
    assert fm.add(CONTIGUOUS, length=6 * MIB, tag=OTHER) == SUCCESS
    told = host.events()
    assert [one.extent for one in told] == [
        Found(BASE + 4 * MIB, 2 * MIB),
        Found(BASE, 4 * MIB, TAG),
        Found(BASE + 6 * MIB, 2 * MIB, TAG),
        Found(BASE + 8 * MIB, 6 * MIB, OTHER),
    ]
    assert [one.more for one in told] == [0, 1, 0, 0]
    assert {one.kind for one in told} == {0}


def test_prescriptive_with_tags_and_sequences(fm, host):
    extents = [(SHARABLE + 4 * MIB, MIB, TAG, 1), (SHARABLE, 2 * MIB, TAG, 0)]
    # the region and the tag at the head are not for this policy
    assert fm.add(PRESCRIPTIVE, region=7, length=5, tag=OTHER, extents=extents) == SUCCESS
    assert [tuple(one.extent) for one in host.events()] == extents
    assert host.accept(*[one[:2] for one in extents]) == SUCCESS
    assert fm.extents() == (0, 0, 2, 2, 1, [Found(*one) for one in sorted(extents)])


@pytest.mark.parametrize(
    ("policy", "options", "code"),
    [
        (FREE, {"length": 2 * MIB, "host": 1}, INPUT),
        (FREE, {"length": 2 * MIB, "region": 2}, INPUT),
        (FREE, {"length": 2 * MIB, "region": 255}, INPUT),
        (FREE, {"length": 0}, INPUT),
        (FREE, {"length": MIB}, INPUT),
        (CONTIGUOUS, {"length": 3 * MIB}, INPUT),
        (FREE, {"length": 258 * MIB}, EXHAUSTED),
        (CONTIGUOUS, {"length": 2**64 - 2 * MIB}, EXHAUSTED),
        (FREE, {"length": MIB, "region": 1}, INPUT),  # a sharable region wants a tag
        (SHARED, {"region": 1, "tag": TAG}, INPUT),  # which nobody has
        (4, {"length": 2 * MIB}, INPUT),
        (15, {"length": 2 * MIB}, INPUT),
        (PRESCRIPTIVE, {}, EXTENT_LIST),
        (PRESCRIPTIVE, {"extents": [(0, 2 * MIB)]}, ADDRESS),
        (PRESCRIPTIVE, {"extents": [(BASE + 254 * MIB, 4 * MIB)]}, ADDRESS),
        (PRESCRIPTIVE, {"extents": [(2**64 - MIB, 2 * MIB)]}, ADDRESS),
        (PRESCRIPTIVE, {"extents": [(BASE, 2**64 - 1)]}, ADDRESS),
        (PRESCRIPTIVE, {"extents": [(BASE, 2 * MIB), (SHARABLE, MIB)]}, ADDRESS),
        (PRESCRIPTIVE, {"extents": [(BASE, 2 * MIB), (BASE, 2 * MIB)]}, EXTENT_LIST),
        (PRESCRIPTIVE, {"extents": [(BASE + MIB, 2 * MIB)]}, EXTENT_LIST),
        (PRESCRIPTIVE, {"extents": [(BASE, 0)]}, EXTENT_LIST),
        (
            PRESCRIPTIVE,
            {"extents": [(BASE, 2 * MIB, TAG, 0), (BASE + 8 * MIB, 2 * MIB, OTHER, 0)]},
            EXTENT_LIST,
        ),
        (PRESCRIPTIVE, {"extents": [(BASE, 2 * MIB, TAG, 1)]}, EXTENT_LIST),
        (
            PRESCRIPTIVE,
            {"extents": [(SHARABLE, 2 * MIB, TAG, 0), (SHARABLE + 8 * MIB, MIB, TAG, 2)]},
            EXTENT_LIST,
        ),
        (PRESCRIPTIVE, {"extents": [(SHARABLE, 2 * MIB)]}, INPUT),
    ],
)
def test_what_cannot_be_added(fm, dcd, host, policy, options, code):
    assert fm.add(policy, **options) == code
    assert host.events() == []
    assert dcd.dynamic.free(0) == [(BASE, BASE + 256 * MIB)]
    assert dcd.dynamic.free(1) == [(SHARABLE, SHARABLE + 128 * MIB)]


def test_what_is_pending_or_taken_is_in_the_way(fm, host):
    assert fm.add(FREE, length=4 * MIB) == SUCCESS
    assert fm.add(PRESCRIPTIVE, extents=[(BASE + 2 * MIB, 2 * MIB)]) == EXTENT_LIST
    assert host.accept((BASE, 4 * MIB)) == SUCCESS
    assert fm.add(PRESCRIPTIVE, extents=[(BASE + 2 * MIB, 2 * MIB)]) == EXTENT_LIST


def test_more_than_the_device_keeps_account_of(fm, dcd):
    dcd.dynamic.extents_supported, dcd.dynamic.tags_supported = 2, 1
    three = [(BASE + at * 8 * MIB, 2 * MIB) for at in range(3)]
    assert fm.add(PRESCRIPTIVE, extents=three) == EXHAUSTED
    assert fm.add(FREE, length=2 * MIB, tag=TAG) == SUCCESS
    assert fm.add(FREE, length=2 * MIB, tag=OTHER) == EXHAUSTED


@pytest.mark.parametrize("cut", [-1, -40, -41])
def test_lists_of_another_length_than_they_say(fm, cut):
    whole = struct.pack("<HBBQ16s", 0, PRESCRIPTIVE, 0, 0, NO_TAG) + listed([(BASE, 2 * MIB)])
    assert fm.send(0x5604, whole[:cut])[0] == LENGTH
    assert fm.send(0x5604, whole + b"\0")[0] == LENGTH
    assert fm.send(0x5604, whole)[0] == SUCCESS


# -- taking --------------------------------------------------------------------------------------------------------


def take(fm, host, *extents):
    assert fm.add(PRESCRIPTIVE, extents=extents) == SUCCESS
    assert host.accept(*[one[:2] for one in extents]) == SUCCESS
    host.events()


def test_a_host_is_asked_for_extents(fm, host):
    take(fm, host, (BASE, 8 * MIB))
    assert fm.release(BY_EXTENT, extents=[(BASE + 2 * MIB, 2 * MIB)]) == SUCCESS
    (told,) = host.events()
    assert (told.kind, tuple(told.extent[:2])) == (1, (BASE + 2 * MIB, 2 * MIB))
    assert fm.extents()[2:4] == (1, 1)
    assert host.release((BASE + 2 * MIB, 2 * MIB)) == SUCCESS
    assert [one[:2] for one in fm.extents()[5]] == [(BASE, 2 * MIB), (BASE + 4 * MIB, 4 * MIB)]


def test_by_force_and_by_tag(fm, dcd, host):
    take(fm, host, (BASE, 4 * MIB, TAG, 0), (BASE + 8 * MIB, 4 * MIB, TAG, 0))
    dcd.space.write(BASE + 8 * MIB, b"gone")
    dcd.space.write(BASE, b"kept")
    assert fm.release(BY_TAG | FORCED | SANITIZE, tag=TAG, length=4 * MIB) == SUCCESS
    (told,) = host.events()
    assert (told.kind, told.extent) == (2, Found(BASE + 8 * MIB, 4 * MIB, TAG))
    assert fm.extents()[5] == [Found(BASE, 4 * MIB, TAG)]
    assert dcd.space.read(BASE + 8 * MIB, 4) == bytes(4)
    assert dcd.space.read(BASE, 4) == b"kept"


@pytest.mark.parametrize(
    ("flags", "options", "code"),
    [
        (BY_EXTENT, {"extents": [(BASE, 2 * MIB)], "host": 1}, INPUT),
        (BY_EXTENT, {"extents": [(BASE + 4 * MIB, 2 * MIB)]}, ADDRESS),
        (BY_EXTENT, {"extents": [(BASE + 16 * MIB, 2 * MIB)]}, ADDRESS),  # offered and not accepted
        (BY_EXTENT, {"extents": [(0, 2 * MIB)]}, ADDRESS),
        (BY_EXTENT, {"extents": [(BASE, MIB)]}, EXTENT_LIST),
        (BY_EXTENT, {"extents": [(BASE, 4 * MIB), (BASE, 2 * MIB)]}, EXTENT_LIST),
        (BY_EXTENT, {"extents": []}, EXTENT_LIST),
        (BY_TAG, {"tag": OTHER, "length": 2 * MIB}, INPUT),
        (BY_TAG, {"tag": TAG, "length": 0}, INPUT),
        (BY_TAG, {"tag": TAG, "length": MIB}, INPUT),
        (BY_TAG, {"tag": TAG, "length": 6 * MIB}, INPUT),
        (2, {"tag": TAG, "length": 2 * MIB}, INPUT),
        (15 | FORCED, {"tag": TAG, "length": 2 * MIB}, INPUT),
    ],
)
def test_what_cannot_be_released(fm, host, flags, options, code):
    take(fm, host, (BASE, 4 * MIB, TAG, 0))
    assert fm.add(PRESCRIPTIVE, extents=[(BASE + 16 * MIB, 2 * MIB)]) == SUCCESS
    host.events()
    assert fm.release(flags, **options) == code
    assert host.events() == []
    assert fm.extents()[5] == [Found(BASE, 4 * MIB, TAG)]


def test_by_force_an_offer_is_withdrawn(fm, dcd, host):
    assert fm.add(FREE, length=4 * MIB) == SUCCESS
    assert fm.release(BY_EXTENT | FORCED, extents=[(BASE, 4 * MIB)]) == SUCCESS
    assert dcd.dynamic.free(0) == [(BASE, BASE + 256 * MIB)]
    assert host.accept((BASE, 4 * MIB)) == ADDRESS


# -- lists and tags ------------------------------------------------------------------------------------------------


def test_extent_lists_in_parts(fm, host):
    pieces = [(BASE + 4 * at * MIB, 2 * MIB) for at in range(60)]
    take(fm, host, *pieces)
    assert fm.extents(count=0)[:5] == (0, 0, 0, 60, 1)
    assert [one[:2] for one in fm.extents(count=2, start=58)[5]] == pieces[58:]
    assert fm.extents(count=2, start=60)[2:4] == (0, 60)
    assert fm.send(0x5603, struct.pack("<H2xII", 0, 1, 61)) == (INPUT, b"")
    assert fm.send(0x5603, struct.pack("<H2xII", 1, 1, 0)) == (INPUT, b"")


def test_a_reply_carries_what_its_payload_can(dcd, host):
    commands = OwnerCommands(dcd.dynamic, 24 + 3 * 40 + 39)
    dcd.dynamic.add(
        selection=Selection.PRESCRIPTIVE, extents=[(BASE + 4 * at * MIB, 2 * MIB) for at in range(5)]
    )
    host.events()
    assert host.accept(*[(BASE + 4 * at * MIB, 2 * MIB) for at in range(5)]) == SUCCESS
    asked = spec.GetDcRegionExtentListsRequest(host=0, count=99, start_index=1)
    answer = commands.get_extent_lists(asked)
    assert (answer.count, answer.total, len(answer.pack())) == (3, 5, 24 + 3 * 40)


def test_tags_and_references(fm, dcd, host, second):
    assert fm.tags() == (0, 0, 0, 0b11, [])
    assert fm.add(FREE, region=1, length=MIB, tag=TAG) == SUCCESS
    generation, *rest = fm.tags()
    assert rest == [1, 1, 0b11, [TagFound(TAG, False, set(), {0})]]
    assert generation == 1
    assert fm.tags()[0] == 1  # nothing has changed
    assert host.accept((SHARABLE, MIB)) == SUCCESS
    assert fm.add(SHARED, region=1, tag=TAG, host=9) == SUCCESS
    assert fm.tags()[4] == [TagFound(TAG, False, {0}, {9})]
    assert second.accept((SHARABLE, MIB)) == SUCCESS
    assert fm.extents(host=9)[0] == 9
    assert fm.extents(host=9)[5] == fm.extents(host=0)[5] == [Found(SHARABLE, MIB, TAG)]
    assert fm.send(0x5606, TAG) == (SUCCESS, b"")
    assert fm.tags()[4] == [TagFound(TAG, True, {0, 9}, set())]
    for one in (0, 9):
        assert fm.release(BY_TAG | FORCED, host=one, tag=TAG, length=MIB) == SUCCESS
    generation, total, returned, _, tags = fm.tags()
    assert (total, returned, tags) == (1, 1, [TagFound(TAG, True, set(), set())])
    assert fm.send(0x5607, TAG) == (SUCCESS, b"")
    assert fm.tags()[1:3] == (0, 0)
    assert fm.tags()[0] == generation + 1


def test_tags_in_parts(fm):
    names = [bytes([at]) * 16 for at in range(1, 52)]
    for one in names:
        assert fm.add(FREE, length=2 * MIB, tag=one) == SUCCESS
    assert [one.tag for one in fm.tags(count=3, start=2)[4]] == names[2:5]
    assert fm.tags(count=0)[1:3] == (51, 0)
    # (4096 - 16) / 84 fit
    assert fm.tags()[1:3] == (51, 48)
    assert fm.tags(start=51)[1:3] == (51, 0)
    assert fm.send(0x5608, struct.pack("<II", 52, 1)) == (INPUT, b"")


@pytest.mark.parametrize("opcode", [0x5606, 0x5607])
def test_references_to_nothing(fm, opcode):
    assert fm.add(FREE, length=2 * MIB, tag=OTHER) == SUCCESS
    assert fm.send(opcode, TAG) == (INPUT, b"")
    assert fm.send(opcode, OTHER) == (INPUT, b"")  # not of a sharable region; not referenced
    assert fm.send(opcode, TAG[:15]) == (LENGTH, b"")


@pytest.mark.parametrize("policy", [FREE, PRESCRIPTIVE])
def test_a_shared_tag_is_used_once(fm, host, second, policy):
    extents = [(SHARABLE, MIB, TAG, 0)]
    assert fm.add(FREE, region=1, length=MIB, tag=TAG) == SUCCESS
    again = {"region": 1, "length": MIB, "tag": TAG, "host": 9, "extents": extents}
    assert fm.add(policy, **again) in (INPUT, EXTENT_LIST)
    assert fm.add(SHARED, region=0, tag=TAG, host=9) == INPUT  # not where that region is
    assert fm.add(SHARED, region=1, tag=TAG, host=0) == INPUT  # which it was offered
    assert fm.add(SHARED, region=1, tag=TAG, host=9) == SUCCESS


@pytest.mark.parametrize("declared", spec.COMMANDS, ids=lambda one: f"{one.opcode:04X}h")
def test_payloads_of_another_length(fm, declared):
    size = declared.request.__layout__.size if declared.request else 0
    if size:
        assert fm.send(declared.opcode, bytes(size - 1)) == (LENGTH, b"")
    if declared.request is None or declared.request.__layout__.fixed_size is not None:
        assert fm.send(declared.opcode, bytes(size + 1)) == (LENGTH, b"")
