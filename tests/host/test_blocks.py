"""Memory blocks: a volatile region as system RAM. What a guest showed: four blocks of 128 MiB for 512 MiB at 4 GiB are
memory32 to memory35, on node 1."""

from __future__ import annotations

import pytest

from softcxl.host.errors import AccessError, BusyError, RegionError
from softcxl.host.iomem import iomem
from softcxl.host.sysfs import SysfsError
from softcxl.host.system import System
from tests.host.fake import MIB, machine

MEMORY, NODE = "devices/system/memory", "devices/system/node"


@pytest.fixture
def system(made):
    return System(machine(made(2), windows=[{}]))


@pytest.fixture
def region(system):
    return system.create_region(["mem0", "mem1"], type="ram")


def refused(sysfs, path, text):
    with pytest.raises(SysfsError) as refusal:
        sysfs[path] = text
    return refusal.value.name


def test_online_in_blocks(system, region):
    assert system.numa_nodes == []
    assert system.sysfs[f"{NODE}/online"] == "0"
    blocks = region.online()
    assert [(one.name, one.size, one.zone) for one in blocks] == [
        (f"memory{number}", 128 * MIB, "Movable") for number in range(32, 36)
    ]
    assert repr(blocks[1]) == "<memory33 0x108000000+0x8000000 of region0: Movable>"
    assert region.online_size == 512 * MIB
    [node] = system.numa_nodes
    assert (node.name, node.online_size, node.blocks) == ("node1", 512 * MIB, tuple(blocks))
    shown = {
        "online": "1",
        "phys_index": "00000020",
        "removable": "1",
        "state": "online",
        "valid_zones": "Movable",
    }
    assert {name: system.sysfs[f"{MEMORY}/memory32/{name}"] for name in shown} == shown
    assert system.sysfs[f"{MEMORY}/block_size_bytes"] == "8000000"
    assert system.sysfs[f"{NODE}/online"] == system.sysfs[f"{NODE}/has_memory"] == "0-1"
    assert system.sysfs[f"{NODE}/has_normal_memory"] == "0"
    assert system.sysfs.link(f"{MEMORY}/memory35/node1") == f"{NODE}/node1"
    assert iomem(system).splitlines()[-3:] == [
        "  100000000-11fffffff : region0",
        "    100000000-11fffffff : dax0.0",
        "      100000000-11fffffff : System RAM (kmem)",
    ]


def test_only_whole_blocks_are_used(system, made):
    region = system.create_region(["mem0"], type="ram", size=256 * MIB)
    with pytest.raises(RegionError, match="no whole memory block of 0x80000000"):
        region.online(block_size=2048 * MIB)
    with pytest.raises(RegionError, match="power of two from 0x8000000 to 0x80000000"):
        region.online(block_size=100 * MIB)
    assert [one.number for one in region.online(block_size=256 * MIB)] == [16]


def test_what_is_pinned_does_not_go_offline(region):
    region.online("online")
    with region.pin(200 * MIB, 64):
        assert [one.pinned for one in region.blocks] == [[], [region.hpa + 200 * MIB], [], []]
        with pytest.raises(
            BusyError, match=r"1 of its blocks stay online: memory33: the page at 0x10c800000 is"
        ):
            region.offline()
        assert [one.state for one in region.blocks] == ["offline", "online", "offline", "offline"]
        with pytest.raises(AccessError, match="not all online"), region.pin(0):
            pass
    region.offline()
    assert region.online_size == 0


def test_pins_are_of_pages_that_are_online(region):
    for offset, size in ((0, 1), (0, 0), (512 * MIB - 1, 2)):
        with pytest.raises(AccessError, match="not all online"), region.pin(offset, size):
            pass
    region.online()
    with region.pin(512 * MIB - 1, 1):
        assert region.pins == [(region.hpa + 512 * MIB - 4096, region.hpa + 512 * MIB)]
    assert region.pins == []


def test_offline_before_it_is_destroyed(system, region):
    region.online()
    with pytest.raises(BusyError, match=r"region0 cannot be destroyed: 0x20000000 bytes of it are online"):
        system.destroy_region(region)
    with pytest.raises(BusyError, match="cannot be device-dax again"):
        region.unplug()
    region.offline()
    assert "System RAM" in iomem(system)  # still plugged in
    region.unplug()
    assert "System RAM" not in iomem(system)
    system.destroy_region(region)


def test_by_sysfs(system, region):
    region.online()
    sysfs, block = system.sysfs, f"{MEMORY}/memory33"
    assert refused(sysfs, f"{block}/state", "online") == "EINVAL"
    assert refused(sysfs, f"{block}/state", "asleep") == "EINVAL"
    with region.pin(128 * MIB):
        assert refused(sysfs, f"{block}/state", "offline") == "EBUSY"
    sysfs[f"{block}/state"] = "offline"
    assert (sysfs[f"{block}/online"], sysfs[f"{block}/state"]) == ("0", "offline")
    assert sysfs[f"{NODE}/node1/meminfo"] == "Node 1 MemTotal:         393216 kB"
    sysfs[f"{block}/state"] = "online_kernel"
    assert sysfs[f"{block}/valid_zones"] == "Normal"
    assert sysfs[f"{NODE}/has_normal_memory"] == "0-1"
    sysfs[f"{block}/online"] = "0"
    sysfs[f"{block}/online"] = "1"
    assert system.regions["region0"].online_size == 512 * MIB


def test_persistent_or_disabled_regions_are_no_system_ram(made):
    system = System(machine(made(1, volatile=0, persistent=256 * MIB, label_storage=128 << 10), windows=[{}]))
    region = system.create_region(["mem0"], type="pmem")
    with pytest.raises(RegionError, match="its type is pmem"):
        region.online()
    with pytest.raises(RegionError, match="backwards is no way to be online; ways are online,"):
        region.online("backwards")


def test_a_device_that_leaves_while_its_memory_is_online(system, region):
    region.online()
    port = system.memdevs["mem1"].node.parent.name
    assert system.hot_remove(port) == [region]
    assert system.problems == [
        "region0: 0x20000000 bytes of it were online when it was lost, and cannot be hotremoved until the next reboot"
    ]
    # pages cannot be moved away from what does not answer
    with pytest.raises(BusyError, match=r"memory32: mem1 .* is gone"):
        region.offline()
    assert refused(system.sysfs, f"{MEMORY}/memory32/state", "offline") == "EBUSY"
    assert "System RAM (kmem)" in iomem(system)


def test_a_device_that_leaves_after_its_memory_went_offline(system, region):
    region.online()
    region.offline()
    system.hot_remove(system.memdevs["mem1"].node.parent.name)
    assert system.problems == []
    assert system.numa_nodes == []
