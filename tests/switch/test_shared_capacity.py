"""Two hosts, each with a logical device of its own, over one pool of dynamic capacity: stores of one are the other's
loads, for as long as both have the extent; and where the bytes may not go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.device.dynamic.shared import SharedCapacity
from softcxl.memory import Medium, Window
from softcxl.memory.errors import SharedStays
from softcxl.memory.interleave import Interleave
from softcxl.switch.errors import DecodeError
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from tests.device.dynamic.dc_host import DcHost
from tests.device.dynamic.pool import MIB, START, Ld, pool_of

BASE = 1 << 34
UNIT = 256 * MIB
TAG = UUID(int=7)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def pool(stack: ExitStack) -> SharedCapacity:
    return stack.enter_context(pool_of([DynamicRegion(length=UNIT, sharable=True)], ManualClock()))


@pytest.fixture
def lds(stack: ExitStack, pool: SharedCapacity) -> list[Ld]:
    lds = [Ld(f"pool.{host}", pool, host, volatile=UNIT) for host in (0, 1)]
    for device in lds:
        stack.callback(device.close)
    return lds


@pytest.fixture
def machines(stack: ExitStack, lds: list[Ld]) -> list[HostMachine]:
    """Of each the logical device's own memory is at BASE, the pool 256 MiB above it."""
    machines = []
    for host, device in enumerate(lds):
        bridge = HostBridge("hb", 1, uid=0)
        bridge.ports[0].plug(device)
        medium = stack.enter_context(Medium.memfd(f"window{host}", 2 * UNIT))
        machines.append(HostMachine([bridge], [CxlWindow(Window(BASE, 2 * UNIT, medium), (bridge,))]))
        assert bridge.decoders is not None
        bridge.decoders.program(0, hpa=BASE, size=2 * UNIT, targets=[0])
        device.decoders.program(0, hpa=BASE, size=UNIT, ways=1, granularity=256)
        device.decoders.program(1, hpa=BASE + UNIT, size=UNIT, ways=1, granularity=256, skip=START - UNIT)
        device.dvsec.control.mem_enable = True
    return machines


def test_one_stores_and_the_other_loads(
    pool: SharedCapacity, lds: list[Ld], machines: list[HostMachine]
) -> None:
    one, other = machines
    pool.add(length=4 * MIB, tag=TAG, host=0)
    assert DcHost(lds[0]).accept((START, 4 * MIB)) == 0
    one.store(BASE + UNIT + 4096, b"from the first")
    with pytest.raises(
        DecodeError, match=r"pool\.1: DPA 0x40001000 is dynamic capacity that the host has not"
    ):
        other.load(BASE + UNIT + 4096, 14)
    pool.add(selection=Selection.SHARED, tag=TAG, host=1)
    with pytest.raises(DecodeError):
        other.store(BASE + UNIT, b"offered is not accepted")
    assert DcHost(lds[1]).accept((START, 4 * MIB)) == 0
    assert other.load(BASE + UNIT + 4096, 14) == b"from the first"
    other.store(BASE + UNIT + 4096, b"from the other")
    assert one.load(BASE + UNIT + 4096, 14) == b"from the other"
    with pytest.raises(DecodeError):
        one.load(BASE + UNIT + 4 * MIB - 8, 16)  # to its end, and no further
    pool.release(tag=TAG, host=0, forced=True)
    with pytest.raises(DecodeError):
        one.load(BASE + UNIT + 4096, 14)
    assert other.load(BASE + UNIT + 4096, 14) == b"from the other"


def test_memory_of_their_own_stays_their_own(machines: list[HostMachine]) -> None:
    one, other = machines
    one.store(BASE + UNIT - 64, b"mine")
    assert one.load(BASE + UNIT - 64, 4) == b"mine"
    assert other.load(BASE + UNIT - 64, 4) == bytes(4)


def test_there_is_no_view_of_what_others_have(lds: list[Ld], machines: list[HostMachine]) -> None:
    assert machines[0].view(BASE, 4096) is not None
    assert machines[0].view(BASE + UNIT, 4096) is None


def test_only_a_window_of_the_pool_shows_it(stack: ExitStack, pool: SharedCapacity, lds: list[Ld]) -> None:
    ordinary = Window(BASE, 2 * UNIT, stack.enter_context(Medium.memfd("ordinary", 2 * UNIT)))
    shared = [Window(BASE, UNIT, pool.medium, shared=True) for _ in lds]
    with pytest.raises(SharedStays, match="only a window of that memory shows it"):
        lds[0].space.commit(ordinary, BASE, UNIT, Interleave(), 0, START)
    with pytest.raises(SharedStays, match="is not of the memory that"):
        lds[0].space.commit(shared[0], BASE, UNIT, Interleave(), 0, 0)
    with pytest.raises(SharedStays):
        lds[0].space.commit(shared[0], BASE, UNIT, Interleave(2, 256), 0, START)
    for device, window in zip(lds, shared, strict=True):
        assert device.space.commit(window, BASE, UNIT, Interleave(), 0, START) == 0
        assert device.space.dpa_to_hpa(START + 5) == BASE + 5
    pool.medium.view()[5] = 7
    assert lds[1].space.read(START + 5, 1) == b"\7"
    lds[1].space.release(BASE)
    assert lds[1].space.commitments == ()
    assert [one.residents for one in shared] == [(), ()]


def test_a_window_shows_each_byte_at_its_place(stack: ExitStack) -> None:
    regions = [DynamicRegion(length=UNIT, sharable=True)] * 2
    pool = stack.enter_context(pool_of(regions, ManualClock()))
    device = Ld("pool.0", pool, 0, volatile=UNIT)
    stack.callback(device.close)
    window = Window(BASE, 2 * UNIT, pool.medium, shared=True)
    with pytest.raises(SharedStays):
        device.space.commit(window, BASE, UNIT, Interleave(), 0, START + UNIT)
    assert device.space.commit(window, BASE + UNIT, UNIT, Interleave(), 0, START + UNIT) == 0
