"""Binding and unbinding by a fabric manager, byte by byte, and the events of it: CXL 3.1 §7.6.7.2, §7.6.8."""

import struct

import pytest

from softcxl.memory.errors import MediumFull
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.physical import PhysicalSwitch
from softcxl.switch.tenant import Nobody
from tests.switch.manager import (
    ABORTED,
    BUSY,
    INTERNAL,
    INVALID_INPUT,
    RETRY,
    STARTED,
    SUCCESS,
    UNSUPPORTED,
    Manager,
)

MIB = 1 << 20
UNBOUND, UNDER_WAY, TO_PORT, TO_LD = 0, 1, 2, 3


# -- virtual switches -------------------------------------------------------------------------------------------------


def test_virtual_switch_info(fm, switch):
    switch.bind(0, 2, 0)
    switch.bind(1, 0, 1, 1)
    left = bytes([0, 1, 3, 3]) + bytes([UNBOUND, 0, 0xFF, 0]) * 2 + bytes([TO_PORT, 0, 0xFF, 0])
    right = bytes([1, 1, 4, 2]) + bytes([TO_LD, 1, 1, 0, UNBOUND, 0, 0xFF, 0])
    assert fm.vcs(0, 1) == left + right
    assert fm.vcs(1, 0, 1) == right + left + right
    assert fm.vcs(0, 1, start=1, limit=1) == left[:4] + left[8:12] + right[:4] + right[8:12]
    assert fm.vcs(0, 1, start=2) == left[:4] + left[12:] + right[:4]
    assert fm.vcs(0, start=3) == left[:4]
    assert fm.vcs(7, 1, 255) == bytes([7, 0xFF, 0, 0]) + right + bytes([255, 0xFF, 0, 0])
    assert fm.send(0x5200, bytes([0, 0, 1, 0]))[0] == INVALID_INPUT
    assert fm.send(0x5200, bytes([0, 1, 0]))[0] == INVALID_INPUT


def test_more_than_a_response_can_hold(clock):
    switch = PhysicalSwitch("wide", ports=0, virtual=[(f"v{n}", 255) for n in range(9)], clock=clock)
    fm = Manager(switch)
    assert fm.send(0x5200, bytes([0, 255, 9, *range(9)])) == (INVALID_INPUT, b"")
    assert len(fm.vcs(*range(7))) == 7 * 1024


# -- binding and unbinding --------------------------------------------------------------------------------------------


def test_bind_and_unbind(fm, switch, clock):
    assert fm.bind(0, 1, 1, 1) == STARTED
    assert fm.background() == (0, 100, 0x5201, SUCCESS)
    assert fm.vcs(0, start=1, limit=1)[4:] == bytes([TO_LD, 1, 1, 0])
    assert fm.unbind(0, 1) == STARTED
    assert fm.background() == (0, 100, 0x5202, SUCCESS)
    assert fm.vcs(0, start=1, limit=1)[4:] == bytes([UNBOUND, 0, 0xFF, 0])


def test_bindings_in_a_row(fm):
    """A change that is over keeps no other waiting, whatever the clock is at."""
    assert [fm.bind(*given) for given in ((0, 0, 1, 0), (0, 1, 1, 1), (1, 1, 0), (0, 2, 2))] == [STARTED] * 4
    assert [one[0] for one in (fm.vcs(0)[4:8], fm.vcs(0)[8:12], fm.vcs(1)[8:12], fm.vcs(0)[12:])] == [
        TO_LD, TO_LD, TO_PORT, TO_PORT
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        (2, 0, 0), (0xFF, 0, 0), (0, 3, 0), (0, 255, 0), (0, 0, 5), (0, 0, 255),  # not there
        (0, 0, 3), (0, 0, 4),  # upstream ports
        (0, 0, 0, 0), (0, 0, 2, 0),  # no logical devices
        (0, 0, 1), (0, 0, 1, 2), (0, 0, 1, 3), (0, 0, 1, 0xFF), (0, 0, 1, 0xFFFE),  # no such logical device
    ],
)  # fmt: skip
def test_what_cannot_be_bound(fm, switch, given):
    before = fm.vcs(0, 1)
    assert fm.bind(*given) == INVALID_INPUT
    assert fm.vcs(0, 1) == before
    assert not any(one.bindings for one in switch.ports.values())
    assert fm.events(1) == []


def test_what_is_taken(fm, switch):
    switch.bind(0, 0, 0)
    switch.bind(0, 1, 1, 0)
    before = fm.vcs(0, 1)
    for given in ((0, 0, 0), (0, 0, 2), (1, 0, 0), (0, 1, 1, 0), (0, 2, 1, 0), (1, 0, 1, 0)):
        assert fm.bind(*given) == INVALID_INPUT
    for vcs, vppb in ((0, 2), (1, 0), (1, 2), (2, 0)):
        assert fm.unbind(vcs, vppb) == INVALID_INPUT
    assert fm.unbind(0, 0, 3) == INVALID_INPUT
    switch.ports[2].enabled = False
    assert fm.bind(1, 0, 2) == INVALID_INPUT
    assert fm.vcs(0, 1) == before


