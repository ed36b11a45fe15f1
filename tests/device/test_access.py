"""The pool access device, driven by its registers alone."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.device.access import PoolAccess, Visitor
from softcxl.pci.function import Function
from softcxl.spec import pool_access as spec
from softcxl.testing.access import ECHO, GONE, GOODBYE, HELLO, UNKNOWN, FakeMemory, FakeServer
from softcxl.testing.driver import Machine
from softcxl.testing.vfio_client import Client
from softcxl.transport.vfio_user import Door
from softcxl.wire import Reset

MIB = 1 << 20
CONFIG, REGISTERS = 7, 0
INTX, MSI = 0, 1
COMMAND, STATUS = 0x04, 0x06
INTERRUPT_DISABLE, INTERRUPT_STATUS = 1 << 10, 1 << 3


class Guest:
    """Software of a guest at function 0."""

    def __init__(self, function: Function) -> None:
        self.function, self.machine = function, Machine()
        function.attach(self.machine)

    def read(self, offset: int, size: int = 4, region: int = REGISTERS) -> int:
        return int.from_bytes(self.function.read(region, offset, size), "little")

    def write(self, offset: int, value: int, size: int = 4, region: int = REGISTERS) -> None:
        self.function.write(region, offset, value.to_bytes(size, "little"))

    def ask(self, opcode: int, request: bytes = b"", slot: int = 0) -> tuple[int, bytes]:
        if request:
            self.function.write(REGISTERS, 0x100, request)
        self.write(0x4C, len(request))
        self.write(0x48, slot)
        self.write(0x40, opcode)
        result = self.read(0x44)
        assert not result & 1
        return result >> 16, self.function.read(REGISTERS, 0x100, self.read(0x4C))

    def mask(self, disabled: bool) -> None:
        """Interrupt Disable, as uio_pci_generic sets it and its user clears it: by the register's upper byte."""
        self.write(COMMAND + 1, INTERRUPT_DISABLE >> 8 if disabled else 0, 1, CONFIG)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer([3 * MIB, MIB, 5 * MIB, 4096]) as one:
        yield one


@pytest.fixture
def door(server: FakeServer) -> Iterator[PoolAccess]:
    one = PoolAccess("door")
    one.host = "alpha"
    one.serve(server)
    yield one
    one.close()


@pytest.fixture
def guest(door: PoolAccess) -> Guest:
    return Guest(door.control)


def test_who_it_is(door: PoolAccess, guest: Guest) -> None:
    assert guest.read(0, 4, CONFIG) == 0x5C01_1E98
    assert guest.read(0x3D, 1, CONFIG) == 1  # INTA
    assert guest.function.irqs() == [1, 32, 0, 0, 0]
    assert guest.function.read(REGISTERS, 0, 8) == b"SCXLDOOR"
    assert guest.read(8) == 1
    assert guest.read(0xC) == 1  # ready
    assert guest.read(0x10) == 0x0400_2004  # 1024 bytes of payload, 32 vectors, 4 memories
    assert list(door.functions) == ["door", "door.1", "door.2"]


def test_the_table_tells_where_the_memories_are(guest: Guest) -> None:
    found = [
        struct.unpack("<QI4x48s", guest.function.read(REGISTERS, 0x800 + 0x40 * at, 0x40)) for at in range(5)
    ]
    assert [one[0] for one in found] == [3 * MIB, MIB, 5 * MIB, 4096, 0]
    assert [(one[1] & 7, one[1] >> 8 & 7, one[1] >> 16) for one in found[:4]] == [
        (1, 0, 0),
        (1, 2, 1),
        (1, 4, 2),
        (2, 0, 3),
    ]
    assert [one[2].rstrip(b"\0") for one in found] == [b"arena", b"source1", b"source2", b"source3", b""]


def test_memories_are_prefetchable_bars_of_the_next_power_of_two(door: PoolAccess) -> None:
    first, second = door.windows
    assert [region.size if region else 0 for region in first.regions()[:6]] == [
        4 * MIB,
        0,
        MIB,
        0,
        8 * MIB,
        0,
    ]
    regions = [one for one in first.regions()[:6] if one]
    assert [one.mappable for one in regions] == [((0, 3 * MIB),), ((0, MIB),), ((0, 5 * MIB),)]
    assert second.regions()[2] is None
    low = int.from_bytes(first.read(CONFIG, 0x10, 4), "little")
    assert low & 0xF == 0b1100  # memory, 64 bits, prefetchable
    assert first.irqs() == [0, 0, 0, 0, 0]


