"""Viral on its way through a fabric, seen in registers: Viral Status is bit 14 at 0Ah of a port's DVSEC 3, and at 0Eh
of a device's DVSEC 0 (CXL 3.1 §8.1.5.1, §8.1.3.3)."""

from __future__ import annotations

import pytest

from softcxl.switch.errors import PoisonError, ViralError
from softcxl.wire import Reset
from tests.switch.fabrics import BASE, Fabric, Level, Plan
from tests.switch.programmer import Found

TREE = Plan((Level(2, 256), Level(2, 1024), Level(2, 512)))  # two bridges of two switches of two devices
VIRAL = 1 << 14


@pytest.fixture
def tree():
    with Fabric(TREE) as fabric:
        fabric.program()
        yield fabric


def status(fabric: Fabric) -> set[str]:
    """Who says that there is viral: ports by kind and number along their way, devices by their names."""
    it, found = fabric.programmer, set()

    def look(one: Found, way: str) -> None:
        dvsec, offset = (0, 0x0E) if one.endpoint else (3, 0x0A)
        if it.read(one.bus, one.device, it.dvsec(one.bus, one.device, dvsec) + offset, 2) & VIRAL:
            found.add(way)
        for below in one.below:
            look(below, f"{way}/{below.number if below.kind == 6 else 'up' if below.kind == 5 else 'mem'}")

    for number, roots in enumerate(it.roots):
        for root in roots:
            look(root, f"{number}.{root.number}")
    return found


def test_it_goes_up_to_the_root_port_and_down_the_switch(tree: Fabric) -> None:
    machine, device = tree.machine, tree.devices[0]
    machine.store(BASE, b"kept")
    assert not device.enter_viral()
    assert status(tree) == set()
    machine.enable_viral()
    assert device.enter_viral()
    assert status(tree) == {
        "0.0",
        "0.0/up",
        "0.0/up/0",
        "0.0/up/1",
        "0.0/up/2",
        "0.0/up/0/mem",
        "0.0/up/1/mem",
    }
    assert [one.viral for one in tree.devices] == [True, True] + 6 * [False]
    for at in (BASE, BASE + 512):  # both devices of the switch
        with pytest.raises(ViralError, match=r"is viral: all it holds reads as poison"):
            machine.load(at, 64)
        with pytest.raises(PoisonError):
            machine.store(at, bytes(64))
        assert machine.view(at, 64) is None
    assert machine.load(BASE + 256, 4) == bytes(4)  # the other bridge's
    assert device.space.read(0, 4) == b"kept"


def test_a_port_that_is_not_enabled_stops_it(tree: Fabric) -> None:
    tree.machine.enable_viral()
    it = tree.programmer
    upstream = it.roots[0][0].below[0]
    at = it.dvsec(upstream.bus, upstream.device, 3) + 0x0C
    it.write(upstream.bus, upstream.device, at, 0, 2)
    tree.devices[1].enter_viral()
    assert status(tree) == {"0.0/up/1", "0.0/up/1/mem"}


def test_a_viral_host_is_everybodys_and_a_reset_ends_it(tree: Fabric) -> None:
    tree.machine.enable_viral()
    tree.machine.enter_viral()
    assert all(one.viral for one in tree.devices)
    tree.machine.reset(Reset.HOT)
    assert not any(one.viral for one in tree.devices)
    assert all(one.dvsec.status.viral for one in tree.devices)  # sticky
    tree.machine.enable_viral()
    tree.devices[0].enter_viral()
    assert [one.viral for one in tree.devices] == [True, True] + 6 * [False]
    tree.machine.reset(Reset.COLD)
    assert not any(one.dvsec.status.viral for one in tree.devices)
