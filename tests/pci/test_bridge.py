"""Routing through bridges by their registers, and resets of what is below them."""

from __future__ import annotations

import pytest

from softcxl.pci.bus import LogicalBus
from softcxl.pci.complex import RootComplex
from softcxl.pci.port import RootPort
from softcxl.wire import RegisterFile
from tests.pci import hierarchy as h
from tests.pci.functions import Plain

NEAR, LEFT, RIGHT = 0x41, 0x44, 0x45


@pytest.fixture
def it() -> h.Hierarchy:
    made = h.Hierarchy()
    made.number()
    return made


def test_nothing_is_below_before_buses_have_numbers() -> None:
    it = h.Hierarchy()
    assert it.read(h.ROOT, 0, 0, 4) == 0x0001ABCD
    assert it.read(h.ROOT, 3, 0, 4) == 0xFFFF_FFFF
    assert it.read(0x41, 0, 0, 4) == 0xFFFF_FFFF
    assert it.read(0x80, 0, 0, 4) == 0xFFFF_FFFF
    assert it.read(0x3F, 0, 0, 4) == 0xFFFF_FFFF


def test_a_bridge_shows_header_type_1_and_its_class(it: h.Hierarchy) -> None:
    assert it.read(h.ROOT, 0, 0x0E, 1) == 1
    assert it.read(h.ROOT, 0, 0x09, 4) & 0xFFFFFF == 0x060400
    kinds = [
        it.read(bus, device, it.express(bus, device) + 2) >> 4 & 0xF
        for bus, device in ((h.ROOT, 0), (0x42, 0), (0x43, 1), (NEAR, 0))
    ]
    assert kinds == [4, 5, 6, 0]  # PCI_EXP_TYPE_ROOT_PORT, _UPSTREAM, _DOWNSTREAM, _ENDPOINT


def test_configuration_requests_follow_bus_numbers(it: h.Hierarchy) -> None:
    for bus in (NEAR, LEFT, RIGHT):
        assert it.read(bus, 0, 0, 4) == 0x56781234
        assert it.read(bus, 1, 0, 4) == 0xFFFF_FFFF  # a link has one device at its end
    it.numbers(0x43, 1, 0x50, 0x50)
    assert it.read(RIGHT, 0, 0, 4) == 0xFFFF_FFFF
    assert it.read(0x50, 0, 0, 4) == 0xFFFF_FFFF  # beyond what the switch and its root port forward
    it.numbers(h.ROOT, 2, 0x42, 0x50)
    it.numbers(0x42, 0, 0x43, 0x50)
    assert it.read(0x50, 0, 0, 4) == 0x56781234


def test_the_ecam_is_configuration_space(it: h.Hierarchy) -> None:
    at = h.ECAM + (LEFT << 20)
    assert it.complex.mmio_read(at, 4) == bytes.fromhex("34127856")
    it.complex.mmio_write(at + 0x3C, b"\x0b")
    assert it.read(LEFT, 0, 0x3C, 1) == 0x0B
    assert it.complex.mmio_read(h.ECAM + (LEFT << 20 | 1 << 15), 4) == b"\xff" * 4
    assert it.complex.mmio_read(h.ECAM + (256 << 20), 4) == b"\xff" * 4


def test_requests_that_leave_configuration_space_are_not_answered(it: h.Hierarchy) -> None:
    assert it.read(NEAR, 0, 0xFFE, 4) == 0xFFFF_FFFF
    it.write(NEAR, 0, 0xFFE, 0, 4)


def test_memory_requests_need_windows_and_memory_space_enable_all_the_way(it: h.Hierarchy) -> None:
    at = 0xC020_0000
    read = it.complex.mmio_read
    it.bar(LEFT, 0, at)
    assert read(at, 4) == b"\xff" * 4
    it.window(h.ROOT, 2, 0xC000_0000, 0xC02F_FFFF)
    it.window(0x42, 0, 0xC010_0000, 0xC02F_FFFF)
    assert read(at, 4) == b"\xff" * 4
    it.window(0x43, 0, 0xC020_0000, 0xC02F_FFFF)
    assert read(at, 4) == bytes(4)
    it.complex.mmio_write(at + 0xFFC, b"abcdefgh")  # across a page
    assert read(at + 0xFFE, 4) == b"cdef"
    assert read(at + 0xFFFE, 4) == b"\0\0\xff\xff"  # across the end of the BAR
    for bus, device in ((h.ROOT, 2), (0x42, 0), (0x43, 0), (LEFT, 0)):
        it.write(bus, device, h.COMMAND, h.MASTER)
        assert read(at, 4) == b"\xff" * 4
        it.complex.mmio_write(at + 0xFFC, b"lost")
        it.write(bus, device, h.COMMAND, h.MASTER | h.MEMORY)
        assert read(at + 0xFFC, 4) == b"abcd"


