"""Who owns the capacity: what it may ask for, what it is told, and what comes of hosts that do not answer."""

import struct
from uuid import UUID

import pytest

from softcxl.device.dynamic.errors import (
    AddressOutside,
    CapacityExhausted,
    DynamicCapacityError,
    ExtentInvalid,
    NoSuchHost,
    NoSuchRegion,
    RegionInUse,
    RegionInvalid,
    TagInvalid,
)
from softcxl.device.dynamic.extents import Extent
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.spec.command.base import ReturnCode
from tests.device.dynamic.dc_host import BASE, MIB, DcHost, Found

ADD, RELEASE, FORCED, CONFIGURED, ADD_RESPONSE, RELEASED = range(6)
SUCCESS, ADDRESS = 0, 0x0F
TAG, OTHER = UUID("00112233-4455-6677-8899-aabbccddeeff"), UUID(int=7)
SHARED = BASE + 256 * MIB


def spans(extents):
    return [(one.start - BASE, one.length) for one in extents]


@pytest.fixture
def told(dcd):
    """What a fabric manager is told."""
    heard = []
    dcd.dynamic.listeners.append(
        lambda event: heard.append((int(event.event_type), event.extent.start_dpa, event.extent.length))
    )
    return heard


def take(dcd, host, *ranges, **options):
    """Extents that the host has accepted."""
    dcd.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=ranges, **options)
    host.events()
    assert host.accept(*ranges) == SUCCESS


# -- selection -----------------------------------------------------------------------------------------------------


def test_first_available_and_contiguous(dcd, host):
    take(dcd, host, (BASE + 4 * MIB, 2 * MIB), (BASE + 8 * MIB, 240 * MIB))
    assert [(start - BASE, end - BASE) for start, end in dcd.dynamic.free()] == [
        (0, 4 * MIB),
        (6 * MIB, 8 * MIB),
        (248 * MIB, 256 * MIB),
    ]
    free = dcd.dynamic.add(length=8 * MIB)
    assert spans(free.extents) == [(0, 4 * MIB), (6 * MIB, 2 * MIB), (248 * MIB, 2 * MIB)]
    contiguous = dcd.dynamic.add(length=6 * MIB, selection=Selection.CONTIGUOUS)
    assert spans(contiguous.extents) == [(250 * MIB, 6 * MIB)]
    assert dcd.dynamic.free() == []
    assert host.accept() == SUCCESS  # the first is free again
    with pytest.raises(CapacityExhausted, match=r"0x800000 are free, 0x400000 in one piece"):
        dcd.dynamic.add(length=6 * MIB, selection=Selection.CONTIGUOUS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"length": 0}, ExtentInvalid, "multiples of 0x200000"),
        ({"length": -2 * MIB}, ExtentInvalid, "multiples of 0x200000"),
        ({"length": MIB}, ExtentInvalid, "multiples of 0x200000"),
        ({"length": 258 * MIB}, CapacityExhausted, "0x10000000 are free"),
        ({"length": 2 * MIB, "region": 2}, NoSuchRegion, "has 2"),
        ({"length": 2 * MIB, "region": -1}, NoSuchRegion, "has 2"),
        ({"length": 2 * MIB, "host": 1}, NoSuchHost, "there are 0"),
        ({"length": MIB, "region": 1}, TagInvalid, "wants a tag"),
        ({"selection": Selection.PRESCRIPTIVE}, ExtentInvalid, "at least one"),
        ({"selection": Selection.PRESCRIPTIVE, "extents": [(0, 2 * MIB)]}, AddressOutside, "not within"),
        ({"selection": Selection.PRESCRIPTIVE, "extents": [(SHARED, 2 * MIB)]}, AddressOutside, "not within"),
        ({"selection": Selection.PRESCRIPTIVE, "extents": [(BASE, MIB)]}, ExtentInvalid, "whole blocks"),
        ({"selection": Selection.PRESCRIPTIVE, "extents": [(BASE, 0)]}, ExtentInvalid, "whole blocks"),
        (
            {"selection": Selection.PRESCRIPTIVE, "extents": [(BASE, 4 * MIB), (BASE + 2 * MIB, 2 * MIB)]},
            ExtentInvalid,
            "overlap",
        ),
        (
            {"selection": Selection.PRESCRIPTIVE, "extents": [Extent(BASE, 2 * MIB, sequence=1)]},
            ExtentInvalid,
            "in a sharable region",
        ),
        ({"selection": Selection.SHARED, "tag": TAG}, TagInvalid, "not in use"),
    ],
)
def test_what_cannot_be_added(dcd, host, options, error, message):
    with pytest.raises(error, match=message) as raised:
        dcd.dynamic.add(**options)
    assert isinstance(raised.value, DynamicCapacityError)
    assert host.events() == []
    assert dcd.dynamic.pending == ()


