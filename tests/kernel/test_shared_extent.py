"""Two guests have the same extent of dynamic capacity: what one stores the other loads.

Linux has no driver for dynamic capacity: `softcxl-extents` (src/softcxl/lab/inside/extents.c says what it does and what
the kernel) answers offers in each guest. The first one's kernel has raw commands; the second's is the distribution's,
where the program goes by the secondary mailbox. A fabric manager's commands give out and take back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from uuid import UUID

import pytest

from softcxl import Fabric, boot
from softcxl.device.dynamic.shared import SharedCapacity
from softcxl.lab.boot import Machine
from softcxl.lab.parts import Kernel, Parts
from tests.kernel.conftest import MOVABLE
from tests.kernel.traces import until

TOPOLOGY = """
devices:
  pool:
    type: mld
    volatile: 512MiB
    logical_devices: [256MiB, 256MiB]
    dynamic: [{length: 256MiB, flags: [sharable, sanitize-on-release]}]
    secondary_mailbox: true
hosts:
  a:
    bridges: {hb: {ports: [null]}}
    windows: [{size: 256MiB, targets: [hb]}, {size: 256MiB, targets: [hb], shared: pool}]
  b:
    bridges: {hb: {ports: [null]}}
    windows: [{size: 256MiB, targets: [hb]}, {size: 256MiB, targets: [hb], shared: pool}]
