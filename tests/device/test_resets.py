"""Every register after every reset: what its law says, or what the reset does not reach (CXL 3.1 §9.5, PCIe §6.6.2).

A reset that reaches a register returns all but its sticky fields to what a fresh device has; a cold one returns
them too. Function-level resets do not reach CXL.mem: the CXL DVSECs, the component registers, the media's status.
"""

import random

import pytest

from softcxl.spec.pci.express import PciExpress
from softcxl.testing.driver import CONFIG, Driver
from softcxl.testing.laws import STICKY
from softcxl.wire import Reset

COMPONENT_BAR, DEVICE_BAR, MSIX_BAR = 0, 2, 4
MAX_PAYLOAD_SIZE = 0b111 << 5


def placed(device):
    """(region, offset, layout) of every register of the device."""
    for region, file in device._files.items():
        for offset, layout in file.registers.items():
            yield region, offset, layout


def value(device, region, offset, layout):
    return int.from_bytes(device._files[region].peek(offset, layout.size), "little")


def kept_by_function(device, region, offset, kind, locked):
    """Which bits of a register a reset of the function alone does not reach: a function-level reset, or a CXL Reset,
    which leaves nothing of CXL.mem but what is `locked` until a conventional one."""
    everything = -1
    flr = kind is Reset.FLR
    if region == COMPONENT_BAR and flr:
        return everything
    if region == DEVICE_BAR and offset == device.memory_status._at:
        return everything
    if region == CONFIG:
        dvsec = [device.dvsec] if flr or locked else []
        for block in (*dvsec, device.flex_bus, device.gpf, device.locator):
            if block.base <= offset < block.base + block.__layout__.size:
                return everything
        express = device.express.base
        if offset == express + PciExpress.link_control.__layout__.offset:
            return everything
        if offset == express + PciExpress.device_control.__layout__.offset:
            return MAX_PAYLOAD_SIZE
    return 0


@pytest.mark.parametrize("interrupts", ["msi", "msix"])
@pytest.mark.parametrize("kind", list(Reset))
def test_every_register(make, kind, interrupts):
    fresh, device = make(interrupts=interrupts), make(interrupts=interrupts)
    numbers = random.Random(1)
    before = {}
    for region, offset, layout in placed(device):
        writable = (
            layout.rw
            | layout.w1c
            | layout.w1s
            | sum(field.mask for field in layout.fields if field.law.name in STICKY)
        )
        scribbled = value(device, region, offset, layout) ^ numbers.getrandbits(layout.width) & writable
        device._files[region].poke(offset, scribbled.to_bytes(layout.size, "little"))
        before[region, offset] = scribbled
    assert len({region for region, _ in before}) == (4 if interrupts == "msix" else 3)
    assert len(before) > 150

    locked = device.dvsec.lock.config_lock
    device.reset(kind)

    wrong = []
    for region, offset, layout in placed(device):
        kept = 0
        if kind is not Reset.COLD:
            kept |= sum(field.mask for field in layout.fields if field.law.name in STICKY)
        if kind in (Reset.FLR, Reset.CXL):
            kept |= kept_by_function(device, region, offset, kind, locked)
        expected = before[region, offset] & kept | value(fresh, region, offset, layout) & ~kept
        found = value(device, region, offset, layout)
        if found != expected:
            wrong.append(f"{layout.name} at {region}:{offset:#x} is {found:#x}, not {expected:#x}")
    assert wrong == []


@pytest.mark.parametrize("kind", list(Reset))
def test_a_device_works_after_a_reset(make, kind):
    device = make(interrupts="msix")
    device.reset(kind)
    driver = Driver(device)
    assert driver.send(0x4000)[0] == 0
    assert sum(driver.cdat()) % 256 == 0
    assert driver.commit(0, 1 << 32, 256 << 20)


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD])
def test_a_second_reset_changes_nothing(make, kind):
    device = make()
    device.reset(kind)
    before = [file.peek(0, file.size) for file in device._files.values()]
    device.reset(kind)
    assert [file.peek(0, file.size) for file in device._files.values()] == before


def test_flr_by_the_driver(make):
    """pcie_flr() writes bit 15 of Device Control."""
    device = make()
    driver = Driver(device)
    express = dict(driver.capability_list())[0x10]
    dvsec = driver.dvsec(0)
    driver.write16(CONFIG, 4, 6)
    driver.write16(CONFIG, dvsec + 0x0C, 4)
    driver.commit(0, 1 << 32, 256 << 20)
    driver.write16(CONFIG, express + 8, 0x8000)
    assert driver.read16(CONFIG, 4) == 0
    assert driver.read16(CONFIG, dvsec + 0x0C) & 4
    bar, at = driver.decoder(0)
    assert driver.read32(bar, at + 0x10) & 1 << 10
    driver.write16(CONFIG, dvsec + 0x0C, 0)
    assert not driver.read16(CONFIG, dvsec + 0x0C) & 4
