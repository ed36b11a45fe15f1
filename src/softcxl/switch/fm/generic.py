"""Commands that every component has, as a switch has them (CXL 3.1 §8.2.9.1)."""

from __future__ import annotations

from softcxl.device.cci import command
from softcxl.device.management import ComponentCommands
from softcxl.spec.command.information import IDENTIFY, ComponentType, IdentifyResponse


class SwitchComponentCommands(ComponentCommands):
    """Identify, Background Operation Status, Get and Set Response Message Limit."""

    @command(IDENTIFY)
    def identify(self) -> IdentifyResponse:
        """A bridge has no subsystem: those numbers are zero."""
        header = self._device.header
        return IdentifyResponse(
            vendor_id=int(header.vendor_id),
            device_id=int(header.device_id),
            subsystem_vendor_id=0,
            subsystem_id=0,
            serial_number=self._device.serial,
            max_message_size=self._limit,
            component_type=ComponentType.SWITCH,
        )
