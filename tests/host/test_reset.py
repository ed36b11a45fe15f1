"""Resets by an operating system on the real machine, by Linux's method names; and the machine's own reset."""

import pytest

import softcxl
from softcxl.host.errors import AccessError, ResetError
from softcxl.switch.errors import DecodeError
from softcxl.wire import Reset

SHARE = 256 << 20

TEXT = """
devices:
  {m0: {volatile: 512MiB}, m1: {volatile: 512MiB}, m2: {volatile: 512MiB}, m3: {volatile: 512MiB, persistent: 256MiB}}
switches: {s0: {ports: [m0, m1]}}
hosts:
  alpha:
    bridges: {hb0: {ports: [s0, m2]}, hb1: {ports: [m3]}}
    windows: [{size: 4GiB, targets: [hb0]}, {size: 1GiB, targets: [hb1]}]
"""
FIRMWARE = TEXT + "    regions: [{window: 0, devices: [m0, m1], type: ram, size: 512MiB}]\n"


@pytest.fixture
def fabric():
    with softcxl.Fabric.loads(TEXT) as fabric:
        yield fabric


@pytest.fixture
def system(fabric):
    return fabric.hosts["alpha"].boot()


def test_which_work(system):
    """On a CXL port Secondary Bus Reset is masked, and only cxl_bus goes round that."""
    assert system.reset_methods("mem0") == ["flr", "cxl_bus", "cxl_reset"]
    with pytest.raises(
        ResetError, match=r"mem0 \(0000:\S+\): bus: 0000:\S+ above it has Secondary Bus Reset masked"
    ):
        system.reset("mem0", "bus")
    with pytest.raises(ResetError, match="pm is no method of reset; there are flr, bus, cxl_bus, cxl_reset"):
        system.reset("mem0", "pm")
    with pytest.raises(ResetError, match="cleared by a cxl_reset alone"):
        system.reset("mem0", "flr", clear=True)
    port = system.memdevs["mem0"].node.parent.config
    at = port.dvsec(3) + 0x0C
    port.write(at, 1, 2)
    assert "bus" in system.reset_methods("mem0")


def test_flr_leaves_regions_alone(system):
    region = system.create_region(["mem0", "mem1"], type="ram")
    region.write(0, b"x" * 1024)
    assert system.reset("mem1", "flr") == []
    assert region.read(0, 1024) == b"x" * 1024
    assert system.memdevs["mem1"].mailbox.status.mailbox_ready


@pytest.mark.parametrize("method", ["cxl_bus", "cxl_reset"])
def test_others_take_regions_with_them(system, fabric, method):
    """Linux's cxl_reset_done: decoders that were in use and are not committed any more."""
    region = system.create_region(["mem0", "mem1"], type="ram", size=2 * SHARE)
    other = system.create_region(["mem2"], type="ram", size=SHARE)
    region.write(0, b"abcd" * 256)
    assert system.reset("mem1", method) == [region]
    assert "mem1 (0000:" in region.problem
    assert f"position 1, lost its decoders by {method}" in region.problem
    with pytest.raises(AccessError, match="region0 is not enabled: mem1"):
        region.read(0, 64)
    with pytest.raises(DecodeError):
        fabric.hosts["alpha"].machine.load(region.hpa + 256, 4)
    assert other.read(0, 64) == bytes(64)
    # the port's mask is as it was, and what was lost can be made again; a hot reset keeps volatile bytes
    assert "bus" not in system.reset_methods("mem1")
    system.destroy_region(other)
    system.destroy_region(region)
    again = system.create_region(["mem0", "mem1"], type="ram", size=2 * SHARE)
    assert again.read(0, 1024) == b"abcd" * 256


def test_a_cxl_reset_clears_volatile_memory_if_asked(system, fabric):
    region = system.create_region(["mem3"], type="ram")
    region.write(0, b"secret")
    kept = system.create_region(["mem3"], type="pmem")
    kept.write(0, b"kept")
    assert system.reset("mem3", "cxl_reset", clear=True) == [region, kept]
    assert fabric.devices["m3"].space.read(0, 6) == bytes(6)
    assert fabric.devices["m3"].space.read(512 << 20, 4) == b"kept"


def test_a_reset_that_fails(system, fabric):
    fabric.devices["m2"].fail_cxl_reset = True
    with pytest.raises(ResetError, match=r"mem2 .*: its CXL Reset ended with an error"):
        system.reset("mem2", "cxl_reset")
    fabric.devices["m2"].dvsec.capability.reset_capable = False
    assert system.reset_methods("mem2") == ["flr", "cxl_bus"]


def test_a_device_that_has_gone_cannot_be_reset(system, fabric):
    fabric.hosts["alpha"].machine.bridges[0].ports[1].remove()
    with pytest.raises(ResetError, match="does not answer"):
        system.reset("mem2", "flr")
    with pytest.raises(ResetError, match="does not answer"):
        system.reset("mem2", "cxl_bus")


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD])
def test_firmware_makes_its_regions_again_when_the_machine_starts(kind):
    with softcxl.Fabric.loads(FIRMWARE) as fabric:
        host = fabric.hosts["alpha"]
        (region,) = host.boot().regions.values()
        region.write(1000, b"y" * 1000)
        host.machine.reset(kind)
        system = host.boot()
        assert system.problems == []
        (again,) = system.regions.values()
        assert (again.hpa, again.size, again.automatic) == (region.hpa, region.size, True)
        assert [one.committed for one in system.ports[0].decoders[:2]] == [True, False]
        expected = bytes(1000) if kind is Reset.COLD else b"y" * 1000
        assert again.read(1000, 1000) == again.load(1000, 1000) == expected
        again.write(0, b"z" * 3000)
        assert again.load(0, 3000) == b"z" * 3000


def test_firmware_does_not_run_for_a_bus_reset():
    with softcxl.Fabric.loads(FIRMWARE) as fabric:
        system = fabric.hosts["alpha"].boot()
        (region,) = system.regions.values()
        assert system.reset("mem0") == [region]
        assert fabric.devices["m0"].decoders.mappings == []
        assert len(fabric.devices["m1"].decoders.mappings) == 1
