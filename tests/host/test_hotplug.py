"""Slots that tell: buttons, devices that come, and devices that go in use (Linux drivers/pci/hotplug/pciehp_ctrl.c)."""

import pytest

import softcxl
from softcxl.host.errors import AccessError
from softcxl.switch.errors import LinkDown

SHARE = 256 << 20

TEXT = """
devices: {m0: {volatile: 256MiB}, m1: {volatile: 256MiB}, m2: {volatile: 256MiB}, spare: {volatile: 256MiB}}
switches: {s0: {ports: [m1, null]}}
hosts:
  alpha:
    bridges: {hb0: {ports: [m0, null, s0, m2]}}
    windows: [{size: 2GiB, targets: [hb0]}]
"""


@pytest.fixture
def fabric():
    with softcxl.Fabric.loads(TEXT) as fabric:
        yield fabric


@pytest.fixture
def ports(fabric):
    return fabric.hosts["alpha"].machine.bridges[0].ports


@pytest.fixture
def system(fabric):
    return fabric.hosts["alpha"].boot()


def names(events):
    return [(one.event, [memdev.name for memdev in one.memdevs], one.problem) for one in events]


def test_nothing_to_tell(system):
    assert system.service_slots() == []


def test_a_device_comes(system, ports, fabric):
    ports[1].insert(fabric.devices["spare"])
    (event,) = system.service_slots()
    assert (event.port, event.event) == (system.buses[0].below[1].name, "added")
    assert event.memdevs[0].serial == fabric.devices["spare"].serial
    assert system.service_slots() == []
    region = system.create_region(["mem0", event.memdevs[0]], type="ram")
    region.write(0, b"both" * 1000)
    assert region.load(0, 4000) == b"both" * 1000


def test_a_device_goes_in_use(system, ports):
    """A load fails as it is routed, and once the system has heard of it the region says why it is disabled."""
    region = system.create_region(["mem0", "mem2"], type="ram")
    other = system.create_region(["mem1"], type="ram")
    other.write(0, b"stays")
    (memdev,) = [one for one in region.memdevs if one.name == "mem2"]
    ports[3].remove()
    with pytest.raises(LinkDown, match="position 1, mem2"):
        region.read(0, 4096)
    (event,) = system.service_slots()
    assert (event.event, event.regions) == ("lost", [region])
    with pytest.raises(
        AccessError, match=rf"region0 is not enabled: mem2 \({memdev.host}\), position 1, is gone"
    ):
        region.read(0, 4096)
    assert other.read(0, 5) == b"stays"
    assert "mem2" not in system.memdevs


def test_out_and_in_again_is_another_device(system, ports):
    region = system.create_region(["mem0"], type="ram")
    (function,) = ports[0].remove()
    ports[0].insert(function)
    assert names(system.service_slots()) == [("lost", [], ""), ("added", ["mem0"], "")]
    assert not region.enabled
    system.destroy_region(region)
    assert system.create_region(["mem0"], type="ram").read(0, 64) == bytes(64)


def test_a_button_turns_a_slot_off_and_on(system, ports):
    region = system.create_region(["mem0", "mem2"], type="ram")
    ports[0].press()
    (event,) = system.service_slots()
    assert (event.event, event.regions) == ("removed", [region])
    assert not ports[0].link_up
    assert ports[0].express.slot_control.power_off
    system.destroy_region(region)
    ports[0].press()
    assert names(system.service_slots()) == [("added", ["mem0"], "")]
    assert ports[0].link_up
    assert system.create_region(["mem0"], type="ram").enabled
    ports[1].press()
    assert names(system.service_slots()) == [("empty", [], "")]


def test_a_whole_switch_goes_and_comes(system, ports, fabric):
    region = system.create_region(["mem1"], type="ram")
    (switch,) = ports[2].remove()
    assert [one.event for one in system.service_slots()] == ["lost"]
    assert not region.enabled
    switch.ports[1].plug(fabric.devices["spare"])
    ports[2].insert(switch)
    (event,) = system.service_slots()
    assert [one.name for one in event.memdevs] == ["mem1", "mem3"]
    system.destroy_region(region)
    region = system.create_region(event.memdevs, type="ram")
    region.write(0, b"pair" * 500)
    assert region.load(0, 2000) == b"pair" * 500


def test_a_bus_reset_of_our_own_is_no_news(system):
    system.reset("mem0", "cxl_bus")
    assert system.service_slots() == []


def test_a_link_that_is_contained_takes_its_device(system, ports):
    """DPC by software (PCIe 6.0 §6.2.11): the device is there, and its link is not."""
    region = system.create_region(["mem0"], type="ram")
    port = ports[0]
    port.write(7, port.dpc.base + 6, (0x41).to_bytes(2, "little"))
    with pytest.raises(LinkDown):
        region.read(0, 64)
    lost, again = system.service_slots()
    assert (lost.event, lost.regions) == ("lost", [region])
    assert again.memdevs == []
    assert again.problem.endswith("the link does not come up")