def test_what_is_not_mapped_is_read_and_written_all_the_same(server: FakeServer, door: PoolAccess) -> None:
    window = door.windows[0]
    window.write(0, 4096, b"from the guest")
    assert server.memory[4096 : 4096 + 14] == b"from the guest"
    server.memory[3 * MIB - 4 :] = b"last"
    assert window.read(0, 3 * MIB - 4, 8) == b"last\0\0\0\0"
    window.write(0, 3 * MIB, b"nowhere")
    assert os.fstat(server.memories()[0].fd).st_size == 3 * MIB


def test_a_guest_maps_the_memory_by_its_door(tmp_path: Path) -> None:
    with FakeServer([3 * MIB], start=8192) as server:
        access = PoolAccess("door")
        access.serve(server)
        with Door(access.windows[0], tmp_path / "s"), Client(tmp_path / "s") as client:
            client.negotiate()
            told = client.region_info(0)
            assert (told.info.size, told.areas, told.info.offset) == (4 * MIB, ((0, 3 * MIB),), 8192)
            assert told.fd is not None
            with mmap.mmap(told.fd, 3 * MIB, offset=told.info.offset) as mapped:
                mapped[100:104] = b"full"
            os.close(told.fd)
            assert server.memory[100:104] == b"full"
        access.close()


def test_resets_and_removals_leave_the_memory_alone(server: FakeServer, door: PoolAccess) -> None:
    server.memory[:5] = b"bytes"
    window = door.windows[0]
    window.reset(Reset.COLD)
    window.silence()
    assert window.read(0, 0, 2) == b"\xff\xff"
    window.wake()
    assert server.memory[:5] == b"bytes"
    assert window.read(0, 0, 5) == b"bytes"


# -- commands --------------------------------------------------------------------------------------------------------


def test_programs_connect_and_leave(server: FakeServer, guest: Guest) -> None:
    assert [guest.ask(HELLO) for _ in range(2)] == [(0, b"\1\0\0\0"), (0, b"\2\0\0\0")]
    assert server.slots == {1: Visitor("door", "alpha"), 2: Visitor("door", "alpha")}
    assert guest.ask(GOODBYE, slot=1) == (0, b"")
    assert list(server.slots) == [2]
    assert guest.ask(GOODBYE, slot=1) == (GONE, b"slot 1 is not yours")


def test_a_request_fills_the_payload(guest: Guest) -> None:
    whole = bytes(range(256)) * 4
    assert guest.ask(ECHO, whole) == (0, whole)
    assert guest.ask(77) == (UNKNOWN, b"there is no opcode 77")


def test_a_request_that_is_too_long_is_refused(guest: Guest) -> None:
    guest.write(0x4C, 1025)
    guest.write(0x40, ECHO)
    assert guest.read(0x44) == 1 << 16
    assert b"1025 bytes; 1024 are the most" in guest.function.read(REGISTERS, 0x100, guest.read(0x4C))


def test_nobody_behind_it() -> None:
    door = PoolAccess("door")
    guest = Guest(door.control)
    assert guest.read(0xC) == 0
    assert guest.ask(HELLO) == (9, b"no server is behind the device")
    guest.write(0x20, 8)  # rings nowhere


