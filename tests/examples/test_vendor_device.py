"""The scripted device of examples/vendor_device.py, as its driver sees it."""

import struct
from pathlib import Path

import pytest

from softcxl.fabric.build import Fabric
from softcxl.testing.driver import Driver

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def device():
    with Fabric.load(EXAMPLES / "vendor-device.yaml") as fabric:
        yield fabric.devices["mem0"]


def test_identify_is_its_own(device):
    code, payload = Driver(device).send(0x4000)
    assert code == 0
    assert payload[:16] == b"acme 2.1".ljust(16, b"\0")
    assert struct.unpack_from("<Q", payload, 16) == (1,)  # the rest is the standard device's


def test_vendor_command(device):
    driver = Driver(device)
    assert driver.send(0xC000, b"\3\0") == (0, b"\3\0\0\0")
    assert driver.send(0xC000, b"\2\0") == (0, b"\5\0\0\0")
    assert driver.send(0xC000, b"\2") == (0x16, b"")
    cel = b"\x0d\xa9\xc0\xb5\xbf\x41\x4b\x78\x8f\x79\x96\xb1\x62\x3b\x3f\x17"
    size = struct.unpack_from("<I", driver.send(0x0400)[1], 8 + 16)[0]
    assert driver.send(0x0401, cel + struct.pack("<II", size - 4, 4)) == (0, b"\x00\xc0\0\0")


def test_vendor_register(device):
    driver = Driver(device)
    offset, length = driver.capabilities[0x8000]
    assert length == 4
    driver.write32(2, offset, 0xFFFFFFFF)
    driver.write32(2, offset, 0xFFFFFFFF)
    driver.write32(2, offset, 0)
    driver.write32(2, offset, 1)
    assert driver.read32(2, offset) == 1
    assert driver.send(0xC000, b"\0\0") == (0, b"\2\0\0\0")
    device.reset()
    assert driver.read32(2, offset) == 0
