"""Devices plugged into a running guest and pulled out again, at root ports and behind a switch."""

from __future__ import annotations

import pytest

from softcxl import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.lab.errors import PlanError
from tests.kernel.conftest import Linux, dealt, pattern
from tests.kernel.listing import check_listing
from tests.kernel.traces import until

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 0xC0FFEE01}
  spare: {volatile: 256MiB, serial: 0xC0FFEE02}
  other: {volatile: 512MiB, serial: 0xC0FFEE03}
switches:
  sw0: {ports: [null, null]}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, null, sw0]}}
    windows: [{size: 2GiB, targets: [hb0]}]
"""
MIB = 1 << 20


def test_the_listing_field_by_field(guest: Linux) -> None:
    check_listing(guest, "test_hot_plug")


def serials(guest: Linux) -> set[int]:
    return {one["serial"] for one in guest.json("cxl list -M")}


def comes(guest: Linux, serial: int) -> None:
    """The kernel has bound its driver to the device."""
    seen = until(lambda: serials(guest), lambda found: serial in found)
    assert serial in seen


def use(guest: Linux, fabric: Fabric, devices: list[str], seed: int) -> None:
    """Make a region of the devices, store a pattern by way of the guest, find it in Python; undo the region."""
    region = guest.create_region(devices, granularity=1024)
    guest.sh(f"softcxl-memory fill {guest.devdax()} 0 {MIB} {seed}")
    for position, name in enumerate(devices):
        wanted = dealt(pattern(MIB, seed), len(devices), 1024, position).tobytes()
        assert fabric.devices[name].space.read(0, len(wanted)) == wanted
    guest.sh(f"cxl destroy-region -f {region['region']}")


def test_added_used_removed_and_added_again(guest: Linux, fabric: Fabric) -> None:
    spare = fabric.devices["spare"]
    assert serials(guest) == {0xC0FFEE01}
    guest.machine.hot_add("spare", "hb0-port1")
    comes(guest, 0xC0FFEE02)
    use(guest, fabric, ["spare", "mem0"], 3)
    guest.machine.hot_remove("spare")
    assert serials(guest) == {0xC0FFEE01}
    assert not spare.attached
    assert "spare" not in fabric.open_doors
    guest.machine.hot_add("spare", "hb0-port1")
    comes(guest, 0xC0FFEE02)
    use(guest, fabric, ["mem0", "spare"], 4)


def test_added_behind_a_switch_removed_and_added_again(guest: Linux, fabric: Fabric) -> None:
    for seed in (5, 8):
        guest.machine.hot_add("other", "sw0-port1")
        comes(guest, 0xC0FFEE03)
        endpoint = guest.json(f"cxl list -E -m {guest.memdev('other')}")[0]
        assert endpoint["depth"] == 3
        use(guest, fabric, ["other"], seed)
        if seed == 5:
            guest.machine.hot_remove("other")
            assert 0xC0FFEE03 not in serials(guest)
            assert not fabric.devices["other"].attached


def test_what_was_added_stays_when_the_guest_restarts(guest: Linux, fabric: Fabric) -> None:
    guest.machine.reboot()
    assert serials(guest) == {one.serial for one in fabric.devices.values()}
    use(guest, fabric, ["spare", "mem0"], 6)


@pytest.mark.parametrize(
    ("device", "port", "message"),
    [
        ("spare", "hb0-port0", "hb0-port0 is not an empty port; empty are sw0-port0"),
        ("spare", "hb0-port2", "hb0-port2 is not an empty port; empty are sw0-port0"),
        ("spare", "hb9-port0", "hb9-port0 is not an empty port; empty are sw0-port0"),
    ],
)
def test_a_port_that_is_not_empty_takes_nothing(guest: Linux, device: str, port: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        guest.machine.hot_add(device, port)


def test_a_device_is_at_one_port(guest: Linux) -> None:
    with pytest.raises(BuildError, match=r"devices\.mem0: is in use"):
        guest.machine.hot_add("mem0")
    with pytest.raises(BuildError, match=r"devices\.mem9: there is none; there are mem0, spare, other"):
        guest.machine.hot_add("mem9")
    assert guest.machine.slots["sw0-port0"] is None


def test_what_is_not_plugged_in_cannot_be_removed(guest: Linux) -> None:
    with pytest.raises(PlanError, match="mem9 is not plugged in; devices that are: mem0, spare, other"):
        guest.machine.hot_remove("mem9")


def test_removed_with_a_region_on_it(guest: Linux, fabric: Fabric) -> None:
    region = guest.create_region(["spare", "mem0"])
    guest.devdax()
    assert len(fabric.hosts["alpha"].memory.members(region["resource"])) == 2
    guest.machine.hot_remove("spare")
    assert fabric.hosts["alpha"].memory.members(region["resource"]) == []
    # the kernel keeps what is left of the region, disabled; `cxl destroy-region` looks for its lost device in vain
    assert guest.json("cxl list -R") == []
    guest.sh(f"echo {region['region']} > /sys/bus/cxl/devices/decoder0.0/delete_region")
    use(guest, fabric, ["mem0"], 7)