def test_errors_have_the_return_codes_of_fm_commands():
    """QEMU's cmd_fm_initiate_dc_add and cmd_fm_initiate_dc_release answer with these."""
    assert ExtentInvalid.code is ReturnCode.INVALID_EXTENT_LIST
    assert AddressOutside.code is ReturnCode.INVALID_PHYSICAL_ADDRESS
    assert CapacityExhausted.code is ReturnCode.RESOURCES_EXHAUSTED
    assert NoSuchHost.code is NoSuchRegion.code is TagInvalid.code is ReturnCode.INVALID_INPUT
    assert RegionInUse.code is ReturnCode.UNSUPPORTED


def test_a_device_without_dynamic_capacity(make):
    device = make()
    with pytest.raises(NoSuchRegion, match="no dynamic capacity"):
        device.dynamic.add(length=2 * MIB)
    with pytest.raises(NoSuchRegion, match="no dynamic capacity"):
        device.dynamic.release(tag=TAG)
    assert device.dynamic.extents == device.dynamic.pending == ()
    assert device.dynamic.tags == []


def test_what_is_offered_or_taken_is_not_free(dcd, host):
    dcd.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=[(BASE, 4 * MIB)])
    for _ in range(2):
        with pytest.raises(ExtentInvalid, match="not free"):
            dcd.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=[(BASE + 2 * MIB, 4 * MIB)])
        host.accept((BASE, 4 * MIB))


def test_extents_and_tags_run_out(dcd):
    dcd.dynamic.extents_supported, dcd.dynamic.tags_supported = 3, 2
    dcd.dynamic.add(length=2 * MIB, tag=TAG)
    dcd.dynamic.add(length=2 * MIB, tag=OTHER)
    dcd.dynamic.add(
        length=2 * MIB, tag=OTHER
    )  # a tag may name several allocations in a region that is not shared
    with pytest.raises(CapacityExhausted, match="all 2 tags"):
        dcd.dynamic.add(length=2 * MIB, tag=UUID(int=9))
    with pytest.raises(CapacityExhausted, match="1 extents: 0 are left"):
        dcd.dynamic.add(length=2 * MIB)


# -- release -------------------------------------------------------------------------------------------------------


def test_a_host_is_asked_and_takes_its_time(dcd, host, told):
    take(dcd, host, (BASE, 8 * MIB), tag=TAG)
    assert told.pop() == (ADD_RESPONSE, BASE, 8 * MIB)
    removal = dcd.dynamic.release(tag=TAG)
    (record,) = host.events()
    assert (record.kind, record.extent) == (RELEASE, Found(BASE, 8 * MIB, TAG.bytes))
    assert removal.state.value == "asked"
    assert len(host.extents()) == 1
    host.release((BASE, 6 * MIB))
    assert removal.state.value == "asked"
    host.release((BASE + 6 * MIB, 2 * MIB))
    assert removal.state.value == "released"
    assert told == [(RELEASED, BASE, 6 * MIB), (RELEASED, BASE + 6 * MIB, 2 * MIB)]


def test_by_force(dcd, host, told):
    take(dcd, host, (BASE, 8 * MIB))
    removal = dcd.dynamic.release(extents=[(BASE + 2 * MIB, 4 * MIB)], forced=True)
    assert removal.state.value == "released"
    (record,) = host.events()
    assert (record.kind, record.extent) == (FORCED, Found(BASE + 2 * MIB, 4 * MIB))
    assert spans(host.extents()) == [(0, 2 * MIB), (6 * MIB, 2 * MIB)]
    assert host.generation() == 2
    assert told[-1] == (RELEASED, BASE + 2 * MIB, 4 * MIB)
    assert host.release((BASE + 2 * MIB, 4 * MIB)) == ADDRESS