def test_a_device_that_fails_as_it_is_bound(fm, switch, pool, monkeypatch, caplog):
    """As where files or memory for a logical device cannot be had: it is not being bound for ever."""

    def fail(holder):
        raise MediumFull("no room is left")

    monkeypatch.setattr(pool.logical[0], "bind", fail)
    assert fm.bind(0, 0, 1, 0) == INTERNAL
    assert caplog.messages == ["rack.left.0: the device failed to be bound"]
    monkeypatch.undo()
    assert fm.bind(0, 0, 1, 0) == STARTED


def test_a_device_that_comes_later(fm, switch, memory, slow):
    """A port whose link is down can be bound; what is pushed in arrives at the host (CXL 3.1 §7.6.7.2.2)."""
    switch.ports[0].remove()
    assert fm.bind(0, 2, 0) == STARTED
    assert fm.vcs(0, start=2)[4:] == bytes([TO_PORT, 0, 0xFF, 0])
    assert slow.has == {}
    switch.ports[0].insert(memory)
    assert slow.has == {2: memory}
    switch.ports[0].remove()
    assert slow.has == {}
    assert fm.vcs(0, start=2)[4:] == bytes([TO_PORT, 0, 0xFF, 0])
    assert fm.unbind(0, 2) == STARTED
    assert fm.background()[0] == 0


def test_a_removal_takes_as_long_as_the_host(fm, switch, slow, clock):
    fm.bind(0, 0, 0)
    assert fm.ports(0)[0][1] == 3
    assert fm.unbind(0, 0) == STARTED
    assert fm.vcs(0, limit=1)[4:] == bytes([UNDER_WAY, 0, 0xFF, 0])
    assert fm.ports(0)[0][1] == 2
    assert fm.background()[0] == 1
    clock.advance(30)
    assert fm.background() == (1, 50, 0x5202, SUCCESS)
    assert fm.bind(1, 0, 0) == fm.unbind(0, 0) == BUSY
    slow.let_go(0)
    assert fm.background() == (0, 100, 0x5202, SUCCESS)
    assert fm.bind(1, 0, 0) == STARTED


def test_a_host_that_keeps_the_device(fm, switch, slow, clock, memory):
    """Retry Required after a while, a warning, and the binding is as it was."""
    fm.bind(0, 0, 0)
    fm.events()
    fm.unbind(0, 0)
    clock.advance(60)
    assert fm.background() == (0, 100, 0x5202, RETRY)
    assert fm.vcs(0, limit=1)[4:] == bytes([TO_PORT, 0, 0xFF, 0])
    assert slow.has == {0: memory}
    assert slow.leaving == {}
    (warning,) = fm.events(1)
    assert warning[48:54] == bytes([0, 0, 0, TO_PORT, 0, 0xFF])
    assert fm.events() == []
    assert fm.unbind(0, 0, 2) == STARTED
    assert fm.background() == (0, 100, 0x5202, SUCCESS)


def test_a_removal_that_is_aborted(fm, switch, slow):
    fm.bind(0, 0, 0)
    fm.unbind(0, 0)
    assert fm.send(0x0005) == (SUCCESS, b"")
    assert fm.background()[2:] == (0x5202, ABORTED)
    assert fm.vcs(0, limit=1)[4:] == bytes([TO_PORT, 0, 0xFF, 0])
    assert fm.unbind(0, 0, 2) == STARTED
    assert slow.has == {}


def test_a_host_that_refuses(fm, switch, slow):
    slow.refuses = True
    assert fm.bind(0, 0, 0) == STARTED
    assert fm.background() == (0, 100, 0x5201, INTERNAL)
    assert fm.vcs(0, limit=1)[4:] == bytes([UNBOUND, 0, 0xFF, 0])
    assert switch.ports[0].bindings == {}
    assert fm.events(1)[0][50:54] == bytes([0, UNBOUND, 0, 0xFF])
    slow.refuses = False
    assert fm.bind(0, 0, 0) == STARTED
    assert fm.background()[3] == SUCCESS


def test_a_host_that_vanishes(fm, switch, slow, memory):
    fm.bind(0, 0, 0)
    fm.unbind(0, 0)
    switch.virtual[0].tenant = Nobody()
    assert fm.background() == (0, 100, 0x5202, SUCCESS)
    assert fm.vcs(0, limit=1)[4:] == bytes([UNBOUND, 0, 0xFF, 0])


def test_unbinding_when_the_link_goes_down(fm, switch, slow, clock):
    fm.bind(0, 0, 1, 0)
    assert fm.unbind(0, 0, 0) == STARTED
    clock.advance(10)
    assert fm.background()[0] == 1
    assert slow.leaving == {}
    assert fm.send(0x5102, b"\1\0")[0] == SUCCESS
    assert fm.background() == (0, 100, 0x5202, SUCCESS)
    assert slow.has == {}