def test_a_server_that_fails(guest: Guest, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tuple[int, bytes]:
        raise RuntimeError("not meant to happen")

    monkeypatch.setattr(server, "ask", fail)
    assert guest.ask(HELLO) == (10, b"the pool's server failed")


@pytest.mark.parametrize("how", ["detach", "reset"])
def test_a_guest_that_goes_takes_its_programs_along(server: FakeServer, guest: Guest, how: str) -> None:
    guest.ask(HELLO)
    if how == "detach":
        guest.function.detach()
    else:
        guest.function.reset()
    assert server.slots == {}
    assert server.left == [Visitor("door", "alpha")]
    guest.function.detach()
    assert len(server.left) == 1  # nobody had come again


def test_a_function_level_reset_takes_nothing_from_programs(server: FakeServer, guest: Guest) -> None:
    guest.ask(HELLO)
    guest.write(0x28, 1)
    express = 0x48  # behind power management
    guest.write(express + 8, 1 << 15, 2, CONFIG)
    assert guest.read(0x28) == 0
    assert list(server.slots) == [1]
    assert server.left == []


# -- interrupts ------------------------------------------------------------------------------------------------------


def test_the_doorbell_rings_a_word(server: FakeServer, guest: Guest) -> None:
    guest.write(0x20, 0x1238 // 8)
    assert server.rings == [0x1238]


def test_intx_until_the_host_has_taken_it(server: FakeServer, guest: Guest) -> None:
    server.ring(0)
    assert guest.machine.taken() == []
    assert not guest.read(STATUS, 2, CONFIG) & INTERRUPT_STATUS
    guest.write(0x28, 1 << 1)
    assert guest.read(STATUS, 2, CONFIG) & INTERRUPT_STATUS
    server.ring(64)  # another vector
    assert guest.machine.taken() == []
    server.ring(0)
    assert guest.machine.taken() == [(INTX, 0)]
    guest.read(0x2C)  # ends the interrupt in a virtual machine, which has not been taken: once more
    assert guest.machine.taken() == [(INTX, 0)]
    guest.mask(True)
    guest.read(0x2C)
    assert guest.machine.taken() == []
    server.ring(0)
    assert guest.machine.taken() == []
    guest.write(0x24, 0)
    guest.mask(False)
    assert guest.machine.taken() == [(INTX, 0)]
    guest.mask(True)
    guest.write(0x24, 0)
    guest.mask(False)
    assert guest.machine.taken() == []


def test_msi_has_a_vector_for_each_line(server: FakeServer, guest: Guest) -> None:
    msi = next(
        at
        for at in range(0x40, 0x100, 4)
        if guest.read(at, 1, CONFIG) == 5 and guest.read(at + 2, 2, CONFIG) & 0x180
    )
    assert guest.read(msi + 2, 2, CONFIG) >> 1 & 7 == 5  # asks for 32
    guest.write(msi + 2, 1 | 5 << 4, 2, CONFIG)
    guest.write(0x28, 0xFFFF_FFFF)
    for offset in (0, 8, 64, 64 * 30, 64 * 31):
        server.ring(offset)
    server.news()
    assert guest.machine.taken() == [(MSI, one) for one in (1, 1, 2, 31, 1, 0)]
    guest.write(msi + 2, 1 | 1 << 4, 2, CONFIG)  # granted two
    server.ring(64 * 30)
    assert guest.machine.taken() == [(MSI, 1)]


def test_causes_are_kept_until_cleared(server: FakeServer, guest: Guest) -> None:
    server.ring(0)
    server.news()
    assert guest.read(0x2C) == 0b11
    guest.write(0x2C, 0b01)
    assert guest.read(0x2C) == 0b10


def test_a_reset_leaves_no_interrupts(server: FakeServer, guest: Guest) -> None:
    guest.write(0x28, 0xFFFF_FFFF)
    guest.function.reset()
    server.ring(0)
    assert guest.machine.taken() == []
    assert guest.read(0x28) == 0


# -- servers ---------------------------------------------------------------------------------------------------------


def test_a_later_server_has_the_same_memories(door: PoolAccess, guest: Guest, server: FakeServer) -> None:
    door.leave()
    assert guest.read(0xC) == 0
    server.ring(0)
    assert guest.read(0x2C) == 0
    with FakeServer([3 * MIB, MIB, 5 * MIB, 4096]) as later:
        door.serve(later)
        assert guest.ask(HELLO) == (0, b"\1\0\0\0")
        door.leave()
    with FakeServer([MIB]) as other, pytest.raises(ValueError, match="mapped the memories of another server"):
        door.serve(other)


class Odd:
    def __init__(self, memories: list[FakeMemory]) -> None:
        self._memories = memories

    def memories(self) -> list[FakeMemory]:
        return self._memories


@pytest.mark.parametrize(
    ("memories", "said"),
    [
        ([], "0 memories; a slot shows at least 1 and at most 21"),
        ([FakeMemory(0, "arena", 0, 4096)] * 22, "22 memories; a slot shows at least 1 and at most 21"),
        ([FakeMemory(0, "arena", 0, 4095)], "both are multiples of 4096"),
        ([FakeMemory(0, "arena", 0, 0)], "both are multiples of 4096"),
        ([FakeMemory(0, "arena", 0, 4096, 100)], "both are multiples of 4096"),
        ([FakeMemory(0, "a" * 49, 0, 4096)], "longer than 48 bytes"),
    ],
)
def test_memories_that_cannot_be_shown(memories: list[FakeMemory], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PoolAccess("door").serve(Odd(memories))  # type: ignore[arg-type]


def test_vectors() -> None:
    assert [spec.vector_of(offset) for offset in (0, 56, 64, 64 * 30 + 63, 64 * 31)] == [1, 1, 2, 31, 1]