def test_part_of_a_tag_is_its_last_bytes(dcd, host):
    take(dcd, host, (BASE, 4 * MIB), (BASE + 16 * MIB, 4 * MIB), tag=TAG)
    removal = dcd.dynamic.release(tag=TAG, length=6 * MIB)
    assert spans(removal.extents) == [(2 * MIB, 2 * MIB), (16 * MIB, 4 * MIB)]
    for length, message in ((3 * MIB, "multiples of 0x200000"), (10 * MIB, "too little"), (0, "too little")):
        with pytest.raises(ExtentInvalid, match=message):
            dcd.dynamic.release(tag=TAG, length=length)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, TagInvalid),
        ({"tag": TAG}, TagInvalid),
        ({"extents": []}, ExtentInvalid),
        ({"extents": [(BASE + 8 * MIB, 2 * MIB)]}, AddressOutside),
        ({"extents": [(BASE + 6 * MIB, 4 * MIB)]}, AddressOutside),
        ({"extents": [(0, 2 * MIB)]}, AddressOutside),
        ({"extents": [(BASE, 2 * MIB), (BASE, 2 * MIB)]}, ExtentInvalid),
        ({"extents": [(BASE, MIB)]}, ExtentInvalid),
        ({"extents": [(BASE, 2 * MIB)], "host": 3}, NoSuchHost),
    ],
)
@pytest.mark.parametrize("forced", [False, True])
def test_what_cannot_be_released(dcd, host, options, error, forced):
    take(dcd, host, (BASE, 8 * MIB), tag=OTHER)
    with pytest.raises(error):
        dcd.dynamic.release(forced=forced, **options)
    assert host.events() == []
    assert host.generation() == 1


def test_an_offer_is_withdrawn_by_force_alone(dcd, host):
    offer = dcd.dynamic.add(length=8 * MIB)
    with pytest.raises(AddressOutside):
        dcd.dynamic.release(extents=[(BASE, 8 * MIB)])
    dcd.dynamic.release(extents=[(BASE, 2 * MIB)], forced=True)
    assert offer.state.value == "withdrawn"
    assert dcd.dynamic.free() == [(BASE, BASE + 256 * MIB)]
    second = dcd.dynamic.add(length=2 * MIB)
    assert host.accept((BASE + 4 * MIB, 2 * MIB)) == ADDRESS  # to the first, as the host does not know
    assert host.accept((BASE, 2 * MIB)) == SUCCESS
    assert second.state.value == "answered"


# -- erasure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize(
    ("region", "request_", "gone"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_sanitize_on_release(make, forced, region, request_, gone):
    device = make(dynamic=[DynamicRegion(length=64 * MIB, sanitize_on_release=region)])
    host = DcHost(device)
    take(device, host, (BASE, 8 * MIB))
    for dpa in (BASE, BASE + 6 * MIB):
        device.space.write(dpa, b"secret")
        device.inject_poison(dpa + 64)
    device.dynamic.release(extents=[(BASE, 4 * MIB)], forced=forced, sanitize=request_)
    if not forced:
        assert device.space.read(BASE, 6) == b"secret"
        assert host.release((BASE, 4 * MIB)) == SUCCESS
    assert (device.space.read(BASE, 6) == bytes(6)) == gone
    assert (BASE + 64 not in device.poison.map) == gone
    assert device.space.read(BASE + 6 * MIB, 6) == b"secret"
    assert BASE + 6 * MIB + 64 in device.poison.map


# -- hosts that do not answer --------------------------------------------------------------------------------------


def test_an_offer_expires(dcd, host, clock, told):
    first = dcd.dynamic.add(length=2 * MIB, timeout=10)
    second = dcd.dynamic.add(length=4 * MIB, timeout=10)
    clock.advance(9.9)
    assert first.state.value == "offered"
    clock.advance(0.1)
    assert (first.state.value, second.state.value) == ("expired", "offered")
    assert told == [(ADD_RESPONSE, 0, 0)]
    assert dcd.dynamic.pending == second.extents
    clock.advance(9.9)  # its time began when it was its turn
    assert second.state.value == "offered"
    assert host.accept((BASE, 2 * MIB)) == ADDRESS  # too late
    assert host.accept((BASE + 2 * MIB, 4 * MIB)) == SUCCESS
    clock.advance(1000)
    assert second.state.value == "answered"
    assert told == [(ADD_RESPONSE, 0, 0), (ADD_RESPONSE, BASE + 2 * MIB, 4 * MIB)]


def test_a_late_rejection_is_not_taken_for_that_of_the_next_offer(dcd, host, clock):
    dcd.dynamic.add(length=2 * MIB, timeout=10)
    second = dcd.dynamic.add(length=4 * MIB, timeout=100)
    clock.advance(10)
    assert host.accept() == SUCCESS
    assert second.state.value == "offered"
    assert host.accept() == SUCCESS
    assert second.state.value == "answered"


def test_the_default_is_a_minute(dcd, clock):
    offer = dcd.dynamic.add(length=2 * MIB)
    clock.advance(59)
    assert offer.state.value == "offered"
    clock.advance(1)
    assert offer.state.value == "expired"


def test_a_request_to_release_expires_and_can_still_be_met(dcd, host, clock, told):
    take(dcd, host, (BASE, 2 * MIB))
    told.clear()
    removal = dcd.dynamic.release(extents=[(BASE, 2 * MIB)], timeout=5, sanitize=True)
    dcd.space.write(BASE, b"x")
    clock.advance(5)
    assert removal.state.value == "expired"
    assert told == [(RELEASED, 0, 0)]
    assert host.release((BASE, 2 * MIB)) == SUCCESS
    assert removal.state.value == "released"
    assert dcd.space.read(BASE, 1) == b"\0"


def test_offers_wait_for_room_in_the_log(make, clock):
    """No record of an offer is lost to an overflow: the host could not answer for it."""
    device = make(event_log_depth=2, dynamic=[DynamicRegion(length=64 * MIB)])
    host = DcHost(device)
    ranges = [(BASE + at * 4 * MIB, 2 * MIB) for at in range(5)]
    offer = device.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=ranges)
    later = device.dynamic.add(length=2 * MIB)
    assert offer.state.value == "queued"
    seen = []
    for left in (4, 2, 0):
        told = host.events()
        seen += told
        assert len(told) == 2
        assert (offer.state.value == "offered") == (left <= 2 and len(seen) >= 4)
    assert host.events() == []
    assert [one.extent[:2] for one in seen] == [*ranges, (BASE + 2 * MIB, 2 * MIB)]
    assert [one.more for one in seen] == [1, 1, 1, 1, 0, 0]
    assert host.accept(*ranges) == SUCCESS
    assert later.state.value == "offered"


