"""Get Configuration, Get Extent List, Add Response, Release: as a host sends them, good and bad.

Return codes for bad extents are QEMU's (cxl_detect_malformed_extent_list, cmd_dcd_add_dyn_cap_rsp,
cmd_dcd_release_dyn_cap in hw/cxl/cxl-mailbox-utils.c).
"""

import struct
from uuid import UUID

import pytest

from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.spec.command.dynamic_capacity import (
    ADD_DYNAMIC_CAPACITY_RESPONSE,
    GET_DYNAMIC_CAPACITY_CONFIGURATION,
    GET_DYNAMIC_CAPACITY_EXTENT_LIST,
    RELEASE_DYNAMIC_CAPACITY,
)
from tests.device.dynamic.dc_host import BASE, MIB, DcHost, Found, updated

COMMANDS = (
    GET_DYNAMIC_CAPACITY_CONFIGURATION,
    GET_DYNAMIC_CAPACITY_EXTENT_LIST,
    ADD_DYNAMIC_CAPACITY_RESPONSE,
    RELEASE_DYNAMIC_CAPACITY,
)
SUCCESS, INVALID_INPUT, UNSUPPORTED, ADDRESS, LENGTH = 0, 0x02, 0x03, 0x0F, 0x16
EXHAUSTED, EXTENT_LIST = 0x1D, 0x1E
TAG = UUID("00112233-4455-6677-8899-aabbccddeeff")
SHARED = BASE + 256 * MIB


def test_without_dynamic_capacity_the_commands_are_not_there(make):
    host = DcHost(make())
    for declared in COMMANDS:
        assert host.driver.send(declared.opcode, bytes(8)) == (UNSUPPORTED, b"")
    assert host.driver.send(0x0100, b"\4") == (INVALID_INPUT, b"")


# -- configuration ---------------------------------------------------------------------------------------------


def test_configuration_as_libcxlmi_reads_it(host):
    """struct cxlmi_cmd_memdev_get_dc_config_rsp, with as many regions as are returned."""
    code, payload = host.configuration()
    assert code == 0
    assert len(payload) == 8 + 2 * 40 + 16
    assert payload[:8] == b"\2\2" + bytes(6)
    region = struct.Struct("<QQQQIB3x")
    assert region.unpack_from(payload, 8) == (BASE, 1, 256 * MIB, 2 * MIB, 2, 0)
    assert region.unpack_from(payload, 48) == (SHARED, 1, 128 * MIB, MIB, 3, 0)
    supported, available, tags, tags_available = struct.unpack_from("<IIII", payload, 88)
    assert supported == available == 512
    assert tags == tags_available == 64


def test_configuration_in_parts(host):
    assert host.configuration(1, 1)[1][:2] == b"\2\1"
    assert host.configuration(0, 0)[1][:2] == b"\2\0"
    assert host.configuration(0xFF, 1)[1][:2] == b"\2\1"
    for start in (2, 8, 0xFF):
        assert host.configuration(1, start) == (INVALID_INPUT, b"")


def test_eight_regions_lie_one_after_the_other(make):
    host = DcHost(
        make(
            dynamic=[
                DynamicRegion(length=(number + 1) * 64 * MIB, sanitize_on_release=number % 2 == 1)
                for number in range(8)
            ]
        )
    )
    _, payload = host.configuration()
    regions = list(struct.iter_unpack("<QQQQIB3x", payload[8 : 8 + 8 * 40]))
    assert [one[1] for one in regions] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [one[5] for one in regions] == [0, 1] * 4
    at = BASE
    for base, decode, *_ in regions:
        assert base == at
        at += decode * 256 * MIB


def test_counts_go_down(dcd, host):
    dcd.dynamic.add(region=1, length=MIB, tag=TAG)
    assert struct.unpack_from("<IIII", host.configuration(0)[1], 8) == (512, 511, 64, 63)


# -- add ---------------------------------------------------------------------------------------------------------


