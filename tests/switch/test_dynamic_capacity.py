"""Accesses to dynamic capacity: only what the host has accepted answers (CXL 3.1 §9.13.3), in every routed access."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from softcxl.memory import Medium, Window
from softcxl.switch.errors import DecodeError, PoisonError
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from softcxl.testing.driver import Driver

MIB = 1 << 20
BASE = 1 << 34
BLOCK = 256 * MIB


def accept(device: Type3, *ranges: tuple[int, int]) -> None:
    payload = struct.pack("<I4x", len(ranges)) + b"".join(struct.pack("<QQ8x", *one) for one in ranges)
    assert Driver(device).send(0x4802, payload)[0] == 0


def release(device: Type3, *ranges: tuple[int, int]) -> None:
    payload = struct.pack("<I4x", len(ranges)) + b"".join(struct.pack("<QQ8x", *one) for one in ranges)
    assert Driver(device).send(0x4803, payload)[0] == 0


def machine_of(devices: list[Type3], size: int, stack: ExitStack) -> HostMachine:
    """Each device behind a bridge of its own, all of them interleaved at 256 bytes in one window."""
    bridges = [HostBridge(f"hb{at}", 1, uid=at) for at in range(len(devices))]
    for bridge, device in zip(bridges, devices, strict=True):
        stack.callback(device.close)
        bridge.ports[0].plug(device)
    medium = Medium.memfd("window", size)
    stack.callback(medium.close)
    machine = HostMachine(bridges, [CxlWindow(Window(BASE, size, medium), tuple(bridges))])
    for bridge, device in zip(bridges, devices, strict=True):
        assert bridge.decoders is not None
        bridge.decoders.program(0, hpa=BASE, size=size, targets=[0])
        device.decoders.program(0, hpa=BASE, size=size, ways=len(devices), granularity=256)
        device.dvsec.control.mem_enable = True
    return machine


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_only_accepted_extents_answer(stack: ExitStack) -> None:
    device = Type3("mem0", volatile=BLOCK, dynamic=[DynamicRegion(length=BLOCK)])
    machine = machine_of([device], 2 * BLOCK, stack)
    dynamic = BASE + BLOCK
    machine.store(dynamic - 4, b"here")  # static capacity, to its last byte
    device.dynamic.add(length=4 * MIB)
    for access in (lambda: machine.load(dynamic, 4), lambda: machine.store(dynamic, b"data")):
        with pytest.raises(
            DecodeError, match="mem0: DPA 0x10000000 is dynamic capacity that the host has not"
        ):
            access()
    accept(device, (BLOCK, 4 * MIB))
    machine.store(dynamic, b"data")
    assert machine.load(dynamic - 4, 8) == b"heredata"
    assert device.space.read(BLOCK, 4) == b"data"
    machine.store(dynamic + 4 * MIB - 4, b"last")
    with pytest.raises(DecodeError):
        machine.store(dynamic + 4 * MIB - 2, b"st, and more")
    assert machine.load(dynamic + 4 * MIB - 4, 4) == b"last"
    release(device, (BLOCK, 2 * MIB))
    with pytest.raises(DecodeError):
        machine.load(dynamic, 1)
    assert machine.load(dynamic + 4 * MIB - 4, 4) == b"last"
    device.dynamic.release(extents=[(BLOCK + 2 * MIB, 2 * MIB)], forced=True)
    with pytest.raises(DecodeError):
        machine.load(dynamic + 4 * MIB - 4, 4)


def test_between_length_and_decode_length_nothing_answers(stack: ExitStack) -> None:
    device = Type3("mem0", dynamic=[DynamicRegion(length=64 * MIB)])
    machine = machine_of([device], BLOCK, stack)
    device.dynamic.add(length=64 * MIB)
    accept(device, (0, 64 * MIB))
    machine.store(BASE + 64 * MIB - 1, b"x")
    with pytest.raises(DecodeError):
        machine.load(BASE + 64 * MIB, 1)


def test_read_only_regions(stack: ExitStack) -> None:
    device = Type3("mem0", dynamic=[DynamicRegion(length=BLOCK, read_only=True)])
    machine = machine_of([device], BLOCK, stack)
    device.dynamic.add(length=BLOCK)
    accept(device, (0, BLOCK))
    assert machine.load(BASE, 4) == bytes(4)
    with pytest.raises(DecodeError, match="read-only"):
        machine.store(BASE, b"data")
    assert device.space.read(0, 4) == bytes(4)


def test_poison_in_an_extent(stack: ExitStack) -> None:
    device = Type3("mem0", dynamic=[DynamicRegion(length=BLOCK, sanitize_on_release=True)])
    machine = machine_of([device], BLOCK, stack)
    device.inject_poison(0x40)
    assert machine.poisoned(BASE, BLOCK) == [BASE + 0x40]
    with pytest.raises(DecodeError):
        machine.load(BASE + 0x40, 1)  # not accepted: that comes first
    for expected in (PoisonError, None):
        device.dynamic.add(length=2 * MIB)
        accept(device, (0, 2 * MIB))
        if expected:
            with pytest.raises(expected):
                machine.load(BASE + 0x40, 1)
        else:
            assert machine.load(BASE + 0x40, 1) == b"\0"
        release(device, (0, 2 * MIB))


def test_an_interleaved_region_needs_the_extents_of_all(stack: ExitStack) -> None:
    devices = [Type3(f"mem{at}", serial=at + 1, dynamic=[DynamicRegion(length=BLOCK)]) for at in range(2)]
    machine = machine_of(devices, 2 * BLOCK, stack)
    for device in devices:
        device.dynamic.add(length=2 * MIB)
    accept(devices[0], (0, 2 * MIB))
    machine.store(BASE, b"a" * 256)
    with pytest.raises(DecodeError, match="mem1"):
        machine.store(BASE, b"b" * 512)
    accept(devices[1], (0, 2 * MIB))
    machine.store(BASE, b"c" * 512)
    assert [device.space.read(0, 256) for device in devices] == [b"c" * 256] * 2
    with pytest.raises(DecodeError):
        machine.load(BASE + 4 * MIB, 1)


def test_there_is_no_view_of_what_may_leave(stack: ExitStack) -> None:
    device = Type3("mem0", volatile=BLOCK, dynamic=[DynamicRegion(length=BLOCK)])
    machine = machine_of([device], 2 * BLOCK, stack)
    device.dynamic.add(length=BLOCK)
    accept(device, (BLOCK, BLOCK))
    assert machine.view(BASE + BLOCK, 256) is None
