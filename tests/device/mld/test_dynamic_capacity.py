"""Dynamic capacity of a multi-logical device: host IDs are LD IDs, the commands are the pool's (layouts of libcxlmi's
api-types.h), and the bytes are one medium's."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.shared import SharedCapacity
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.dynamic.dc_host import DcHost
from tests.device.mld.conftest import GIB, MIB, Door, Make

SUCCESS, INPUT, UNSUPPORTED = 0, 2, 3
TAG = bytes(range(16))
REGIONS = (DynamicRegion(length=256 * MIB), DynamicRegion(length=256 * MIB, sharable=True))
BASE, SHARABLE = 6 * GIB, 6 * GIB + 256 * MIB
"""After 4 GiB of volatile and 2 GiB of persistent memory, whoever has them."""
FREE, SHARED = 0, 3


def add(door: Door, host: int, policy: int = FREE, region: int = 1, length: int = 2 * MIB) -> int:
    return door.send(0x5604, struct.pack("<HBBQ16s", host, policy, region, length, TAG))[0]


def capacity(pool: MultiLogicalDevice) -> SharedCapacity:
    assert pool.dynamic is not None
    return pool.dynamic


@pytest.fixture
def pool(make: Make) -> MultiLogicalDevice:
    return make(dynamic=REGIONS, logical_devices=[GIB, (GIB, GIB), 0, 0])


@pytest.fixture
def door(pool: MultiLogicalDevice) -> Door:
    return Door(pool.management)


def test_the_pool_has_the_commands_and_nobody_else(pool: MultiLogicalDevice, door: Door) -> None:
    code, payload = door.send(0x5600)
    assert code == SUCCESS
    assert struct.unpack_from("<BB2xH2xHBxQ", payload) == (4, 2, 0b111, 0b11, 0b11, 2)
    assert Door(pool.logical[0].management).send(0x5600) == (UNSUPPORTED, b"")  # type: ignore[arg-type]


def test_a_pool_without_it_has_no_such_commands(make: Make) -> None:
    assert Door(make().management).send(0x5600) == (UNSUPPORTED, b"")


def test_hosts_are_logical_devices_with_memory_of_their_own_or_without(door: Door) -> None:
    for host, code in ((0, SUCCESS), (1, SUCCESS), (2, SUCCESS), (3, SUCCESS), (4, INPUT), (0xFFFF, INPUT)):
        answer, payload = door.send(0x5601, struct.pack("<HBB", host, 8, 0))
        assert answer == code
        if payload:
            bases = [struct.unpack_from("<Q", payload, 4 + 40 * at)[0] for at in (0, 1)]
            assert (payload[:4], bases) == (struct.pack("<HBB", host, 2, 2), [BASE, SHARABLE])


def test_a_device_with_nothing_else(make: Make) -> None:
    """All of its memory comes and goes: device addresses begin with it, and no allocation is needed."""
    pool = make(volatile=0, persistent=0, logical_devices=[0, 0], dynamic=[DynamicRegion(length=GIB)])
    assert (sorted(pool.logical), pool.logical[1].capacity.total, capacity(pool).start) == ([0, 1], 0, 0)
    assert (
        Door(pool.management).send(0x5604, struct.pack("<HBBQ16s", 1, FREE, 0, 256 * MIB, bytes(16)))[0]
        == SUCCESS
    )
    host = DcHost(pool.logical[1])
    assert host.accept((0, 256 * MIB)) == SUCCESS
    pool.logical[1].space.write(0, b"bytes")
    assert Driver(pool.logical[1]).commit(0, 1 << 32, 256 * MIB)
    assert Driver(pool.logical[1]).send(0x4000)[1][16:40] == bytes(24)


def test_two_of_them_have_one_extent(pool: MultiLogicalDevice, door: Door) -> None:
    zero, one = (DcHost(pool.logical[ld]) for ld in (0, 1))
    assert add(door, 0) == SUCCESS
    assert zero.accept((SHARABLE, 2 * MIB)) == SUCCESS
    assert add(door, 1, SHARED) == SUCCESS
    assert one.accept((SHARABLE, 2 * MIB)) == SUCCESS
    pool.logical[0].space.write(SHARABLE, b"one for all")
    assert pool.logical[1].space.read(SHARABLE, 11) == b"one for all"
    _, payload = door.send(0x5608, struct.pack("<II", 0, 9))
    assert payload[16:32] == TAG
    assert payload[36] == 0b11  # who has it: LD 0 and LD 1


def test_the_fabric_manager_is_told(pool: MultiLogicalDevice, door: Door) -> None:
    """Add Capacity Response (4) and Capacity Released (5), with the host ID, in the fabric manager's own log."""
    assert add(door, 1) == SUCCESS
    host = DcHost(pool.logical[1])
    assert host.accept((SHARABLE, 2 * MIB)) == SUCCESS
    assert host.release((SHARABLE, 2 * MIB)) == SUCCESS
    code, payload = door.send(0x0100, b"\4")
    assert (code, struct.unpack_from("<H", payload, 0x14)) == (SUCCESS, (2,))
    records = [payload[0x20 + 0x80 * at :][:0x80] for at in (0, 1)]
    assert [(one[0x30], *struct.unpack_from("<H", one, 0x32)) for one in records] == [(4, 1), (5, 1)]
    assert {struct.unpack_from("<QQ16s", one, 0x38) for one in records} == {(SHARABLE, 2 * MIB, TAG)}


