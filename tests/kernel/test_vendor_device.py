"""A device of one's own (examples/vendor_device.py), as Linux sees it."""

from __future__ import annotations

from softcxl import Fabric
from tests.kernel.conftest import Linux
from tests.kernel.listing import check_listing

TOPOLOGY = "vendor-device.yaml"


def test_the_listing_field_by_field(guest: Linux) -> None:
    check_listing(guest, "vendor-device")


def test_its_identity_is_its_own(guest: Linux) -> None:
    [found] = guest.json("cxl list -M")
    assert (found["serial"], found["firmware_version"]) == (0xACE0001, "acme 2.1")


def test_a_guest_lights_its_led(guest: Linux, fabric: Fabric) -> None:
    device = fabric.devices["mem0"]
    function = guest.sh("readlink -f /sys/bus/cxl/devices/mem0/..").strip()
    name = function.rpartition("/")[2]
    led = int(guest.sh(f"sed -n 3p {function}/resource").split()[0], 16) + 0x200
    # the kernel lets nobody at registers that a driver has
    guest.sh(f"echo {name} > {function}/driver/unbind; echo 1 > {function}/enable")
    guest.sh(f"devmem {led:#x} 32 1")
    assert guest.sh(f"devmem {led:#x} 32").strip() == "0x00000001"
    guest.sh(f"devmem {led:#x} 32 0; devmem {led:#x} 32 1")
    guest.sh(f"echo 0 > {function}/enable; echo {name} > /sys/bus/pci/drivers/cxl_pci/bind")
    assert vars(device)["lit"] == 2


def test_it_is_memory_like_any_other(guest: Linux, fabric: Fabric) -> None:
    region = guest.create_region(["mem0"])
    guest.sh(f"softcxl-memory fill {guest.devdax()} 0 65536 9")
    assert fabric.devices["mem0"].space.read(0, 8) != bytes(8)
    guest.sh(f"cxl destroy-region -f {region['region']}")
