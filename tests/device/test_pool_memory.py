"""The memory device whose memory is the pool's: what it shows, and that nothing that is done to it harms the pool."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator

import pytest

from softcxl.device.access import PoolMemory, Visitor
from softcxl.device.clock import ManualClock
from softcxl.memory import Interleave, Medium, Window
from softcxl.memory.errors import SharedStays
from softcxl.testing.access import FakeServer
from softcxl.testing.driver import Driver, Machine
from softcxl.wire import Reset

MIB = 1 << 20
SUCCESS, STARTED, INVALID_INPUT, INVALID_ADDRESS = 0x00, 0x01, 0x02, 0x0F


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer([4 * MIB, 8 * MIB]) as one:
        yield one


@pytest.fixture
def device(server: FakeServer, clock: ManualClock) -> Iterator[PoolMemory]:
    one = PoolMemory("way", 4 * MIB, {"gone": 2 * MIB, "source1": 8 * MIB}, clock=clock)
    one.host = "alpha"
    one.show(server.memories())
    yield one
    one.close()


def test_the_front_tells_what_is_where(device: PoolMemory) -> None:
    head = os.pread(device.front_fd, 64, 0)
    assert head[:8] == b"SCXLPMEM"
    version, ready, size, beat, table, entries = struct.unpack_from("<IIQQII", head, 8)
    assert (version, ready, beat, entries) == (1, 0, 0, 64)
    assert size == (2 + 4 + 2 + 8) * MIB == device.needed
    assert device.capacity.volatile == 256 * MIB
    found = [os.pread(device.front_fd, 64, table + 64 * number) for number in range(3)]
    assert [struct.unpack_from("<QQ", one) for one in found] == [
        (2 * MIB, 4 * MIB),
        (8 * MIB, 8 * MIB),
        (0, 0),
    ]
    assert [one[16:].rstrip(b"\0") for one in found] == [b"arena", b"source1", b""]


def test_its_addresses_are_the_pools_memory(device: PoolMemory, server: FakeServer) -> None:
    arena, source = server.memories()
    os.pwrite(arena.fd, b"arena's", 5)
    assert device.space.read(2 * MIB + 5, 7) == b"arena's"
    device.space.write(8 * MIB + 9, b"source's")
    assert os.pread(source.fd, 8, 9) == b"source's"
    assert device.space.read(6 * MIB, 4) == bytes(4)


def test_memory_without_a_place_is_not_shown(device: PoolMemory, caplog: pytest.LogCaptureFixture) -> None:
    with FakeServer([4 * MIB, 9 * MIB, MIB]) as other, caplog.at_level(logging.WARNING):
        device.show(other.memories())
        table = os.pread(device.front_fd, 3 * 64, 0x1000)
        assert [struct.unpack_from("<QQ", table, at) for at in (0, 64, 128)] == [
            (2 * MIB, 4 * MIB),
            (0, 0),
            (0, 0),
        ]
    assert [one.getMessage() for one in caplog.records] == [
        "way: it has no room for source1, 0x900000 bytes",
        "way: it has no room for source2, 0x100000 bytes",
    ]


def test_only_its_own_window_shows_it_each_byte_at_its_place(device: PoolMemory) -> None:
    with Medium.memfd("plain", 256 * MIB) as plain:
        other = Window(1 << 32, 256 * MIB, plain)
        with pytest.raises(SharedStays):
            device.space.commit(other, 1 << 32, 256 * MIB, Interleave(1, 256), 0, 0)
    window = Window(1 << 32, 256 * MIB, device.medium, shared=True)
    with pytest.raises(SharedStays):
        device.space.commit(window, 1 << 32, 256 * MIB, Interleave(2, 256), 0, 0)
    assert device.space.commit(window, 1 << 32, 256 * MIB, Interleave(1, 256), 0, 0) == 0


def test_a_region_is_somebodys_as_long_as_it_is_decoded(device: PoolMemory) -> None:
    assert not device.decoded
    device.decoders.program(0, hpa=1 << 32, size=256 * MIB, ways=1, granularity=256)
    assert device.decoded
    device.reset(Reset.HOT)
    assert not device.decoded


@pytest.mark.parametrize("opcode", [0x4400, 0x4401])
def test_erasing_all_erases_none_of_the_pool(
    device: PoolMemory, clock: ManualClock, server: FakeServer, opcode: int
) -> None:
    arena = server.memories()[0]
    os.pwrite(arena.fd, b"kept", 0)
    assert Driver(device).send(opcode)[0] in (SUCCESS, STARTED)
    clock.advance(10)
    assert device.space.read(2 * MIB, 4) == b"kept"
    assert not device.media_disabled


def test_nor_does_a_part_or_the_loss_of_power(device: PoolMemory, server: FakeServer) -> None:
    arena, driver = server.memories()[0], Driver(device)
    os.pwrite(arena.fd, b"kept", 0)
    zeros = struct.pack("<BBxxIQQ", 1, 1, 1, 2 * MIB, 4096)
    assert driver.send(0x4402, zeros) == (INVALID_INPUT, b"")
    assert driver.send(0x4302, struct.pack("<Q64s", 2 * MIB, b"x")) == (INVALID_ADDRESS, b"")
    device.reset(Reset.COLD)
    assert os.pread(arena.fd, 4, 0) == b"kept"
    assert os.pread(device.front_fd, 8, 0) == b"SCXLPMEM"


def test_who_comes_and_goes_is_counted(device: PoolMemory) -> None:
    assert device.visitor == Visitor("way", "alpha")
    seen = [device.comings]
    device.attach(Machine())
    seen.append(device.comings)
    device.reset(Reset.FLR)
    assert device.comings == seen[-1]
    device.reset(Reset.HOT)
    seen.append(device.comings)
    device.detach()
    seen.append(device.comings)
    assert seen == sorted({*seen})