def test_an_allocation_that_changes_takes_the_extents(pool: MultiLogicalDevice, door: Door) -> None:
    for ld in (0, 1):
        assert add(door, ld, SHARED if ld else FREE) == SUCCESS
        assert DcHost(pool.logical[ld]).accept((SHARABLE, 2 * MIB)) == SUCCESS
    pool.logical[0].space.write(SHARABLE, b"kept")
    pool.allocate({1: 512 * MIB, 2: 512 * MIB, 0: 0})
    assert {host: one.accepted for host, one in capacity(pool).hosts.items()} == dict.fromkeys(range(4), ())
    assert capacity(pool).tags == []
    assert add(door, 2) == SUCCESS
    assert DcHost(pool.logical[2]).accept((SHARABLE, 2 * MIB)) == SUCCESS


@pytest.mark.parametrize(
    ("policy", "left", "bytes_"), [("keep", 1, b"mark"), ("clear", 0, b"mark"), ("erase", 0, bytes(4))]
)
def test_what_unbinding_leaves(make: Make, policy: str, left: int, bytes_: bytes) -> None:
    """A volatile extent goes with the power; what nobody has any more is erased where the policy says so."""
    pool = make(dynamic=REGIONS, logical_devices=[GIB], on_unbind=policy)
    device = pool.logical[0]
    device.bind("somewhere")
    assert add(Door(pool.management), 0) == SUCCESS
    assert DcHost(device).accept((SHARABLE, 2 * MIB)) == SUCCESS
    device.space.write(SHARABLE, b"mark")
    device.unbind()
    assert len(capacity(pool).hosts[0].accepted) == left
    assert capacity(pool).medium.read(256 * MIB, 4) == bytes_


def test_the_power_of_all(pool: MultiLogicalDevice, door: Door) -> None:
    assert add(door, 0) == SUCCESS
    assert DcHost(pool.logical[0]).accept((SHARABLE, 2 * MIB)) == SUCCESS
    pool.logical[0].space.write(SHARABLE, b"mark")
    assert door.send(0x5606, TAG) == (SUCCESS, b"")
    pool.logical[1].reset(Reset.COLD)
    assert capacity(pool).hosts[0].accepted != ()
    pool.reset(Reset.COLD)
    assert capacity(pool).tags == []
    assert capacity(pool).medium.read(256 * MIB, 4) == bytes(4)


def test_what_is_not_volatile_is_found_again(tmp_path: Path) -> None:
    regions = (
        DynamicRegion(length=256 * MIB),
        DynamicRegion(length=256 * MIB, sharable=True, non_volatile=True),
    )
    for run in range(2):
        pool = MultiLogicalDevice(
            "pool",
            volatile=GIB,
            logical_devices=[GIB, 0],
            dynamic=regions,
            state=tmp_path / "pool.state",
            folder=tmp_path,
            clock=ManualClock(),
        )
        device = pool.logical[0]
        if not run:
            assert add(Door(pool.management), 0) == SUCCESS
            assert DcHost(device).accept((GIB + 256 * MIB, 2 * MIB)) == SUCCESS
            device.space.write(GIB, b"gone")
            device.space.write(GIB + 256 * MIB, b"kept")
        assert [(one.start, one.length) for one in capacity(pool).hosts[0].accepted] == [
            (GIB + 256 * MIB, 2 * MIB)
        ]
        assert [one.tag for one in capacity(pool).tags] == [UUID(bytes=TAG)]
        assert device.space.read(GIB + 256 * MIB, 4) == b"kept"
        assert device.space.read(GIB, 4) == (bytes(4) if run else b"gone")
        pool.close()