def test_a_host_that_never_reads_its_log(make, clock):
    device = make(event_log_depth=1, dynamic=[DynamicRegion(length=64 * MIB)])
    offers = [device.dynamic.add(length=2 * MIB, timeout=10) for _ in range(3)]
    for number in range(3):
        clock.advance(10)
        assert [one.state.value for one in offers[: number + 1]] == ["expired"] * (number + 1)
    assert device.dynamic.free() == [(BASE, BASE + 64 * MIB)]
    host = DcHost(device)
    assert [one.extent[:2] for one in host.events()] == [(BASE, 2 * MIB)]
    assert host.events() == []  # of the others the host never hears
    device.dynamic.add(length=2 * MIB)
    assert host.accept() == SUCCESS  # to the first, which it knows of
    assert host.accept((BASE, 2 * MIB)) == SUCCESS


# -- regions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length of 0x0"),
        ({"length": 3 * MIB}, "multiples of 0x200000"),
        ({"length": MIB, "block_size": 96}, "powers of two"),
        ({"length": MIB, "block_size": 32}, "powers of two from 64"),
        ({"length": MIB, "block_size": 0}, "powers of two"),
        ({"length": 4 * MIB, "decode_length": 4 * MIB}, "multiples of 256 MiB"),
        ({"length": 512 * MIB, "decode_length": 256 * MIB}, "from the length on"),
        ({"length": 4 * MIB, "hardware_coherent": True}, "sharable"),
        ({"length": 4 * MIB, "dsmad_handle": 1}, "2 to 255"),
        ({"length": 4 * MIB, "dsmad_handle": 256}, "2 to 255"),
    ],
)
def test_regions_that_cannot_be(options, message):
    with pytest.raises(RegionInvalid, match=message):
        DynamicRegion(**options)


def test_regions_that_cannot_be_together(make):
    region = DynamicRegion(length=2 * MIB)
    with pytest.raises(RegionInvalid, match="at most 8"):
        make(dynamic=[region] * 9)
    with pytest.raises(RegionInvalid, match="DSMADHandle 3"):
        make(dynamic=[DynamicRegion(length=2 * MIB, dsmad_handle=3), region])


