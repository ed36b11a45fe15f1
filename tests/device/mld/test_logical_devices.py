"""Logical devices: each is a memory device of its own, and what happens to one does not happen to another."""

import struct

import pytest

from softcxl.device.mld.allocation import Allocation
from softcxl.device.mld.errors import (
    AllocationUneven,
    CapacityExceeded,
    LdInUse,
    LogicalDeviceError,
    NoSuchLd,
)
from softcxl.memory import Medium, Window
from softcxl.memory.interleave import Interleave
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import CONFIG, Driver, Machine
from softcxl.wire import Reset
from tests.device.mld.conftest import GIB, MIB

SUCCESS = 0


def identity(device):
    return struct.unpack_from("<16xQQQ", Driver(device).send(0x4000)[1])


def serial(device):
    """As lspci finds it: extended capability 0003h."""
    driver, at = Driver(device), 0x100
    while (header := driver.read32(CONFIG, at)) & 0xFFFF != 3:
        at = header >> 20
    return driver.read32(CONFIG, at + 4) | driver.read32(CONFIG, at + 8) << 32


def test_each_is_a_device_of_its_own(pool):
    assert [device.name for device in pool.logical.values()] == ["pool.0", "pool.1"]
    assert [identity(device) for device in pool.logical.values()] == [(4, 4, 0), (3, 2, 1)]
    assert [serial(device) for device in pool.logical.values()] == [0x1_0000_C0FFEE01, 0x2_0000_C0FFEE01]
    assert Driver(pool.logical[1]).commit(0, 1 << 32, 256 * MIB)
    assert not pool.logical[0].decoders.committed
    assert Driver(pool.logical[0]).commit(0, 8 << 32, GIB)


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.FLR, Reset.CXL, Reset.COLD], ids=lambda kind: kind.name)
def test_a_reset_of_one_leaves_the_others(pool, kind):
    one, other = pool.logical.values()
    for device in (one, other):
        Driver(device).commit(0, 1 << 32, 256 * MIB)
        Driver(device).send(0x0301, struct.pack("<Q", 1_000_000_000))
        device.space.write(0, b"bytes")
        device.inject_poison(4096)
        device.record_event(EventLog.INFORMATIONAL, GeneralMediaEvent())
    before = {region: other._files[region].peek(0, other._files[region].size) for region in (0, CONFIG)}
    one.reset(kind)
    assert one.decoders.committed == (kind is Reset.FLR)
    assert one.space.read(0, 5) == b"bytes"  # the power of the MLD is still there
    assert {region: other._files[region].peek(0, other._files[region].size) for region in before} == before
    assert other.decoders.committed
    assert Driver(other).send(0x0300) == (SUCCESS, struct.pack("<Q", 1_000_000_000))
    assert other.space.read(0, 5) == b"bytes"


def test_a_cold_reset_reaches_all(pool, door):
    door.send(0x0301, struct.pack("<Q", 5))
    pool.record_event(EventLog.FATAL, GeneralMediaEvent())
    for device in pool.logical.values():
        Driver(device).commit(0, 1 << 32, 256 * MIB)
        device.space.write(0, b"volatile")
        device.record_event(EventLog.INFORMATIONAL, GeneralMediaEvent())
    pool.logical[1].space.write(512 * MIB, b"persistent")
    pool.reset(Reset.COLD)
    for device in pool.logical.values():
        assert not device.decoders.committed
        assert device.space.read(0, 8) == bytes(8)
        assert Driver(device).send(0x0100, b"\0")[1][20:22] == b"\0\0"
    assert pool.logical[1].space.read(512 * MIB, 10) == b"persistent"
    assert door.send(0x0300) == (SUCCESS, bytes(8))
    assert door.send(0x0100, b"\3")[1][20:22] == b"\0\0"
    assert sorted(pool.logical) == [0, 1]  # allocations stay


def test_a_hot_reset_of_the_link_reaches_all(pool, door):
    door.send(0x0105, b"\x08\0")
    pool.record_event(EventLog.FATAL, GeneralMediaEvent())
    for device in pool.logical.values():
        Driver(device).commit(0, 1 << 32, 256 * MIB)
        device.space.write(0, b"volatile")
    pool.reset(Reset.HOT)
    assert not any(device.decoders.committed for device in pool.logical.values())
    assert [device.space.read(0, 8) for device in pool.logical.values()] == [b"volatile"] * 2
    assert door.send(0x0100, b"\3")[1][20:22] == b"\1\0"
    assert door.send(0x0104) == (SUCCESS, b"\0\0")