def test_an_offer_and_its_acceptance(dcd, host):
    offer = dcd.dynamic.add(length=64 * MIB, tag=TAG)
    assert host.driver.read32(2, host.driver.capabilities[1][0]) == 1 << 4
    (told,) = host.events(clear=False)
    assert (told.kind, told.validity, told.host, told.more) == (0, 3, 0, 0)
    assert told.extent == Found(BASE, 64 * MIB, TAG.bytes, 0)
    assert (told.extents_available, told.tags_available) == (511, 63)
    assert host.extent_list(8) == (0, 0, 0, [])
    assert dcd.dynamic.extents == ()
    assert host.accept((BASE, 64 * MIB)) == SUCCESS
    assert host.extent_list(8) == (1, 1, 1, [Found(BASE, 64 * MIB, TAG.bytes)])
    assert offer.accepted == offer.extents == dcd.dynamic.extents
    assert offer.state.value == "answered"


def test_a_group_has_more_in_all_but_its_last_record(dcd, host):
    dcd.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=[(BASE + 8 * MIB, 4 * MIB), (BASE, 2 * MIB)])
    told = host.events()
    assert [one.more for one in told] == [1, 0]
    assert [one.extent[:2] for one in told] == [(BASE + 8 * MIB, 4 * MIB), (BASE, 2 * MIB)]


@pytest.mark.parametrize(
    "taken",
    [
        [(BASE, 8 * MIB), (BASE + 16 * MIB, 8 * MIB)],
        [(BASE + 16 * MIB, 8 * MIB), (BASE, 8 * MIB)],
        [(BASE + 16 * MIB, 8 * MIB)],
        [(BASE + 18 * MIB, 2 * MIB), (BASE + 2 * MIB, 2 * MIB), (BASE + 6 * MIB, 2 * MIB)],
    ],
    ids=["all", "all, in another order", "one", "parts"],
)
def test_a_host_takes_what_it_wants_of_a_group(dcd, host, taken):
    offer = dcd.dynamic.add(
        selection=Selection.PRESCRIPTIVE, extents=[(BASE, 8 * MIB), (BASE + 16 * MIB, 8 * MIB)], tag=TAG
    )
    assert host.accept(*taken) == SUCCESS
    assert [one[:2] for one in host.extents()] == sorted(taken)
    assert {one.tag for one in host.extents()} == {TAG.bytes}
    assert host.generation() == 1
    assert sorted((one.start, one.length) for one in offer.accepted) == sorted(taken)
    assert sum(end - start for start, end in dcd.dynamic.free()) == 256 * MIB - sum(one[1] for one in taken)
    assert host.accept(*taken) == ADDRESS  # the rest is not offered any more


def test_a_long_list_comes_in_parts(dcd, host):
    dcd.dynamic.add(length=8 * MIB)
    assert host.accept((BASE + 2 * MIB, 2 * MIB), more=True) == SUCCESS
    assert host.extents() == []
    assert host.accept((BASE + 6 * MIB, 2 * MIB), more=True) == SUCCESS
    assert host.accept((BASE, 2 * MIB)) == SUCCESS
    assert [one.start - BASE for one in host.extents()] == [0, 2 * MIB, 6 * MIB]
    assert host.generation() == 1


def test_a_list_that_fails_begins_anew(dcd, host):
    dcd.dynamic.add(length=8 * MIB)
    assert host.accept((BASE, 2 * MIB), more=True) == SUCCESS
    assert host.accept((BASE, 4 * MIB)) == EXTENT_LIST  # overlaps the first part
    assert host.accept((BASE, 4 * MIB)) == SUCCESS


def test_an_empty_answer_rejects(dcd, host):
    offer = dcd.dynamic.add(length=8 * MIB)
    assert host.accept() == SUCCESS
    assert (offer.state.value, offer.accepted) == ("answered", ())
    assert host.generation() == 0
    assert dcd.dynamic.free() == [(BASE, BASE + 256 * MIB)]
    assert host.accept() == INVALID_INPUT  # there is nothing to reject