def test_a_region_gets_another_configuration(dcd, host):
    before = dcd.cdat.entries[0]
    dcd.dynamic.configure(0, block_size=64 << 10, sanitize_on_release=True)
    (record,) = host.events()
    assert (record.kind, record.region) == (CONFIGURED, 0)
    _, payload = host.configuration(1)
    assert struct.unpack_from("<QQQQIB", payload, 8) == (BASE, 1, 256 * MIB, 64 << 10, 2, 1)
    assert dcd.cdat.entries[0] != before
    dcd.dynamic.configure(0, block_size=64 << 10)  # which it has
    assert host.events() == []
    dcd.dynamic.add(length=64 << 10)
    with pytest.raises(RegionInUse):
        dcd.dynamic.configure(0, block_size=2 * MIB)
    with pytest.raises(RegionInvalid):
        dcd.dynamic.configure(1, block_size=3)
    with pytest.raises(NoSuchRegion):
        dcd.dynamic.configure(2, block_size=4096)


def test_block_sizes_that_a_region_could_have():
    assert DynamicRegion(length=6 * MIB).block_sizes == sum(1 << power for power in range(6, 22))


def test_cdat(dcd, host):
    """DSMAS and DSEMTS as CDAT 1.03 lays them out; the handle is the configuration's."""
    table = host.driver.cdat()
    found: dict[int, list[bytes]] = {}
    at = 16
    while at < len(table):
        kind, length = struct.unpack_from("<BxH", table, at)
        found.setdefault(kind, []).append(table[at : at + length])
        at += length
    dsmas = [struct.unpack_from("<BB2xQQ", one, 4) for one in found[0]]
    non_volatile, shareable, managed = 1 << 2, 1 << 3, 1 << 5
    assert dsmas[2:] == [
        (2, managed, BASE, 256 * MIB),
        (3, managed | non_volatile | shareable, SHARED, 128 * MIB),
    ]
    assert [struct.unpack_from("<BB2xQQ", one, 4) for one in found[4]][2:] == [
        (2, 1, 0, 256 * MIB),
        (3, 2, 0, 128 * MIB),
    ]
    assert [one[4] for one in found[1]].count(2) == [one[4] for one in found[1]].count(3) == 4
    assert sum(table) % 256 == 0


def test_identify_and_the_log(dcd, host):
    """QEMU's Identify counts static capacity alone."""
    _, payload = host.driver.send(0x4000)
    assert struct.unpack_from("<Q", payload, 0x10) == (2,)
    assert payload[0x43:0x45] == b"\x0f\0"


def test_a_device_with_dynamic_capacity_alone(make):
    device = make(volatile=0, persistent=0, dynamic=[DynamicRegion(length=256 * MIB)])
    host = DcHost(device)
    assert host.driver.commit(0, 1 << 32, 256 * MIB)
    dvsec = host.driver.dvsec(0)
    assert host.driver.read16(7, dvsec + 0x0A) >> 4 & 3 == 1  # HDM_Count
    assert host.driver.read32(7, dvsec + 0x1C) >> 28 == 0  # no memory in range 1
    device.dynamic.add(length=256 * MIB)
    assert host.accept((0, 256 * MIB)) == SUCCESS


# -- several hosts -------------------------------------------------------------------------------------------------


@pytest.fixture
def second(make, dcd):
    """Another host of the same capacity. It has a device of its own to speak to, whose commands are the first's."""
    other = make(dynamic=dcd.dynamic.regions)
    for opcode in (0x4800, 0x4801, 0x4802, 0x4803):
        del other.cci.handlers[opcode]
    other.cci.add([dcd.dynamic.connect(1, other.events, 4096)])
    return DcHost(other)


def test_shared_access(dcd, host, second):
    dcd.dynamic.add(region=1, length=4 * MIB, tag=TAG)
    assert host.accept((SHARED, 4 * MIB)) == SUCCESS
    dcd.space.write(SHARED, b"ours")
    with pytest.raises(TagInvalid, match="host 0 has or was offered"):
        dcd.dynamic.add(region=1, selection=Selection.SHARED, tag=TAG)
    with pytest.raises(TagInvalid, match="in use"):
        dcd.dynamic.add(region=1, length=MIB, tag=TAG, host=1)
    dcd.dynamic.add(region=1, selection=Selection.SHARED, tag=TAG, host=1)
    (use,) = dcd.dynamic.tags
    assert (use.tag, use.hosts, use.pending, use.referenced) == (TAG, (0,), (1,), False)
    assert [one.extent for one in second.events()] == host.extents()
    assert second.accept((SHARED, 4 * MIB)) == SUCCESS
    assert second.extents() == host.extents()
    dcd.dynamic.release(tag=TAG, forced=True, sanitize=True)
    assert host.extents() == []
    assert len(second.extents()) == 1
    assert dcd.space.read(SHARED, 4) == b"ours"  # somebody has it
    assert dcd.dynamic.free(1)[0] == (SHARED + 4 * MIB, SHARED + 128 * MIB)
    assert second.release((SHARED, 4 * MIB)) == SUCCESS
    assert dcd.space.read(SHARED, 4) == bytes(4)
    assert dcd.dynamic.tags == []


