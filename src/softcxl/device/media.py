"""Erasure: sanitize, which destroys all that the media hold (CXL 3.1 §8.2.9.9.5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import Background, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.media import SANITIZE

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

NEED_MEDIA = frozenset(
    (
        *(0x0100, 0x0201, 0x0202, 0x0401),  # event records and logs, which rest in the media; firmware
        *(0x4100, 0x4101, 0x4102, 0x4103),
        *(0x4300, 0x4301, 0x4302, 0x4303, 0x4304, 0x4305),
        *(0x4400, 0x4401, 0x4402),
    )
)
"""Opcodes answered with Media Disabled while the media are: those whose return codes in the standard include it."""


class MediaCommands(CommandSet):
    """Sanitize. The media are disabled while it runs, which takes `seconds`; then bytes, labels, poison and event
    records are gone. A reset in its midst leaves the work to be done at once: data that were to go do not come
    back."""

    def __init__(self, device: Type3, seconds: float = 1.0) -> None:
        self._device, self.seconds = device, seconds

    @command(SANITIZE)
    def sanitize(self) -> Background:
        self._device.media_disabled = True
        return Background(self.seconds, self._erase)

    def _erase(self) -> ReturnCode:
        device = self._device
        total = device.capacity.total
        device.space.clear(0, total)
        device.labels.clear()
        device.poison.clear(0, total)
        device.events.forget()
        device.media_disabled = False  # what fails before leaves them disabled, as data may be left
        return ReturnCode.SUCCESS
