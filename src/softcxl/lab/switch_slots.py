"""The slots of QEMU's CXL switch ports.

These ports have no power controller, so that a guest's kernel cannot do the last of what QEMU waits for before a device
leaves: turn the slot's power off (QEMU hw/pci-bridge/cxl_downstream.c, hw/pci/pcie.c). What it can do is turn the power
indicator off, as the last of its work (Linux drivers/pci/hotplug/pciehp_ctrl.c). The rest is done here, as by the
hardware: QEMU looks at what is written to Slot Control, whether the bits are there or not. Written before the kernel
has been asked, it is a device that somebody pulls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from softcxl.lab.errors import MonitorError
from softcxl.lab.qmp import Monitor
from softcxl.lab.qtest import Qtest
from softcxl.spec.pci.bridge import Indicator, PortExpress, SlotControl

ECAM: Final = 0xB0000000
"""Where q35's firmware puts configuration space (SeaBIOS, src/fw/dev-q35.h)."""

_PORT_ID: Final = 0xA12919E5
"""Vendor and device ID of a switch's downstream port."""

_EXPRESS: Final = 0x90
"""Where its PCI Express capability is."""

_SLOT_CONTROL: Final = _EXPRESS + PortExpress.slot_control.__layout__.offset


class SwitchSlots:
    """The slots of a running guest's switches, by the ports' names. Never raises but `MonitorError`."""

    def __init__(self, monitor: Monitor, qtest: Qtest) -> None:
        self._monitor, self._qtest = monitor, qtest

    def indicator(self, port: str) -> Indicator:
        """The slot's power indicator: off once the guest's kernel has let go of what was in it."""
        return SlotControl(self._qtest.read16(self._control(port))).power_indicator

    def pull(self, port: str) -> None:
        """Take what is in the slot away, whoever uses it; the guest sees an empty slot."""
        at = self._control(port)
        before = SlotControl(self._qtest.read16(at))
        off = SlotControl(int(before))
        off.power_indicator, off.power_off = Indicator.OFF, True
        self._qtest.write16(at, int(off))
        self._qtest.write16(at, int(before))

    def _control(self, port: str) -> int:
        """The address of the port's Slot Control register."""
        for bus in self._monitor.execute("query-pci"):
            for one in _functions(bus):
                if one.get("qdev_id") == port:
                    bus_number, slot, number = int(one["bus"]), int(one["slot"]), int(one["function"])
                    base = ECAM + (bus_number << 20 | slot << 15 | number << 12)
                    if self._qtest.read32(base) != _PORT_ID:
                        raise MonitorError(f"{port} is no switch port, or not where its bus number says.")
                    return base + _SLOT_CONTROL
        raise MonitorError(f"QEMU has no port {port}.")


def _functions(bus: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in bus["devices"]:
        yield one
        yield from _functions({"devices": one.get("pci_bridge", {}).get("devices", ())})
