"""A function as system software finds it: header, capability lists, BARs, interrupts, resets.

Offsets and values are those of Linux's include/uapi/linux/pci_regs.h.
"""

import pytest

from softcxl.pci.function import Function
from softcxl.spec.pci.capability import Msi
from softcxl.spec.pci.extended import DeviceSerialNumber
from softcxl.testing.driver import CONFIG, MSI, MSIX, Machine
from softcxl.wire import DeclarationError, RangeError, RegisterFile, Reset
from tests.pci.functions import Plain

POWER_MANAGEMENT, MSI_CAPABILITY, EXPRESS, MSIX_CAPABILITY = 0x01, 0x05, 0x10, 0x11


def read(function, offset, size):
    return int.from_bytes(function.read(CONFIG, offset, size), "little")


def write(function, offset, size, value):
    function.write(CONFIG, offset, value.to_bytes(size, "little"))


def capabilities(function):
    """The list as Linux walks it (drivers/pci/pci.h): at most 48 entries, pointers with two zero bits."""
    found: dict[int, int] = {}
    at = read(function, 0x34, 1)
    while at >= 0x40:
        assert at % 4 == 0
        assert at not in found.values()
        found[read(function, at, 1)] = at
        at = read(function, at + 1, 1)
    return found


def test_header():
    function = Plain()
    assert read(function, 0x00, 4) == 0x5678_1234
    assert read(function, 0x08, 4) == 0x0B4000_03
    assert read(function, 0x0E, 1) == 0  # type 0, one function
    assert read(function, 0x06, 2) & 0x10  # has capabilities
    assert read(function, 0x3D, 1) == 0  # no INTx
    write(function, 0x00, 4, 0xFFFFFFFF)
    assert read(function, 0x00, 4) == 0x5678_1234


@pytest.mark.parametrize(
    ("interrupts", "expected"), [("msi", MSI_CAPABILITY), ("msix", MSIX_CAPABILITY)], ids=["msi", "msix"]
)
def test_capability_list(interrupts, expected):
    assert capabilities(Plain(interrupts)).keys() == {POWER_MANAGEMENT, EXPRESS, expected}


def test_extended_capabilities_follow_each_other():
    function = Plain()
    assert read(function, 0x100, 4) == 0  # none yet
    first = function.add_extended(DeviceSerialNumber)
    second = function.add_extended(DeviceSerialNumber, size=0x40)
    third = function.add_extended(DeviceSerialNumber)
    assert (first.base, second.base, third.base) == (0x100, 0x10C, 0x14C)
    assert [read(function, one.base, 4) >> 20 for one in (first, second, third)] == [0x10C, 0x14C, 0]


def test_capabilities_that_do_not_fit_are_refused():
    function = Plain()
    with pytest.raises(DeclarationError, match="do not fit below 100h"):
        function.add_capability(Msi, size=0x80)
    with pytest.raises(DeclarationError, match="do not fit configuration space"):
        function.add_extended(DeviceSerialNumber, size=0x1000)


# -- BARs ----------------------------------------------------------------------------------------------------


def test_bar_sizing_as_linux_does_it():
    """drivers/pci/probe.c, __pci_read_base: all ones to both halves, and the lowest set bit is the size."""
    function = Plain()
    original = read(function, 0x10, 4), read(function, 0x14, 4)
    assert original[0] & 0xF == 0x4  # memory, 64-bit, not prefetchable
    write(function, 0x10, 4, 0xFFFFFFFF)
    write(function, 0x14, 4, 0xFFFFFFFF)
    mask = read(function, 0x14, 4) << 32 | read(function, 0x10, 4) & ~0xF
    assert mask & -mask == 0x10000
    assert mask == (1 << 64) - 0x10000
    write(function, 0x10, 4, original[0])
    write(function, 0x14, 4, original[1])
    assert (read(function, 0x10, 4), read(function, 0x14, 4)) == original


def test_bar_keeps_an_address_and_its_type_bits():
    function = Plain()
    write(function, 0x10, 4, 0xFEBF_1230)
    write(function, 0x14, 4, 0x0000_0012)
    assert read(function, 0x10, 4) == 0xFEBF_0004
    assert read(function, 0x14, 4) == 0x12
    write(function, 0x10, 8, 0x1_8000_0000)
    assert read(function, 0x10, 8) == 0x1_8000_0004


@pytest.mark.parametrize("offset", [0x18, 0x1C, 0x20, 0x24, 0x30])
def test_absent_bars_and_rom_read_zero(offset):
    function = Plain()
    write(function, offset, 4, 0xFFFFFFFF)
    assert read(function, offset, 4) == 0


def test_bars_that_cannot_be():
    function = Plain()
    for index in (0, 1, 6):
        with pytest.raises(DeclarationError, match=f"BAR {index}"):
            function.add_bar(index, RegisterFile(0x1000))
    for size in (0x800, 0x3000):
        with pytest.raises(DeclarationError, match="power of two"):
            function.add_bar(2, RegisterFile(size))


def test_accesses_reach_the_bar_and_nothing_beside_it():
    function = Plain()
    function.write(0, 0xFFF8, b"lastword")
    assert function.read(0, 0xFFF8, 8) == b"lastword"
    for region in (1, 2, 6, 8, 9, -1):
        with pytest.raises(RangeError, match="no region"):
            function.read(region, 0, 4)
        with pytest.raises(RangeError, match="no region"):
            function.write(region, 0, b"x")
    with pytest.raises(RangeError):
        function.read(0, 0xFFFD, 4)
    with pytest.raises(RangeError):
        function.write(CONFIG, 0xFFF, b"xy")


