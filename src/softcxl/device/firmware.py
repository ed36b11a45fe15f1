"""Firmware: which revision runs. A single slot that nothing is transferred to."""

from __future__ import annotations

from softcxl.device.cci import CommandSet, command
from softcxl.spec.command.firmware import GET_FW_INFO, FirmwareSlots, GetFwInfoResponse


class FirmwareCommands(CommandSet):
    """Get FW Info. `active` is the revision that runs, at most 16 ASCII characters."""

    def __init__(self, active: str) -> None:
        self.active = active

    @command(GET_FW_INFO)
    def get_fw_info(self) -> GetFwInfoResponse:
        return GetFwInfoResponse(
            slots_supported=1,
            slots=FirmwareSlots.make(active=1),
            slot1_revision=self.active,
        )