def test_unbinding_when_the_device_is_pulled(fm, switch, slow):
    fm.bind(0, 0, 0)
    for option in (0, 1):
        assert fm.unbind(0, 0, option) == STARTED
        device = switch.ports[0].remove()
        assert fm.background() == (0, 100, 0x5202, SUCCESS)
        switch.ports[0].insert(device)
        assert fm.bind(0, 0, 0) == STARTED


# -- events -----------------------------------------------------------------------------------------------------------

PHYSICAL = bytes.fromhex("77cf92719c02470b9fe4bc7b75f2da97")
VIRTUAL = bytes.fromhex("40d2642533964c4da5da3d47263af425")
MLD_PORT = bytes.fromhex("8dc443630c964710b7bf04bb99534c3f")


def test_physical_switch_events(fm, switch):
    """Slot status updated (1), link state change (0); fields from byte 48 on: port, type, slot status."""
    fm.events()
    device = switch.ports[0].remove()
    slot, link = fm.events()
    assert slot[:16] == link[:16] == PHYSICAL
    assert slot[48:52] == bytes([0, 1, 0x08, 1])  # link state and presence have changed, and nothing is there
    assert link[48:50] == bytes([0, 0])
    switch.ports[0].insert(device)
    slot, link = fm.events()
    assert slot[48:52] == bytes([0, 1, 0x48, 1])
    # reserved, configuration, mode, reserved, type, modes, widths, speeds, LTSSM, first lane, flags
    assert link[52:68] == bytes([0, 3, 2, 0, 4, 2, 8, 8, 0x1F, 5, 5, 4, 0, 1 << 2, 0, 0])


def test_virtual_switch_events(fm, switch):
    fm.bind(0, 1, 1, 1)
    fm.background()
    *_, bound = fm.events()
    assert bound[:16] == VIRTUAL
    assert bound[48:54] == bytes([0, 1, 0, TO_LD, 1, 1])
    fm.unbind(0, 1)
    (unbound,) = fm.events()
    assert unbound[48:54] == bytes([0, 1, 0, UNBOUND, 0, 0xFF])


def test_what_a_host_does_to_a_vppb(fm, switch):
    """Secondary bus reset 1, link control 2, slot control 3; then the registers."""
    switch.virtual[0].tenant = Hierarchy("left", 3)
    vppb = switch.virtual[0].tenant.slots[2]
    fm.events()
    vppb.write(7, 0x3E, b"\x40\0")
    vppb.write(7, 0x3E, b"\0\0")
    vppb.write(7, vppb.express.base + 0x10, b"\x40\0")
    vppb.write(7, vppb.express.base + 0x18, b"\xc1\3")
    found = fm.events()
    assert [one[48:51] for one in found] == [bytes([0, 2, 1]), bytes([0, 2, 2]), bytes([0, 2, 3])]
    assert found[2][54:58] == b"\x40\0\xc1\3"


def test_notifications(fm, switch, clock):
    """A log that was empty has taken a record (its bit), a background operation has ended (bit 15)."""
    other = Manager(switch)
    fm.events()
    assert fm.send(0x0105, struct.pack("<H", 0x8003)) == (SUCCESS, b"\x03\x80")
    assert fm.send(0x0104) == (SUCCESS, b"\x03\x80")
    assert fm.send(0x0105, struct.pack("<H", 0x10))[0] == INVALID_INPUT  # there is no dynamic capacity here
    fm.bind(0, 0, 0)
    clock.advance(0)
    assert fm.sent == [0x0001, 0x8000]
    assert other.sent == []
    other.door.close()


# -- errors -----------------------------------------------------------------------------------------------------------


def aer(vcs, vppb, position, uncorrectable=True, header=b""):
    return struct.pack("<BBxxI", vcs, vppb, position | uncorrectable << 31) + header.ljust(32, b"\0")


def test_aer_events_are_of_the_vppb(fm, switch):
    """Uncorrectable bit 14 is a completion timeout, correctable bit 6 a bad TLP (PCIe 6.0 §7.8.4)."""
    tenant = switch.virtual[0].tenant = Hierarchy("left", 3)
    header = bytes(range(32))
    assert fm.send(0x5203, aer(0, 2, 14, header=header)) == (SUCCESS, b"")
    registers = tenant.slots[1].aer
    assert int(registers.uncorrectable_status) == 1 << 14
    assert tenant.slots[1].read(7, registers.base + 0x1C, 16) == header[:16]
    assert fm.send(0x5203, aer(0, 0, 6, uncorrectable=False)) == (SUCCESS, b"")
    assert int(tenant.upstream.aer.correctable_status) == 1 << 6


def test_aer_events_that_cannot_be(fm, switch):
    assert fm.send(0x5203, aer(0, 1, 14))[0] == UNSUPPORTED  # nobody has the vPPB
    switch.virtual[0].tenant = Hierarchy("left", 3)
    for given in (aer(2, 0, 14), aer(0, 4, 14), aer(0, 1, 1), aer(0, 1, 31, uncorrectable=False)):
        assert fm.send(0x5203, given)[0] == INVALID_INPUT