# -- interrupts ----------------------------------------------------------------------------------------------


def test_regions_and_vectors():
    assert Plain("msi").irqs() == [0, 1, 0, 0, 0]
    assert Plain("msix").irqs() == [0, 0, 16, 0, 0]
    sizes = [region.size if region else 0 for region in Plain("msi").regions()]
    assert sizes == [0x10000, 0, 0, 0, 0, 0, 0, 4096, 0]
    sizes = [region.size if region else 0 for region in Plain("msix").regions()]
    assert sizes == [0x10000, 0, 0, 0, 4096, 0, 0, 4096, 0]
    with pytest.raises(ValueError, match="neither"):
        Plain("intx")


def test_msi_capability():
    function = Plain("msi")
    at = capabilities(function)[MSI_CAPABILITY]
    flags = read(function, at + 2, 2)
    assert flags & 0x0080  # 64-bit addresses
    assert (flags & 0x000E) == 0  # one vector
    assert flags & 0x0100  # can be masked
    write(function, at + 4, 8, 0xFEE0_0000)
    write(function, at + 0xC, 2, 0x4021)
    write(function, at + 2, 2, flags | 1)
    assert read(function, at + 2, 2) == flags | 1
    assert read(function, at + 4, 8) == 0xFEE0_0000
    assert read(function, at + 0xC, 2) == 0x4021


def test_msix_table_and_pending_bits_lie_in_their_bar():
    """As Linux's msix_map_region and QEMU's vfio_msix_early_setup read the capability."""
    function = Plain("msix")
    at = capabilities(function)[MSIX_CAPABILITY]
    count = (read(function, at + 2, 2) & 0x7FF) + 1
    table, pending = read(function, at + 4, 4), read(function, at + 8, 4)
    assert count == 16 == function.irqs()[2]
    size = function.regions()[table & 7].size
    assert (table & ~7) + 16 * count <= size
    assert (pending & ~7) + (count + 63) // 64 * 8 <= size
    assert table & 7 == pending & 7 == 4
    assert (table & ~7) + 16 * count <= pending & ~7
    bar = table & 7
    for vector in range(count):
        entry = (table & ~7) + 16 * vector
        assert function.read(bar, entry, 16) == bytes(12) + b"\1\0\0\0"  # masked
        function.write(bar, entry, bytes.fromhex("0000e0fe 01000000 21400000 00000000"))
        assert function.read(bar, entry, 16) == bytes.fromhex("0000e0fe 01000000 21400000 00000000")
    function.write(bar, pending & ~7, b"\xff" * 8)
    assert function.read(bar, pending & ~7, 8) == bytes(8)
    function.reset(Reset.FLR)
    assert function.read(bar, table & ~7, 16) == bytes(12) + b"\1\0\0\0"
    low = read(function, 0x20, 4)
    assert low == 4
    write(function, 0x20, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert read(function, 0x20, 8) == (1 << 64) - 0x1000 | 4


@pytest.mark.parametrize(("interrupts", "kind"), [("msi", MSI), ("msix", MSIX)])
def test_interrupts_reach_the_machine_while_there_is_one(interrupts, kind):
    function, machine = Plain(interrupts), Machine()
    function.interrupt(0)  # nobody is there
    assert not function.attached
    function.attach(machine)
    assert function.attached
    function.interrupt(0)
    assert machine.taken() == [(kind, 0)]
    function.detach()
    function.interrupt(0)
    assert machine.taken() == []


# -- resets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Reset))
def test_reset_clears_command_and_bars(kind):
    function = Plain()
    write(function, 0x04, 2, 0x0006)
    write(function, 0x10, 8, 0x1_8000_0000)
    function.reset(kind)
    assert read(function, 0x04, 2) == 0
    assert read(function, 0x10, 8) == 0x4


def test_function_level_reset_by_software_keeps_what_the_link_agreed_on():
    """Device Control bit 15 (PCI_EXP_DEVCTL_BCR_FLR) resets and reads as zero; Max_Payload_Size and Link Control
    stay (PCIe 6.0 §6.6.2)."""
    function = Plain()
    at = capabilities(function)[EXPRESS]
    assert read(function, at + 4, 4) & 1 << 28  # function level reset capable
    write(function, 0x04, 2, 0x0006)
    write(function, at + 0x10, 2, 0x0043)
    write(function, at + 0x08, 2, 0x2830)
    write(function, at + 0x08, 2, 0x8000 | 0x2830)
    assert read(function, 0x04, 2) == 0
    assert read(function, at + 0x10, 2) == 0x0043
    assert read(function, at + 0x08, 2) == 0x2810 | 1 << 5  # defaults, and 256-byte payloads
    function.reset()
    assert read(function, at + 0x10, 2) == 0
    assert read(function, at + 0x08, 2) == 0x2810


def test_parts_are_reset_with_the_function():
    seen = []

    class Part:
        def reset(self, kind):
            seen.append(kind)

    function = Plain()
    function.parts.append(Part())
    function.reset()
    function.reset(Reset.FLR)
    function.reset(Reset.COLD)
    assert seen == [Reset.HOT, Reset.FLR, Reset.COLD]


def test_the_default_is_msi():
    assert Function(vendor_id=1, device_id=2, class_code=3).msi is not None
