"""Erasure: sanitize, which destroys all that the media hold (CXL 3.1 §8.2.9.9.5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import Background, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.media import SANITIZE

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3


class MediaCommands(CommandSet):
    """Sanitize. The media are disabled while it runs, which takes `seconds`; then bytes, labels and poison are
    gone. A reset in its midst leaves the work to be done at once: data that were to go do not come back."""

    def __init__(self, device: Type3, seconds: float = 1.0) -> None:
        self._device, self.seconds = device, seconds

    @command(SANITIZE)
    def sanitize(self) -> Background:
        self._device.media_disabled = True
        return Background(self.seconds, self._erase)

    def _erase(self) -> ReturnCode:
        device = self._device
        device.space.clear(0, device.capacity.total)
        device.labels.clear()
        device.poison.map.remove(0, device.capacity.total)
        device.media_disabled = False
        return ReturnCode.SUCCESS