def test_windows_above_4_gib_are_prefetchable_ones(it: h.Hierarchy) -> None:
    at = 0x40_0030_0000
    it.bar(NEAR, 0, at)
    it.prefetchable(h.ROOT, 0, 0x40_0000_0000, 0x40_0FFF_FFFF)
    assert it.complex.mmio_read(at, 4) == bytes(4)
    it.prefetchable(h.ROOT, 0, 0x41_0000_0000, 0x40_0FFF_FFFF)  # a limit below the base: no window
    assert it.complex.mmio_read(at, 4) == b"\xff" * 4
    assert it.read(h.ROOT, 0, h.PREF_BASE) & 0xF == 1


def test_a_window_without_an_answerer_reads_all_ones(it: h.Hierarchy) -> None:
    it.window(h.ROOT, 0, 0xC000_0000, 0xC0FF_FFFF)
    it.bar(NEAR, 0, 0xC000_0000)
    assert it.complex.mmio_read(0xC010_0000, 8) == b"\xff" * 8
    it.complex.mmio_write(0xC010_0000, b"nobody")


def test_secondary_bus_reset_resets_all_below_and_holds_it(it: h.Hierarchy) -> None:
    for bus in (LEFT, RIGHT, NEAR):
        it.bar(bus, 0, 0xC000_0000)
    it.write(h.ROOT, 2, h.BRIDGE_CONTROL, h.BUS_RESET)
    assert it.read(0x42, 0, 0, 4) == 0xFFFF_FFFF
    it.write(h.ROOT, 2, h.BRIDGE_CONTROL, 0)
    assert it.read(0x42, 0, h.SECONDARY, 1) == 0  # the switch has forgotten its numbers
    it.numbers(0x42, 0, 0x43, 0x45)
    it.numbers(0x43, 0, 0x44, 0x44)
    assert it.read(LEFT, 0, h.COMMAND) == 0
    assert it.read(LEFT, 0, h.BAR0, 4) == 0x4
    assert it.read(NEAR, 0, h.COMMAND) == h.MEMORY | h.MASTER


def test_a_reset_port_of_a_switch_resets_only_what_is_below_it(it: h.Hierarchy) -> None:
    it.bar(LEFT, 0, 0xC000_0000)
    it.bar(RIGHT, 0, 0xC000_0000)
    it.write(0x43, 0, h.BRIDGE_CONTROL, h.BUS_RESET)
    assert it.read(LEFT, 0, 0, 4) == 0xFFFF_FFFF
    assert it.read(RIGHT, 0, h.COMMAND) == h.MEMORY | h.MASTER
    it.write(0x43, 0, h.BRIDGE_CONTROL, 0)
    assert it.read(LEFT, 0, h.COMMAND) == 0
    it.write(0x42, 0, h.BRIDGE_CONTROL, h.BUS_RESET)  # the upstream port's resets all its downstream ports
    it.write(0x42, 0, h.BRIDGE_CONTROL, 0)
    assert it.read(0x43, 1, h.SECONDARY, 1) == 0


def test_registers_of_the_platform_need_no_routing() -> None:
    it = h.Hierarchy()
    file = RegisterFile(0x10000)
    file.ram(0, 0x10)
    it.complex.add_registers(0xFE00_0000, file)
    it.complex.mmio_write(0xFE00_0004, b"here")
    assert it.complex.mmio_read(0xFE00_0000, 8) == b"\0\0\0\0here"


def test_buses_of_other_segments_follow_the_first_ones() -> None:
    made = RootComplex(h.ECAM)
    for segment in range(2):
        bus, port = LogicalBus(number=0), RootPort(vendor_id=segment + 1, device_id=7)
        port.finish()
        bus.plug(port)
        port.plug(Plain())
        made.add_root(bus, 256 * segment, 256 * segment + 255)
    for segment in range(2):
        made.config_write(256 * segment, 0, 0, h.PRIMARY, b"\0\x01\x01")
        assert made.config_read(256 * segment, 0, 0, 0, 2) == bytes([segment + 1, 0])
        assert made.config_read(256 * segment + 1, 0, 0, 0, 2) == b"\x34\x12"
    assert made.mmio_read(h.ECAM + (256 << 20), 2) == b"\x02\0"
    with pytest.raises(ValueError, match="taken"):
        made.add_root(LogicalBus(number=9), 9, 10)
    with pytest.raises(ValueError, match="one segment"):
        made.add_root(LogicalBus(number=0), 512, 1024)


def test_seats_are_taken_once() -> None:
    bus, function = LogicalBus(), Plain()
    bus.plug(function, 3)
    with pytest.raises(ValueError, match="elsewhere"):
        LogicalBus().plug(function)
    with pytest.raises(ValueError, match="taken"):
        bus.plug(Plain(), 3)
    with pytest.raises(ValueError, match="32 devices"):
        bus.plug(Plain(), 32)
    bus.unplug(function)
    with pytest.raises(ValueError, match="not on this bus"):
        bus.unplug(function)