@pytest.mark.parametrize(
    ("ranges", "code"),
    [
        ([(0, 2 * MIB)], ADDRESS),
        ([(BASE + 256 * MIB - 2 * MIB, 4 * MIB)], ADDRESS),
        ([(BASE + 384 * MIB, MIB)], ADDRESS),
        ([(2**64 - MIB, 2 * MIB)], ADDRESS),
        ([(BASE, 2**64 - 1)], ADDRESS),
        ([(BASE + 8 * MIB, 2 * MIB)], ADDRESS),
        ([(BASE + 6 * MIB, 4 * MIB)], ADDRESS),
        ([(BASE, 2 * MIB), (SHARED, MIB)], ADDRESS),
        ([(BASE, MIB)], EXTENT_LIST),
        ([(BASE + MIB, 2 * MIB)], EXTENT_LIST),
        ([(BASE, 0)], EXTENT_LIST),
        ([(BASE, 4 * MIB), (BASE + 2 * MIB, 2 * MIB)], EXTENT_LIST),
        ([(BASE, 2 * MIB), (BASE, 2 * MIB)], EXTENT_LIST),
    ],
)
def test_bad_answers(dcd, host, ranges, code):
    offer = dcd.dynamic.add(length=8 * MIB)
    assert host.accept(*ranges) == code
    assert host.extent_list(8) == (0, 0, 0, [])
    assert offer.state.value == "offered"
    assert host.accept((BASE, 8 * MIB)) == SUCCESS


def test_offers_are_answered_in_their_order(dcd, host):
    first, second = dcd.dynamic.add(length=2 * MIB), dcd.dynamic.add(length=4 * MIB)
    assert (first.state.value, second.state.value) == ("offered", "queued")
    assert host.accept((BASE + 2 * MIB, 4 * MIB)) == ADDRESS
    assert host.accept() == SUCCESS
    assert (first.state.value, second.state.value) == ("answered", "offered")
    assert host.accept((BASE + 2 * MIB, 4 * MIB)) == SUCCESS


def test_shared_extents_are_taken_all_or_none(dcd, host):
    dcd.dynamic.add(
        region=1,
        selection=Selection.PRESCRIPTIVE,
        extents=[(SHARED + 4 * MIB, MIB), (SHARED, 2 * MIB)],
        tag=TAG,
    )
    assert [one.extent.sequence for one in host.events()] == [0, 1]
    assert host.accept((SHARED, 2 * MIB)) == EXTENT_LIST
    assert host.accept((SHARED, MIB), (SHARED + 4 * MIB, MIB)) == EXTENT_LIST
    assert host.accept((SHARED, 2 * MIB), (SHARED + 4 * MIB, MIB)) == SUCCESS
    assert host.extents() == [
        Found(SHARED, 2 * MIB, TAG.bytes, 1),
        Found(SHARED + 4 * MIB, MIB, TAG.bytes, 0),
    ]
    assert host.release((SHARED, MIB)) == EXTENT_LIST
    assert host.release((SHARED, 2 * MIB)) == SUCCESS


def test_more_extents_than_the_device_keeps_account_of(dcd, host):
    dcd.dynamic.extents_supported = 3
    dcd.dynamic.add(length=8 * MIB)
    assert host.accept(*[(BASE + at * 2 * MIB, 2 * MIB) for at in range(4)]) == EXHAUSTED
    assert host.accept((BASE, 2 * MIB), (BASE + 4 * MIB, 2 * MIB)) == SUCCESS
    dcd.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=[(BASE + 10 * MIB, 6 * MIB)])
    assert host.accept((BASE + 10 * MIB, 6 * MIB)) == SUCCESS
    assert host.release((BASE + 12 * MIB, 2 * MIB)) == EXHAUSTED  # would leave four
    assert len(host.extents()) == 3


# -- the list ----------------------------------------------------------------------------------------------------


def test_the_list_in_parts(make):
    device = make(payload=256, dynamic=[DynamicRegion(length=256 * MIB)])  # room for 6 extents
    host = DcHost(device)
    device.dynamic.add(length=20 * MIB)
    assert host.accept(*[(BASE + at * 2 * MIB, 2 * MIB) for at in range(10)][:8]) == SUCCESS
    assert host.extent_list(0) == (0, 8, 1, [])
    assert host.extent_list(100)[:2] == (6, 8)
    assert host.extent_list(2, 5)[:2] == (2, 8)
    assert host.extent_list(100, 6)[0] == 2
    assert host.extent_list(100, 8)[:2] == (0, 8)
    assert host.driver.send(0x4801, struct.pack("<II", 1, 9)) == (INVALID_INPUT, b"")


# -- release -----------------------------------------------------------------------------------------------------