# -- bound and unbound -----------------------------------------------------------------------------------------

DISABLED = 0x07
LEFT = {
    "clear": (bytes(8), b"persistent", b"labels"),
    "keep": (b"volatile", b"persistent", b"labels"),
    "erase": (bytes(8), bytes(10), bytes(6)),
}


@pytest.mark.parametrize("policy", LEFT)
def test_what_unbinding_leaves(make, policy):
    pool = make(on_unbind=policy)
    device, other = pool.logical[1], pool.logical[0]
    other.space.write(0, b"volatile")
    device.bind("rack.left.0")
    device.space.write(0, b"volatile")
    device.space.write(512 * MIB, b"persistent")
    Driver(device).send(0x4103, struct.pack("<II", 0, 0) + b"labels")
    Driver(device).commit(0, 1 << 32, 256 * MIB)
    device.inject_poison(4096)
    device.unbind()
    assert pool.logical[1] is device
    assert (device.holder, device.decoders.committed) == (None, False)
    volatile, persistent, labels = LEFT[policy]
    assert device.space.read(0, 8) == volatile
    assert device.space.read(512 * MIB, 10) == persistent
    assert Driver(device).send(0x4102, struct.pack("<II", 0, 6)) == (SUCCESS, labels)
    assert (device.poison.met(4096, 64) is None) == (policy == "erase")
    assert other.space.read(0, 8) == b"volatile"
    device.bind("rack.right.0")


@pytest.mark.parametrize(("policy", "left"), [("clear", 0b101), ("keep", 0b001), ("erase", 0)])
def test_passphrases(make, policy, left):
    """One that a host has set is the next one's, too, unless all is erased; power locks what it protects."""
    pool = make(on_unbind=policy)
    device = pool.logical[1]
    device.bind("rack.left.0")
    user = b"\1" + bytes(31) + bytes(32) + b"secret".ljust(32, b"\0")  # struct cxl_set_pass of Linux
    assert Driver(device).send(0x4501, user)[0] == SUCCESS
    device.unbind()
    assert Driver(device).send(0x4500) == (SUCCESS, struct.pack("<I", left))  # set, locked


@pytest.mark.parametrize("policy", LEFT)
def test_a_sanitize_that_was_cut_short(make, clock, policy):
    """Where all is erased nothing is left to sanitize; else the next host finds the media disabled."""
    pool = make(on_unbind=policy)
    device = pool.logical[1]
    device.bind("rack.left.0")
    assert Driver(device).send(0x4400)[0] == 1
    device.unbind()
    clock.advance(10)
    assert Driver(device).send(0x4102, struct.pack("<II", 0, 6))[0] == (
        SUCCESS if policy == "erase" else DISABLED
    )


@pytest.mark.parametrize("policy", LEFT)
def test_windows_show_nothing_of_what_was_unbound(make, policy):
    """A host may have its window mapped for as long as it likes: what it maps is not the logical device any more."""
    pool = make(on_unbind=policy)
    device = pool.logical[1]
    with Medium.memfd("window", GIB) as medium:
        window = Window(1 << 32, GIB, medium)
        device.bind("rack.left.0")
        device.space.persistent_from = device.space.capacity  # as without a folder
        device.space.commit(window, 1 << 32, 768 * MIB, Interleave(), 0, 0)
        mapped = medium.view()
        mapped[:4] = mapped[512 * MIB : 512 * MIB + 4] = 7
        device.space.release()
        device.unbind()
        assert not mapped[:4].any()
        assert not mapped[512 * MIB : 512 * MIB + 4].any()
        mapped[:4] = 9
        assert device.space.read(0, 4) == bytes([7 if policy == "keep" else 0] * 4)
        assert device.space.read(512 * MIB, 4) == bytes([0 if policy == "erase" else 7] * 4)
        assert window.residents == ()
        del mapped


def test_others_go_on_while_bytes_leave_windows(make, monkeypatch):
    """Which takes as long as there are bytes to keep. The device is nobody else's meanwhile."""
    pool, found = make(on_unbind="keep"), []
    device = pool.logical[0]
    monkeypatch.setattr(
        type(device.space), "go_home", lambda space: found.append((pool.lock._is_owned(), device.holder))
    )
    device.bind("a host")
    device.unbind()
    assert found == [(False, "a host")]
    assert device.holder is None


