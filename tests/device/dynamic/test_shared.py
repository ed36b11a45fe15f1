"""Dynamic capacity of logical devices that share one medium: whose bytes they are, and what of one host's is another's.

Layouts and return codes are those of tests/device/dynamic/dc_host.py.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.decoder import CommitError
from softcxl.device.dynamic.errors import NoSuchHost, RegionInvalid, TagInvalid
from softcxl.device.dynamic.owner import OwnerCommands
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.device.dynamic.shared import SharedCapacity, size_of
from softcxl.device.persist import StatePage
from softcxl.memory import Medium
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.poison import PoisonSource
from softcxl.wire import Reset
from tests.device.dynamic.dc_host import DcHost
from tests.device.dynamic.pool import MIB, START, Ld, pool_of

TAG = UUID("00112233-4455-6677-8899-aabbccddeeff")
SHARABLE = START + 256 * MIB
ADDRESS = 0x0F
REGIONS = (
    DynamicRegion(length=256 * MIB, sanitize_on_release=True),
    DynamicRegion(length=128 * MIB, block_size=MIB, sharable=True),
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pool(stack, clock):
    return stack.enter_context(pool_of(REGIONS, clock))


@pytest.fixture
def lds(stack, pool, clock):
    """LDs 0 and 3, of 256 and 512 MiB."""
    made = {}
    for host, size in ((0, 256 * MIB), (3, 512 * MIB)):
        made[host] = Ld(f"pool.{host}", pool, host, volatile=size, clock=clock)
        stack.callback(made[host].close)
    return made


def share(pool, lds, *, length=2 * MIB):
    """An extent from SHARABLE on that both have."""
    pool.add(region=1, length=length, tag=TAG, host=0)
    assert DcHost(lds[0]).accept((SHARABLE, length)) == 0
    pool.add(region=1, selection=Selection.SHARED, tag=TAG, host=3)
    assert DcHost(lds[3]).accept((SHARABLE, length)) == 0


def test_all_have_the_regions_at_the_same_addresses(pool, lds):
    for device in lds.values():
        code, payload = DcHost(device).configuration()
        assert code == 0
        assert [struct.unpack_from("<Q", payload, 8 + 40 * at)[0] for at in (0, 1)] == [START, SHARABLE]
        assert device.capacity.end == START + 512 * MIB
    assert lds[0].medium.size == 256 * MIB
    assert pool.hosts_supported == 4


def test_their_records_have_their_numbers(pool, lds):
    for host, device in lds.items():
        pool.add(length=2 * MIB, host=host)
        (told,) = DcHost(device).events()
        assert (told.kind, told.host) == (0, host)
    with pytest.raises(NoSuchHost, match="there are 0, 3"):
        pool.add(length=2 * MIB, host=1)


def test_shared_bytes_are_the_same_and_others_are_not(pool, lds):
    share(pool, lds)
    lds[0].space.write(SHARABLE + 5, b"seen by both")
    assert lds[3].space.read(SHARABLE + 5, 12) == b"seen by both"
    assert pool.medium.read(256 * MIB + 5, 12) == b"seen by both"
    lds[0].space.write(0, b"own")
    assert lds[3].space.read(0, 3) == bytes(3)
    lds[3].space.write(512 * MIB - 3, b"end")
    assert lds[3].space.read(512 * MIB - 3, 3) == b"end"


@pytest.mark.parametrize("at", [256 * MIB, START - 1, 256 * MIB - 1])
def test_between_its_own_memory_and_the_pool_there_is_nothing(lds, at):
    with pytest.raises(ValueError, match="it has none from 0x10000000 to 0x3fffffff"):
        lds[0].space.read(at, 2)


def test_decoders_pass_over_what_is_not_there(lds):
    program = lds[0].decoders.program
    with pytest.raises(CommitError, match="there is no memory from 0x10000000 to 0x40000000"):
        program(0, hpa=1 << 40, size=512 * MIB, ways=1, granularity=256)
    program(0, hpa=1 << 40, size=256 * MIB, ways=1, granularity=256)
    with pytest.raises(CommitError, match="do not fit"):
        program(1, hpa=2 << 40, size=512 * MIB, ways=1, granularity=256, skip=START)
    program(1, hpa=2 << 40, size=512 * MIB, ways=1, granularity=256, skip=START - 256 * MIB)
    assert [one.dpa for one in lds[0].decoders.mappings] == [0, START]


def test_the_last_one_to_leave_turns_off_the_light(pool, lds):
    """Sanitize on release waits for the last host; poison that either has noted goes with the bytes."""
    pool.configure(1, sanitize_on_release=True)
    share(pool, lds)
    lds[3].space.write(SHARABLE, b"mark")
    lds[3].inject_poison(SHARABLE, PoisonSource.INJECTED)
    assert DcHost(lds[0]).release((SHARABLE, 2 * MIB)) == 0
    assert lds[3].space.read(SHARABLE, 4) == b"mark"
    assert DcHost(lds[3]).release((SHARABLE, 2 * MIB)) == 0
    assert pool.medium.read(256 * MIB, 4) == bytes(4)
    assert not lds[3].poison.any


@pytest.mark.parametrize("kind", [Reset.FLR, Reset.HOT, Reset.COLD])
def test_a_reset_of_one_is_none_of_the_others(pool, lds, kind):
    share(pool, lds)
    pool.add(length=2 * MIB, host=0)
    pool.add(length=2 * MIB, host=3)
    lds[0].space.write(SHARABLE, b"mark")
    lds[0].reset(kind)
    assert len(pool.hosts[0].accepted) == (0 if kind is Reset.COLD else 1)
    assert len(pool.hosts[0].pending) == (0 if kind is Reset.COLD else 1)
    assert len(pool.hosts[3].accepted) == len(pool.hosts[3].pending) == 1
    assert lds[3].space.read(SHARABLE, 4) == b"mark"


def test_the_power_of_all_of_it(pool, lds):
    share(pool, lds)
    pool.refer(TAG)
    lds[0].space.write(SHARABLE, b"mark")
    pool.power_cycle()
    assert pool.tags == []
    assert pool.medium.read(256 * MIB, 4) == bytes(4)


@pytest.mark.parametrize("opcode", [0x4400, 0x4401])
def test_erasing_one_leaves_what_others_have(pool, lds, clock, opcode):
    share(pool, lds)
    pool.add(length=2 * MIB, host=0)
    pool.add(length=2 * MIB, host=3)
    assert DcHost(lds[0]).accept((START, 2 * MIB)) == 0
    assert DcHost(lds[3]).accept((START + 2 * MIB, 2 * MIB)) == 0
    marks = (0, START, START + 2 * MIB, SHARABLE)
    for at in marks:
        lds[3 if at == START + 2 * MIB else 0].space.write(at, b"mark")
    DcHost(lds[0]).driver.send(opcode)
    clock.advance(10)
    assert [lds[0].space.read(at, 4) for at in marks] == [bytes(4), bytes(4), b"mark", b"mark"]


def test_media_operations_are_for_what_the_host_has(pool, lds, clock):
    share(pool, lds)
    pool.hosts[0].set(())
    for device, code in ((lds[0], 2), (lds[3], 1)):  # Invalid Input, and begun in the background
        device.space.write(SHARABLE, b"mark")
        asked = struct.pack("<BBxxIQQ", 1, 1, 1, SHARABLE, 4096)  # zero
        assert DcHost(device).driver.send(0x4402, asked)[0] == code
        clock.advance(10)
    assert pool.medium.read(256 * MIB, 4) == bytes(4)


def test_one_that_goes_leaves_nothing(pool, lds):
    share(pool, lds)
    pool.add(length=2 * MIB, host=3)
    assert DcHost(lds[3]).accept((START, 2 * MIB)) == 0
    lds[3].space.write(START, b"mark")
    offer = pool.add(length=2 * MIB, host=3)
    pool.disconnect(3)
    pool.disconnect(3)
    assert offer.state.value == "withdrawn"
    assert pool.free(0) == [(START, SHARABLE)]
    assert pool.medium.read(0, 4) == bytes(4)
    (use,) = pool.tags
    assert use.hosts == (0,)
    assert list(pool.hosts) == [0]
    lds[3].reset(Reset.HOT)


def test_one_that_comes_anew_begins_with_nothing(stack, pool, lds, clock):
    share(pool, lds)
    again = Ld("pool.3", pool, 3, volatile=256 * MIB, clock=clock)
    stack.callback(again.close)
    assert pool.hosts[3].accepted == ()
    assert DcHost(again).accept((SHARABLE, 2 * MIB)) == ADDRESS


def test_the_owner_has_the_commands_and_no_logical_device(pool, lds):
    door = lds[0].management(lambda notification: None)
    assert door.execute(0x5600).code == 3
    info = OwnerCommands(pool, 4096).get_dcd_info()
    assert (info.host_count, info.region_count, info.total_capacity) == (4, 2, 1)


def test_a_region_that_changes_is_in_every_cdat(pool, lds):
    before = {host: device.cdat.entries for host, device in lds.items()}
    pool.configure(0, block_size=64 << 10)
    for host, device in lds.items():
        assert device.cdat.entries is not before[host]
        (told,) = DcHost(device).events()
        assert (told.kind, told.region, told.host) == (3, 0, host)


def test_persistent_extents_are_the_pools_to_keep(tmp_path, clock):
    """LD 1 finds its extents again; the page is the whole device's."""
    regions = [DynamicRegion(length=256 * MIB, sharable=True, non_volatile=True)]
    for run in range(2):
        with ExitStack() as stack:
            pool = stack.enter_context(pool_of(regions, clock, StatePage(tmp_path / "pool.state")))
            device = Ld("pool.1", pool, 1, volatile=256 * MIB, clock=clock)
            stack.callback(device.close)
            if not run:
                pool.add(length=2 * MIB, tag=TAG, host=1)
                assert DcHost(device).accept((START, 2 * MIB)) == 0
                pool.refer(TAG)
            assert DcHost(device).extents()[0][:2] == (START, 2 * MIB)
            (use,) = pool.tags
            assert (use.tag, use.hosts, use.referenced) == (TAG, (1,), True)


