"""Firmware by the kernel's upload interface, /sys/class/firmware/memN, and by `cxl update-firmware`, which uses it.

The kernel writes to the slot after the one that runs, in parts of the mailbox's size, and stages it for the next cold
reset (drivers/cxl/core/memdev.c). What `error` says is of drivers/base/firmware_loader/sysfs_upload.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from softcxl import Fabric, Type3
from softcxl.device.firmware import image
from softcxl.spec.command.base import ReturnCode
from tests.kernel.conftest import Linux
from tests.kernel.traces import until

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 512MiB, targets: [hb0]}]
"""
A_DAY = 86400.0
PART = 4096 - 128
"""Bytes of an image in a command: the mailbox's payload without the header of Transfer FW."""

UPLOAD = "/sys/class/firmware/mem0"


@pytest.fixture
def device(guest: Linux, fabric: Fabric) -> Iterator[Type3]:
    device = fabric.devices["mem0"]
    device.firmware.seconds = 0.01
    yield device
    device.firmware.seconds = 0.01
    device.cci.finish()


def slots(guest: Linux) -> dict[str, Any]:
    found = guest.json("cxl list -m mem0 -F")[0]["firmware"]
    assert isinstance(found, dict)
    return found


def upload(guest: Linux, data: bytes, then: str = "") -> None:
    """Give the kernel an image to transfer; it does in a thread of its own."""
    guest.machine.output("cat > /tmp/image", given=data)
    guest.sh(f"cd {UPLOAD}; echo 1 > loading; cat /tmp/image > data; echo 0 > loading; {then}")


def outcome(guest: Linux) -> str:
    """What `error` says once the kernel is idle."""
    until(lambda: guest.sh(f"cat {UPLOAD}/status").strip(), lambda status: status == "idle")
    return guest.sh(f"cat {UPLOAD}/error").strip()


def test_an_image_runs_after_the_power_was_off(guest: Linux, device: Type3) -> None:
    assert (slots(guest)["num_slots"], slots(guest)["active_slot"]) == (2, 1)
    guest.machine.output("cat > /tmp/image", given=image("two 2.0", bytes(range(256)) * 100))
    guest.sh("cxl update-firmware -F /tmp/image -w mem0")
    assert slots(guest) == {
        "num_slots": 2,
        "active_slot": 1,
        "staged_slot": 2,
        "online_activate_capable": True,
        "slot_1_version": "softcxl 1",
        "slot_2_version": "two 2.0",
        "fw_update_in_progress": False,
    }
    guest.power_cycle(device)
    now = slots(guest)
    assert (now["active_slot"], "staged_slot" in now) == (2, False)
    assert guest.sh("cat /sys/bus/cxl/devices/mem0/firmware_version").strip() == "two 2.0"
    upload(guest, image("one 1.1"))  # slot 1 is the next one now
    assert outcome(guest) == ""
    assert (slots(guest)["staged_slot"], slots(guest)["slot_1_version"]) == (1, "one 1.1")


@pytest.mark.parametrize("content", [0, 1, 65, PART - 0x40, PART - 0x40 + 1, 3 * PART])
def test_images_of_any_length_come_whole(guest: Linux, device: Type3, content: int) -> None:
    """In one part, in one that is just full, in several; the last one padded by nobody."""
    taken: list[bytes] = []
    check = device.firmware.validate

    def noted(data: bytes) -> str:
        taken.append(data)
        return check(data)

    device.firmware.validate = noted
    sent = image(f"length {content}", bytes(range(256)) * (content // 256) + bytes(content % 256))
    upload(guest, sent)
    assert outcome(guest) == ""
    device.firmware.validate = check
    assert [len(one) for one in taken] == [len(sent)]
    assert taken == [sent]


def test_an_image_that_is_none_is_refused_and_changes_nothing(guest: Linux, device: Type3) -> None:
    before = slots(guest)
    upload(guest, b"no image" * 1000)
    assert outcome(guest) == "transferring:read-write-error"
    assert slots(guest) == before
    upload(guest, image("good again"))
    assert outcome(guest) == ""


def test_an_upload_is_cancelled(guest: Linux, device: Type3) -> None:
    before = slots(guest)
    begun = "until ! grep -q preparing status; do :; done"
    upload(guest, image("too long", bytes(8 << 20)), then=f"{begun}; echo 1 > cancel")
    assert outcome(guest) == "transferring:user-abort"
    assert slots(guest) == before
    upload(guest, image("after it"))
    assert outcome(guest) == ""


def test_the_kernel_waits_while_the_image_is_looked_at_and_is_woken(
    guest: Linux, fabric: Fabric, device: Type3
) -> None:
    device.firmware.seconds = A_DAY
    upload(guest, image("woken"))
    assert until(lambda: device.cci.busy, bool)
    assert guest.sh(f"cat {UPLOAD}/status").strip() == "transferring"
    before = fabric.open_doors["mem0"].traffic.interrupts
    device.cci.finish()
    assert outcome(guest) == ""
    assert fabric.open_doors["mem0"].traffic.interrupts == before + 1
    assert "woken" in slots(guest).values()


def test_firmware_that_does_not_start_leaves_the_one_before(guest: Linux, device: Type3) -> None:
    runs = device.firmware.active
    upload(guest, image("broken"))
    assert outcome(guest) == ""
    start = device.firmware.start
    device.firmware.start = lambda revision: ReturnCode.FW_ROLLED_BACK
    guest.power_cycle(device)
    device.firmware.start = start
    assert guest.sh("cat /sys/bus/cxl/devices/mem0/firmware_version").strip() == runs
    assert "staged_slot" not in slots(guest)