@pytest.fixture
def holding(dcd, host):
    """The host has two extents, 8 MiB from BASE and 8 MiB beside it, with another tag."""
    dcd.dynamic.add(length=8 * MIB)
    dcd.dynamic.add(length=8 * MIB, tag=TAG)
    host.events()
    assert host.accept((BASE, 8 * MIB)) == host.accept((BASE + 8 * MIB, 8 * MIB)) == SUCCESS
    return host


@pytest.mark.parametrize(
    ("released", "left"),
    [
        ([(BASE, 8 * MIB)], [(BASE + 8 * MIB, 8 * MIB)]),
        ([(BASE, 16 * MIB)], []),
        ([(BASE + 6 * MIB, 4 * MIB)], [(BASE, 6 * MIB), (BASE + 10 * MIB, 6 * MIB)]),
        (
            [(BASE + 12 * MIB, 2 * MIB), (BASE + 2 * MIB, 2 * MIB)],
            [
                (BASE, 2 * MIB),
                (BASE + 4 * MIB, 4 * MIB),
                (BASE + 8 * MIB, 4 * MIB),
                (BASE + 14 * MIB, 2 * MIB),
            ],
        ),
    ],
)
def test_a_host_releases_what_it_wants(dcd, holding, released, left):
    """It need not have been asked; what it releases may be part of an extent, or go over several."""
    assert holding.release(*released) == SUCCESS
    assert [one[:2] for one in holding.extents()] == left
    assert all(
        one.tag == (TAG.bytes if one.start >= BASE + 8 * MIB else bytes(16)) for one in holding.extents()
    )
    assert holding.generation() == 3
    assert sum(end - start for start, end in dcd.dynamic.free()) == 256 * MIB - sum(one[1] for one in left)


@pytest.mark.parametrize(
    ("ranges", "code"),
    [
        ([], INVALID_INPUT),
        ([(BASE + 16 * MIB, 2 * MIB)], ADDRESS),
        ([(BASE + 14 * MIB, 4 * MIB)], ADDRESS),
        ([(BASE, 2 * MIB), (BASE + 32 * MIB, 2 * MIB)], ADDRESS),
        ([(0, 2 * MIB)], ADDRESS),
        ([(SHARED, MIB)], ADDRESS),
        ([(BASE, MIB)], EXTENT_LIST),
        ([(BASE, 0)], EXTENT_LIST),
        ([(BASE, 4 * MIB), (BASE + 2 * MIB, 4 * MIB)], EXTENT_LIST),
    ],
)
def test_bad_releases(holding, ranges, code):
    before = holding.extent_list(8)
    assert holding.release(*ranges) == code
    assert holding.extent_list(8) == before


def test_a_release_in_parts(holding):
    assert holding.release((BASE, 2 * MIB), more=True) == SUCCESS
    assert holding.generation() == 2
    assert holding.release((BASE + 8 * MIB, 2 * MIB)) == SUCCESS
    assert [one.start - BASE for one in holding.extents()] == [2 * MIB, 10 * MIB]
    assert holding.generation() == 3


# -- lengths -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [(0x4800, bytes(length)) for length in (0, 1, 3, 64)]
    + [(0x4801, bytes(length)) for length in (0, 4, 7, 9)]
    + [
        (opcode, payload)
        for opcode in (0x4802, 0x4803)
        for payload in (
            b"",
            bytes(7),
            bytes(9),
            b"\1" + bytes(7),
            updated((BASE, 2 * MIB))[:-1],
            updated((BASE, 2 * MIB)) + b"\0",
            b"\xff\xff\xff\xff" + bytes(4),
            b"\xff\xff\xff\xff" + bytes(28),
        )
    ],
)
def test_lengths(dcd, host, opcode, payload):
    dcd.dynamic.add(length=2 * MIB)
    assert host.driver.send(opcode, payload) == (LENGTH, b"")
    assert host.accept((BASE, 2 * MIB)) == SUCCESS


def test_a_list_without_end(dcd, host):
    """More and more parts: the device stops at what it could ever keep account of."""
    dcd.dynamic.add(length=256 * MIB)
    code, sent = SUCCESS, 0
    while code == SUCCESS and sent < 2000:
        code = host.accept(*[(BASE, 2 * MIB)] * 100, more=True)
        sent += 100
    assert (code, sent) == (EXHAUSTED, 600)
    assert host.accept((BASE, 2 * MIB)) == SUCCESS
