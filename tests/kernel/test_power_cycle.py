"""What a device tells Linux after its power was off: partitions, dirty shutdowns, and erasures that did not end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl import Fabric, Type3
from softcxl.spec.command.health import ShutdownState
from tests.kernel.conftest import Linux
from tests.kernel.traces import until

TOPOLOGY = """
devices:
  mem0:
    volatile: 256MiB
    persistent: 512MiB
    partition_alignment: 256MiB
    label_storage: 128KiB
    serial: 0xC0FFEE01
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""
KERNEL = "own"
MIB = 1 << 20
A_DAY = 86400.0
DATA = b"kept or gone"
SECURITY = "/sys/bus/cxl/devices/mem0/security"


@pytest.fixture
def device(guest: Linux, fabric: Fabric) -> Iterator[Type3]:
    device = fabric.devices["mem0"]
    yield device
    device.cci.finish()


# -- dirty shutdowns ---------------------------------------------------------------------------------------------


def dirty(guest: Linux) -> int:
    counted = int(guest.sh("cat /sys/bus/nd/devices/nmem*/cxl/dirty_shutdown"))
    assert guest.json("cxl list -m mem0 -H")[0]["health"]["dirty_shutdowns"] == counted
    return counted


def test_a_shutdown_is_dirty_where_nothing_was_saved(guest: Linux, device: Type3) -> None:
    """The kernel sets the state dirty as soon as it has persistent memory; a device that has time to save resets it."""
    before = dirty(guest)
    assert device.shutdown.state is ShutdownState.DIRTY
    guest.power_cycle(device)
    assert dirty(guest) == before
    device.shutdown.power_lost(saved=False)
    guest.power_cycle(device)
    assert dirty(guest) == before + 1
    assert device.shutdown.state is ShutdownState.DIRTY


# -- erasure -----------------------------------------------------------------------------------------------------


def test_a_secure_erase_takes_all_data_and_keeps_labels(guest: Linux, device: Type3) -> None:
    device.space.write(0x1000, DATA)
    device.space.write(300 * MIB, DATA)
    guest.sh("cxl disable-memdev mem0; cxl write-labels -i /init -s 256 mem0; cxl enable-memdev mem0")
    guest.sh(f"echo 1 > {SECURITY}/erase")
    assert device.space.read(0x1000, len(DATA)) == device.space.read(300 * MIB, len(DATA)) == bytes(len(DATA))
    assert guest.run("cxl read-labels -s 256 mem0").stdout == guest.machine.run("head -c 256 /init").stdout
    assert guest.sh(f"cat {SECURITY}/state").strip() == "disabled"
    guest.sh("cxl disable-memdev mem0; cxl zero-labels mem0; cxl enable-memdev mem0")


@pytest.mark.parametrize("name", ["erase", "sanitize"])
def test_what_is_in_use_is_not_erased(guest: Linux, device: Type3, name: str) -> None:
    made = guest.create_region(["mem0"])
    device.space.write(0x1000, DATA)
    refused = guest.run(f"echo 1 > {SECURITY}/{name}")
    guest.sh(f"cxl destroy-region -f {made['region']}")
    assert refused.status != 0
    assert device.space.read(0x1000, len(DATA)) == DATA


def test_a_sanitize_that_power_ends_leaves_media_that_only_another_brings_back(
    guest: Linux, device: Type3
) -> None:
    device.space.write(0x1000, DATA)
    device.media.seconds = A_DAY
    guest.sh(f"echo 1 > {SECURITY}/sanitize")
    guest.power_cycle(device)
    assert device.media_disabled
    [found] = guest.json("cxl list -M -i")
    assert found["ram_size"] < MIB > found.get("pmem_size", 0)
    assert guest.run("cxl read-labels -s 16 mem0").status != 0
    assert guest.sh(f"cat {SECURITY}/state").strip() == "disabled"
    device.media.seconds = 0.01
    # sysfs sanitizes only memory that has a driver, which this has not
    assert guest.run(f"echo 1 > {SECURITY}/sanitize").status != 0
    guest.sh("echo Y > /sys/kernel/debug/cxl/mbox/raw_allow_all")
    assert guest.sh("softcxl-mailbox /dev/cxl/mem0 0x4400").split() == ["1"]  # background started
    assert until(lambda: device.media_disabled, lambda disabled: not disabled) is False
    assert device.space.read(0x1000, len(DATA)) == bytes(len(DATA))
    guest.power_cycle(device)
    [found] = guest.json("cxl list -M")
    assert (found["ram_size"], found["pmem_size"]) == (256 * MIB, 512 * MIB)


# -- partitions --------------------------------------------------------------------------------------------------


def test_a_partition_change_is_for_the_next_power_cycle(guest: Linux, device: Type3) -> None:
    device.space.write(600 * MIB, DATA)
    guest.sh("cxl disable-memdev mem0; cxl set-partition mem0 -t pmem -s 256M; cxl enable-memdev mem0")
    assert partitions(guest) == (256 * MIB, 512 * MIB, 512 * MIB, 256 * MIB)
    assert device.space.read(600 * MIB, len(DATA)) == DATA
    guest.power_cycle(device)
    assert partitions(guest) == (512 * MIB, 256 * MIB, 0, 0)
    assert device.space.read(600 * MIB, len(DATA)) == bytes(len(DATA))
    [found] = guest.json("cxl list -M")
    assert (found["ram_size"], found["pmem_size"]) == (512 * MIB, 256 * MIB)
    made = guest.create_region(["mem0"])
    guest.sh(f"cxl destroy-region -f {made['region']}")
    assert made["size"] == 512 * MIB


def partitions(guest: Linux) -> tuple[int, ...]:
    """Bytes of volatile and of persistent capacity: now, and after the next reset if that is to change it."""
    info = guest.json("cxl list -m mem0 -I")[0]["partition_info"]
    return tuple(
        info[f"{when}_{kind}_size"] for when in ("active", "next") for kind in ("volatile", "persistent")
    )
