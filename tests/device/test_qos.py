"""SLD QoS telemetry: struct cxlmi_cmd_memdev_get_sld_qos_control_rsp and its like of libcxlmi (4 bytes: control,
moderate, severe, sample interval), defaults and ranges of CXL 3.1 §8.2.9.9.8."""

import pytest

from softcxl.wire import Reset

SUCCESS, INVALID_INPUT, LENGTH = 0x00, 0x02, 0x16
DEFAULTS = bytes([0, 10, 25, 8])


def test_control(driver):
    assert driver.send(0x4700) == (SUCCESS, DEFAULTS)
    for control in (b"\3\1\1\0", b"\0\x64\x64\x0f", b"\1\x14\x28\4"):
        assert driver.send(0x4701, control) == (SUCCESS, b"")
        assert driver.send(0x4700) == (SUCCESS, control)


@pytest.mark.parametrize(
    "control",
    [
        *((0, moderate, 100, 8) for moderate in (0, 101, 255)),
        *((0, 10, severe, 8) for severe in (0, 9, 101, 255)),
        *((0, 10, 25, interval) for interval in (16, 255)),
    ],
    ids=str,
)
def test_what_cannot_be_changes_nothing(driver, control):
    driver.send(0x4701, b"\1\x14\x28\4")
    assert driver.send(0x4701, bytes(control)) == (INVALID_INPUT, b"")
    assert driver.send(0x4700) == (SUCCESS, b"\1\x14\x28\4")


@pytest.mark.parametrize("noise", [4, 0x80, 0xFC])
def test_reserved_bits_are_ignored(driver, noise):
    assert driver.send(0x4701, bytes([1 | noise, 20, 40, 4])) == (SUCCESS, b"")
    assert driver.send(0x4700) == (SUCCESS, b"\1\x14\x28\4")


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD, Reset.FLR, Reset.CXL])
def test_resets(device, driver, kind):
    driver.send(0x4701, b"\1\x14\x28\4")
    device.reset(kind)
    kept = kind in (Reset.FLR, Reset.CXL)
    assert driver.send(0x4700) == (SUCCESS, b"\1\x14\x28\4" if kept else DEFAULTS)


def test_status(device, driver):
    assert driver.send(0x4702) == (SUCCESS, b"\0")
    device.inject.backpressure(40)
    assert driver.send(0x4702) == (SUCCESS, b"\x28")
    driver.send(0x4701, b"\0\x0a\x19\0")  # not sampled
    assert driver.send(0x4702) == (SUCCESS, b"\0")
    device.qos.backpressure = 100
    assert driver.send(0x4702) == (SUCCESS, b"\0")
    driver.send(0x4701, b"\0\x0a\x19\1")
    assert driver.send(0x4702) == (SUCCESS, b"\x64")


@pytest.mark.parametrize("percent", [-1, 101, 2.5, True, "7", None])
def test_backpressure_that_cannot_be(device, percent):
    device.qos.backpressure = 7
    with pytest.raises(ValueError, match="from 0 to 100 is allowed"):
        device.inject.backpressure(percent)
    assert device.qos.backpressure == 7
