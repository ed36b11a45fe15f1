"""A switch's mailbox CCI in a topology: what is read and refused, and a host that manages its own switch by it."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from softcxl import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.fabric.routes import virtual_switch_of
from softcxl.fabric.topology import SwitchCci, TopologyError, loads
from softcxl.fabric.tree import to_json, tree
from softcxl.testing.driver import Driver
from softcxl.testing.vfio_client import Client

GOOD = """\
devices:
  spare: {volatile: 256MiB, serial: 7}
  cci: {type: switch-cci, switch: rack}
switches:
  rack: {ports: [spare, null], virtual: {left: {ports: [null]}}}
  plain: {ports: [null]}
hosts:
  a: {bridges: {h: {ports: [left, cci]}}, windows: [{size: 256MiB, targets: [h]}]}
"""


def test_what_is_read() -> None:
    fabric = loads(GOOD)
    assert fabric.ccis == {"cci": SwitchCci(switch="rack", interrupts="msi")}
    assert loads(to_json(fabric)) == fabric
    assert "│       └── port 1: cci: mailbox CCI of rack\n" in str(tree(fabric)).replace(
        "│   │   ", "│       "
    )


@pytest.mark.parametrize(
    ("was", "given", "place", "says"),
    [
        ("switch: rack}", "switch: rck}", "devices.cci.switch", "'rck' is no switch; did you mean 'rack'?"),
        ("switch: rack}", "switch: plain}", "devices.cci.switch", "plain has no `virtual` switches"),
        ("switch: rack}", "switch: spare}", "devices.cci.switch", "'spare' is no switch; there are rack"),
        ("switch: rack}", "interrupts: msi}", "devices.cci.switch", "is missing"),
        ("[spare, null]", "[spare, cci]", "switches.rack.ports[1]", "plug it into a port of the host"),
        ("{ports: [null]}}}", "{ports: [cci]}}}", "switches.rack.virtual.left.ports[0]", "nothing to bind"),
        ("[left, cci]", "[left, cci, cci]", "hosts.a.bridges.h.ports[2]", "cci is plugged in already"),
    ],
)
def test_what_is_refused(was: str, given: str, place: str, says: str) -> None:
    assert was in GOOD
    with pytest.raises(TopologyError) as caught:
        loads(GOOD.replace(was, given, 1))
    first = caught.value.problems[0]
    assert (first.path, says in first.message) == (place, True), first


def test_whose_mailbox_it_is() -> None:
    """The host's virtual switch is the one that it names the domain of; without one, or with two, it names none."""
    fabric = loads(GOOD)
    assert virtual_switch_of(fabric, "cci", "rack") == 0
    first = "virtual: {other: {ports: [null]}, left:"
    assert virtual_switch_of(loads(GOOD.replace("virtual: {left:", first)), "cci", "rack") == 1
    assert virtual_switch_of(loads(GOOD.replace("[left, cci]", "[cci]")), "cci", "rack") is None
    two = GOOD.replace("virtual: {left:", first).replace("[left, cci]", "[left, cci, other]")
    assert virtual_switch_of(loads(two), "cci", "rack") is None


class Waiting:
    """A function behind a door, as software sees it that looks until the doorbell has cleared."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.mailbox: int | None = None

    def read(self, region: int, offset: int, size: int) -> bytes:
        return self.client.read(region, offset, size)

    def write(self, region: int, offset: int, data: bytes) -> None:
        self.client.write(region, offset, data)
        if offset == self.mailbox:
            until = time.monotonic() + 300
            while self.client.read(region, offset, 4)[0] & 1:
                assert time.monotonic() < until, "the doorbell did not clear"


def test_a_host_in_this_process_finds_it() -> None:
    with Fabric.loads(GOOD) as fabric:
        system = fabric.hosts["a"].boot()
        assert system.problems == []
        found = [node for bus in system.buses for node in bus.walk() if node.config.read(8) >> 8 == 0x0C0B00]
        assert len(found) == 1
        assert found[0].bars.keys() == {2}
        with pytest.raises(BuildError, match=r"devices\.cci: is in use by a host in this process"):
            fabric.door("a", "cci", ".").__enter__()


def test_a_guest_binds_by_it(tmp_path: Path) -> None:
    with Fabric.loads(GOOD) as fabric, fabric.door("a", "cci", tmp_path) as door, Client(door.path) as client:
        client.negotiate()
        port = Waiting(client)
        driver = Driver(port)
        port.mailbox = driver.mailbox + 4
        assert driver.read64(7, dict(driver.extended_capabilities())[3] + 4) == fabric.switches["rack"].serial
        code, answer = driver.send(0x5100)
        assert (code, answer[2:4]) == (0, bytes([3, 1]))
        vppb = fabric.switches["rack"].virtual[0].vppbs[0]
        assert driver.send(0x5201, struct.pack("<BBBxH", 0, 0, 0, 0xFFFF))[0] == 1
        until = time.monotonic() + 300
        while driver.background()[0]:
            assert time.monotonic() < until, "the binding did not end"
        assert driver.background() == (False, 0x5201, 100, 0)
        assert vppb.function is fabric.devices["spare"]


def test_its_door_is_one_of_the_host_s(tmp_path: Path) -> None:
    with Fabric.loads(GOOD) as fabric:
        with fabric.doors("a", tmp_path) as doors:
            assert doors.keys() == {"cci"}
            with pytest.raises(BuildError, match=r"devices\.cci: is in use, its door is"):
                _ = fabric.hosts["a"].machine
        assert fabric.hosts["a"].ccis == {"cci": ("h", 1)}
        assert fabric.hosts["a"].routes == {}