@pytest.mark.parametrize(
    ("regions", "start", "size", "message"),
    [
        ([], START, 256 * MIB, "one at least"),
        (REGIONS, START + MIB, 512 * MIB, "multiple of 256 MiB"),
        (REGIONS, START, 256 * MIB, "the regions take 0x20000000"),
    ],
)
def test_a_pool_that_cannot_be(clock, regions, start, size, message):
    with Medium.memfd("pool", size) as medium, pytest.raises(ValueError, match=message):
        SharedCapacity(
            regions, start=start, medium=medium, clock=clock, lock=threading.RLock(), page=StatePage(None)
        )


def test_sizes():
    assert size_of(REGIONS) == 512 * MIB
    with pytest.raises(RegionInvalid):
        size_of([DynamicRegion(length=MIB, block_size=MIB)] * 9)


def test_time_of_each(pool, lds):
    """Offers to two hosts run out by themselves."""
    first, second = pool.add(length=2 * MIB, host=0, timeout=5), pool.add(length=2 * MIB, host=3, timeout=9)
    clock = pool.clock
    assert isinstance(clock, ManualClock)
    clock.advance(5)
    assert (first.state.value, second.state.value) == ("expired", "offered")


def test_a_tag_of_one_that_has_not_come_yet_is_in_use(tmp_path, clock):
    """After a restart, before LD 1 is there: its tag and blocks are its own."""
    regions = [DynamicRegion(length=256 * MIB, sharable=True, non_volatile=True)]
    with pool_of(regions, clock, StatePage(tmp_path / "pool.state")) as pool:
        device = Ld("pool.1", pool, 1, volatile=256 * MIB, clock=clock)
        pool.add(length=2 * MIB, tag=TAG, host=1)
        assert DcHost(device).accept((START, 2 * MIB)) == 0
        device.close()
    with pool_of(regions, clock, StatePage(tmp_path / "pool.state")) as pool:
        device = Ld("pool.0", pool, 0, volatile=256 * MIB, clock=clock)
        assert [(one.tag, one.hosts) for one in pool.tags] == [(TAG, (1,))]
        with pytest.raises(TagInvalid, match="is in use"):
            pool.add(length=2 * MIB, tag=TAG, host=0)
        pool.add(selection=Selection.SHARED, tag=TAG, host=0)
        assert DcHost(device).accept((START, 2 * MIB)) == 0
        device.close()