"""
MIB = 1 << 20
WINDOW = 5 << 30
"""Where the shared window is: at the first multiple of 1 GiB above the other one, which begins at 4 GiB."""
TAG = UUID("00112233-4455-6677-8899-aabbccddeeff")
FREE, SHARED = 0, 3
BY_TAG, FORCED = 0, 1 << 4
RELAXED = ["iomem=relaxed"]
"""Lets a program at the registers of a device that has a driver."""


class Guest:
    """A guest with a logical device, and its program for extents."""

    def __init__(self, machine: Machine, device: str) -> None:
        self.machine = machine
        machine.hot_add(device)
        machine.output("until cxl list -M | grep -q mem0; do usleep 50000; done", timeout=180)

    def extents(self, words: str, status: int = 0) -> str:
        done = self.machine.run(f"softcxl-extents mem0 decoder0.1 {words}")
        assert done.status == status, done.stderr.decode()
        return done.text


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY) as fabric:
        yield fabric


@pytest.fixture(scope="module")
def pool(fabric: Fabric) -> SharedCapacity:
    pool = fabric.mlds["pool"].dynamic
    assert pool is not None
    return pool


@pytest.fixture(scope="module")
def guests(fabric: Fabric, parts: Parts, own_kernel: Kernel) -> Iterator[list[Guest]]:
    with ExitStack() as stack:
        own = stack.enter_context(boot(fabric, "a", parts=replace(parts, kernel=own_kernel), append=MOVABLE))
        stock = stack.enter_context(boot(fabric, "b", parts=parts, append=[*MOVABLE, *RELAXED]))
        yield [Guest(own, "pool.0"), Guest(stock, "pool.1")]


class Manager:
    """A fabric manager at the pool's command interface; layouts of libcxlmi's api-types.h."""

    def __init__(self, fabric: Fabric) -> None:
        self._pool = fabric.mlds["pool"]
        self._door = self._pool.management(lambda notification: None)

    def send(self, opcode: int, payload: bytes) -> int:
        with self._pool.lock:
            return int(self._door.execute(opcode, payload).code)

    def add(self, host: int, policy: int, length: int = 0) -> int:
        return self.send(0x5604, struct.pack("<HBBQ16sI", host, policy, 0, length, TAG.bytes, 0))

    def release(self, host: int, length: int, flags: int = BY_TAG) -> int:
        return self.send(0x5605, struct.pack("<HBxQ16sI", host, flags, length, TAG.bytes, 0))


@pytest.fixture
def manager(fabric: Fabric) -> Manager:
    return Manager(fabric)


def line(before: str = "", length: int = 4 * MIB) -> str:
    return f"{before}{WINDOW:#x} {length:#x} {TAG} 0\n"


def test_what_one_stores_the_other_loads(guests: list[Guest], manager: Manager, pool: SharedCapacity) -> None:
    one, other = guests
    assert manager.add(0, FREE, 4 * MIB) == 0
    assert one.extents("answer") == line("took ")
    one.extents(f"write {TAG} 4096 'from the first'")
    assert (
        "no extent"
        in other.machine.run(f"softcxl-extents mem0 decoder0.1 read {TAG} 4096 14").stderr.decode()
    )
    assert manager.add(1, SHARED) == 0
    assert other.extents("list") == ""
    assert other.extents("answer 10") == line("took ")
    assert one.extents("list") == other.extents("list") == line()
    assert other.extents(f"read {TAG} 4096 14") == "from the first\n"
    other.extents(f"write {TAG} 4101 'the other'")
    assert one.extents(f"read {TAG} 4096 14") == "from the other\n"
    one.machine.output(f"softcxl-memory fill /dev/mem {WINDOW + MIB:#x} {MIB:#x} 7")
    other.machine.output(f"softcxl-memory check /dev/mem {WINDOW + MIB:#x} {MIB:#x} 7")
    assert pool.medium.read(4096, 14) == b"from the other"
    assert [one.hosts for one in pool.tags] == [(0, 1)]


def test_a_release_takes_it_away_from_one(
    guests: list[Guest], manager: Manager, pool: SharedCapacity
) -> None:
    one, other = guests
    assert manager.release(1, 4 * MIB) == 0
    assert other.extents("list") == line()  # until it gives it back
    assert other.extents("answer") == line("gave ")
    assert other.extents("list") == ""
    assert (
        "no extent"
        in other.machine.run(f"softcxl-extents mem0 decoder0.1 read {TAG} 4096 14").stderr.decode()
    )
    assert one.extents(f"read {TAG} 4096 4") == "from\n"
    assert [one.hosts for one in pool.tags] == [(0,)]


def test_by_force_it_is_gone_at_once(
    guests: list[Guest], manager: Manager, pool: SharedCapacity, fabric: Fabric
) -> None:
    """The last one has lost it, so it is erased: its region sanitizes on release. Its decoder is free then."""
    one, _ = guests
    assert [one.dpa for one in fabric.devices["pool.0"].decoders.mappings] == [pool.start]
    assert manager.release(0, 4 * MIB, FORCED) == 0
    assert one.extents("list") == ""
    assert one.extents("answer") == line("lost ")
    assert pool.tags == []
    assert fabric.devices["pool.0"].decoders.mappings == []
    assert pool.medium.read(4096, 14) == bytes(14)
    one.extents(f"read {TAG} 4096 4", status=1)


def test_a_program_that_waits(guests: list[Guest], manager: Manager) -> None:
    one, _ = guests
    one.machine.output("softcxl-extents mem0 decoder0.1 answer 30 > /tmp/answer 2>&1 &")
    assert manager.add(0, FREE, 2 * MIB) == 0
    said = until(lambda: one.machine.output("cat /tmp/answer"), lambda text: text.endswith("\n"))
    assert said == line("took ", 2 * MIB)
    assert one.extents(f"release {TAG}") == line("gave ", 2 * MIB)
    assert one.extents("answer 0", status=1) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mem0 decoder0.1", "usage: DEVICE WINDOW"),
        ("mem0 decoder0.1 take", "neither answer, list"),
        ("mem0 decoder9.9 list", "there is no such window"),
        ("mem9 decoder0.1 list", "cannot be read"),
        (f"mem0 decoder0.1 read {TAG} x 1", "not a number"),
    ],
)
def test_wrong_words(guests: list[Guest], words: str, said: str) -> None:
    for guest in guests:
        done = guest.machine.run(f"softcxl-extents {words}")
        assert (done.status, said in done.stderr.decode()) == (2, True)


def test_beside_a_region_of_the_kernels(guests: list[Guest], manager: Manager, fabric: Fabric) -> None:
    """Its own memory is decoder 0's, and goes again; the extent is decoder 1's meanwhile."""
    for host, guest in enumerate(guests):
        made = json.loads(guest.machine.output("cxl create-region -t ram -d decoder0.0 -m mem0"))
        assert manager.add(host, FREE, 2 * MIB) == 0
        assert guest.extents("answer") == line("took ", 2 * MIB)
        mappings = fabric.devices[f"pool.{host}"].decoders.mappings
        assert [(one.decoder, one.hpa, one.dpa) for one in mappings] == [
            (0, WINDOW - (1 << 30), 0),
            (1, WINDOW, 512 * MIB),
        ]
        guest.extents(f"write {TAG} {host} {host}")
        assert guest.extents(f"release {TAG}") == line("gave ", 2 * MIB)
        guest.machine.output(f"cxl destroy-region -f {made['region']}")
        assert fabric.devices[f"pool.{host}"].decoders.mappings == []


def test_another_window_does_not_show_it(
    guests: list[Guest], manager: Manager, fabric: Fabric, caplog: pytest.LogCaptureFixture
) -> None:
    """The decoder that shows the pool is in use; a device that comes anew has none, and is refused elsewhere."""
    machine = guests[0].machine
    machine.hot_remove("pool.0")
    machine.output("until ! cxl list -M | grep -q mem0; do usleep 50000; done", timeout=180)
    guest = Guest(machine, "pool.0")
    assert manager.add(0, FREE, 2 * MIB) == 0
    done = machine.run("softcxl-extents mem0 decoder0.0 answer")
    assert (done.status, "the fabric's log says why" in done.stderr.decode()) == (2, True)
    refusal = fabric.devices["pool.0"].decoders.refusals[-1]
    assert "memory that other devices have, too" in refusal
    assert "only a window of that memory shows it" in refusal
    assert any("pool.0" in one.message and one.levelname == "WARNING" for one in caplog.records)
    assert guest.extents("answer") == line("took ", 2 * MIB)
    assert guest.extents(f"release {TAG}") == line("gave ", 2 * MIB)