def test_what_nobody_has_used_stays(pool):
    device = pool.logical[0]
    device.bind("rack.left.0")
    device.space.write(0, b"volatile")
    Driver(device).commit(0, 1 << 32, 256 * MIB)
    device.unbind(used=False)
    assert (device.holder, device.space.read(0, 8)) == (None, b"volatile")
    assert device.decoders.committed


def test_bound_once(pool):
    pool.logical[0].bind("here")
    with pytest.raises(LdInUse, match=r"pool\.0 is bound to here"):
        pool.logical[0].bind("there")


def test_one_that_is_gone_cannot_be_bound(pool):
    """A switch that has looked it up, and a fabric manager that takes its memory before it is bound."""
    one, other = pool.logical[0], pool.logical[1]
    pool.allocate({0: 2 * GIB, 1: 0})
    for device in (one, other):
        with pytest.raises(NoSuchLd, match="is another one now, or has no memory"):
            device.bind("rack.left.0")


# -- allocation ------------------------------------------------------------------------------------------------


def test_listeners(pool):
    told = []
    pool.listeners.append(lambda change: told.append((change.ld, change.old, change.new)))
    zero, one = pool.logical[0], pool.logical[1]
    pool.allocate({0: 2 * GIB, 1: 0, 2: (0, GIB)})
    assert told == [(0, zero, pool.logical[0]), (1, one, None), (2, None, pool.logical[2])]
    assert zero is not pool.logical[0]
    pool.allocate({0: 2 * GIB})
    assert len(told) == 3


def test_nothing_of_the_old_one_is_left(pool):
    one = pool.logical[1]
    one.space.write(0, b"secret")
    one.inject_poison(0)
    Driver(one).send(0x4103, struct.pack("<II", 0, 0) + b"labels")
    Driver(one).send(0x4503, b"\0" * 64)
    pool.allocate({1: (GIB, 256 * MIB)})
    new = pool.logical[1]
    assert new.space.read(0, 6) == bytes(6)
    assert not new.poison.any
    assert Driver(new).send(0x4102, struct.pack("<II", 0, 6)) == (SUCCESS, bytes(6))
    assert pool.logical[0].space.capacity == GIB


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({0: 5 * GIB}, CapacityExceeded),
        ({0: GIB, 2: 3 * GIB}, CapacityExceeded),
        ({3: (0, 2 * GIB)}, CapacityExceeded),
        ({0: 100}, AllocationUneven),
        ({0: -256 * MIB}, AllocationUneven),
        ({0: (0, 1)}, AllocationUneven),
        ({4: GIB}, NoSuchLd),
        ({-1: GIB}, NoSuchLd),
        ({2: 256 * MIB, 1: 0}, LdInUse),
    ],
    ids=str,
)
def test_what_cannot_be_allocated(pool, wanted, error):
    pool.logical[1].bind("a host")
    before = dict(pool.logical)
    with pytest.raises(error) as refused:
        pool.allocate(wanted)
    assert isinstance(refused.value, LogicalDeviceError)
    assert pool.logical == before
    assert pool.allocations.each == (
        Allocation(GIB),
        Allocation(512 * MIB, 256 * MIB),
        Allocation(),
        Allocation(),
    )


def test_a_device_in_a_machine_keeps_its_allocation(pool):
    pool.logical[0].attach(Machine())
    with pytest.raises(LdInUse, match=r"pool\.0 is plugged into a machine"):
        pool.allocate({0: 0})
    pool.logical[0].detach()
    pool.allocate({0: 0})


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": 128 * MIB},
        {"granularity": 2 * GIB},
        {"granularity": GIB},
        {"logical_devices": []},
        {"logical_devices": [0] * 17},
        {"logical_devices": [0] * 256, "heads": 16},
        {"logical_devices": [5 * GIB]},
        {"logical_devices": [(0, 3 * GIB)]},
        {"on_unbind": "burn"},
    ],
    ids=str,
)
def test_devices_that_cannot_be(make, options):
    with pytest.raises(ValueError, match=r"possible|multiples|the device has|not a valid|more than 16"):
        make(**options)