def test_no_command_reaches_what_others_have(pool, lds):
    """Clear Poison stores a line: a host without the extent must not, nor where there is nothing."""
    share(pool, lds)
    pool.hosts[0].set(())
    lds[3].space.write(SHARABLE, b"mine")
    for at in (SHARABLE, START + 8 * MIB, 256 * MIB, 512 * MIB):
        for opcode, more in ((0x4301, b""), (0x4302, b"\xff" * 64)):  # inject, clear
            assert DcHost(lds[0]).driver.send(opcode, struct.pack("<Q", at) + more) == (ADDRESS, b"")
    assert lds[3].space.read(SHARABLE, 4) == b"mine"
    assert DcHost(lds[3]).driver.send(0x4302, struct.pack("<Q", SHARABLE) + b"\xff" * 64) == (0, b"")
    assert lds[3].space.read(SHARABLE, 4) == b"\xff" * 4


def test_a_bad_line_is_bad_for_all(stack, pool, lds, clock):
    """And is told to each; own memory is each one's own. Who comes later finds it."""
    share(pool, lds)
    lds[0].inject_poison(SHARABLE + 128)
    lds[0].inject_poison(64)
    assert [list(one.poison.map.runs(0, 1 << 40)) for one in lds.values()] == [
        [(64, 64, 2), (SHARABLE + 128, 64, 2)],
        [(SHARABLE + 128, 64, 2)],
    ]
    for device in lds.values():
        assert device.events.logs[EventLog.FAILURE].records
    later = Ld("pool.1", pool, 1, volatile=256 * MIB, clock=clock)
    stack.callback(later.close)
    assert SHARABLE + 128 in later.poison.map
    assert not later.events.logs[EventLog.FAILURE].records
    assert lds[3].clear_poison(0, 1 << 40) == 1  # whatever of its own, too
    assert [len(one.poison.map) for one in (lds[0], lds[3], later)] == [1, 0, 0]
    lds[3].poison.spoil(SHARABLE)
    lds[3].poison.met(SHARABLE, 8)  # a read notices it
    assert SHARABLE in lds[0].poison.map
