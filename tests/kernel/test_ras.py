"""Protocol errors, found by Linux in the device's registers and printed by its tracepoints.

QEMU takes no error message from a vfio-user device, so the port above sends one. Expected words are those of the
kernel's drivers/cxl/core/trace.h.
"""

from __future__ import annotations

import pytest

from softcxl import Fabric, Type3
from softcxl.lab.errors import PlanError
from softcxl.pci.aer import Kind
from tests.kernel.conftest import Linux
from tests.kernel.traces import Traces, until

KERNEL = "own"
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 512MiB, targets: [hb0]}]
"""


@pytest.fixture
def device(guest: Linux, fabric: Fabric) -> Type3:
    """With all unmasked, as platform firmware may leave it: Linux does not do it."""
    device = fabric.devices["mem0"]
    with device.lock:
        device.aer.correctable_mask.internal = device.aer.uncorrectable_mask.internal = False
        device.ras.registers.correctable_mask.assign(0)
        device.ras.registers.uncorrectable_mask.assign(0)
    return device


def test_a_correctable_error(guest: Linux, device: Type3) -> None:
    traces = Traces(guest)
    assert device.ras.inject("mem_data_ecc", correctable=True) is Kind.CORRECTABLE
    guest.machine.signal("mem0", Kind.CORRECTABLE)
    (text,) = traces.wait_texts("cxl_aer_correctable_error")
    assert text.startswith("memdev=mem0 ")
    assert text.endswith(f"serial={0xC0FFEE01}: status: 'Memory Data ECC Error'")
    until(lambda: int(device.ras.registers.correctable_status), lambda status: not status)
    assert int(device.ras.registers.correctable_status) == 0
    assert int(device.aer.correctable_status) == 0


def test_an_uncorrectable_error_with_its_header(guest: Linux, device: Type3) -> None:
    traces = Traces(guest)
    device.ras.inject("mem_address_parity", header=[0x1234, 0x5678])
    device.ras.inject("internal", header=[0x9999])
    guest.machine.signal("mem0", Kind.NON_FATAL)
    (text,) = traces.wait_texts("cxl_aer_uncorrectable_error")
    assert "status: 'Memory Address Parity Error | Component Specific Error'" in text
    assert "first_error: 'Memory Address Parity Error'" in text
    assert until(lambda: "recovery successful" in guest.sh("dmesg"), bool)
    assert int(device.ras.registers.uncorrectable_status) == 0
    assert guest.memdev("mem0") == "mem0"


def test_a_device_that_is_not_there(guest: Linux) -> None:
    with pytest.raises(PlanError, match=r"mem7 is not plugged in; devices that are: mem0\."):
        guest.machine.signal("mem7", Kind.CORRECTABLE)