def test_a_reference_keeps_what_nobody_has(dcd, host, second):
    with pytest.raises(TagInvalid):
        dcd.dynamic.refer(TAG)
    dcd.dynamic.configure(1, sanitize_on_release=True)
    dcd.dynamic.add(region=1, length=4 * MIB, tag=TAG)
    assert host.accept((SHARED, 4 * MIB)) == SUCCESS
    dcd.dynamic.refer(TAG)
    dcd.space.write(SHARED, b"kept")
    assert host.release((SHARED, 4 * MIB)) == SUCCESS
    (use,) = dcd.dynamic.tags
    assert (use.hosts, use.pending, use.referenced) == ((), (), True)
    assert dcd.dynamic.free(1)[0][0] == SHARED + 4 * MIB
    assert dcd.space.read(SHARED, 4) == b"kept"
    dcd.dynamic.add(region=1, selection=Selection.SHARED, tag=TAG, host=1)
    dcd.dynamic.forget(TAG)
    assert second.accept((SHARED, 4 * MIB)) == SUCCESS
    assert dcd.space.read(SHARED, 4) == b"kept"
    dcd.dynamic.refer(TAG)
    assert second.release((SHARED, 4 * MIB)) == SUCCESS
    dcd.dynamic.forget(TAG)
    assert dcd.space.read(SHARED, 4) == bytes(4)
    assert dcd.dynamic.free(1) == [(SHARED, SHARED + 128 * MIB)]
    with pytest.raises(TagInvalid, match="no reference"):
        dcd.dynamic.forget(TAG)


def test_capacity_that_is_not_shared_has_one_host(dcd, host, second):
    dcd.dynamic.add(length=4 * MIB, tag=TAG)
    with pytest.raises(TagInvalid, match="not of a sharable region"):
        dcd.dynamic.add(selection=Selection.SHARED, tag=TAG, host=1)
    with pytest.raises(TagInvalid, match="not of a sharable region"):
        dcd.dynamic.refer(TAG)
    dcd.dynamic.add(length=4 * MIB, host=1)
    assert second.accept((BASE, 4 * MIB)) == ADDRESS
    assert second.accept((BASE + 4 * MIB, 4 * MIB)) == SUCCESS
    assert host.accept((BASE, 4 * MIB)) == SUCCESS
    assert spans(second.extents()) == [(4 * MIB, 4 * MIB)]


def test_an_answer_to_a_later_offer_passes_over_those_that_have_ended(dcd, host, clock):
    """A host that takes the second has nothing more to say of the first: its next answer is for the third."""
    dcd.dynamic.add(length=2 * MIB, timeout=10)
    dcd.dynamic.add(length=4 * MIB)
    clock.advance(10)
    assert host.accept((BASE + 2 * MIB, 4 * MIB)) == SUCCESS
    third = dcd.dynamic.add(length=2 * MIB)
    assert host.accept() == SUCCESS
    assert third.state.value == "answered"


def test_an_offer_that_the_host_never_heard_of_leaves_no_trace(make, clock):
    device = make(event_log_depth=1, dynamic=[DynamicRegion(length=64 * MIB)])
    host = DcHost(device)
    first, second = device.dynamic.add(length=2 * MIB), device.dynamic.add(length=2 * MIB)
    device.dynamic.release(extents=[(BASE + 2 * MIB, 2 * MIB)], forced=True)
    assert (first.state.value, second.state.value) == ("offered", "withdrawn")
    third = device.dynamic.add(length=2 * MIB)
    assert host.accept() == SUCCESS
    assert third.state.value == "queued"
    assert len(host.events()) == 1
    assert third.state.value == "offered"
    assert host.accept() == SUCCESS
    assert third.state.value == "answered"
