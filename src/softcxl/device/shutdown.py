"""The shutdown state, and how often power went while it was dirty (CXL 3.1 §8.2.9.9.3.4, §9.8)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from softcxl.device.cci import CommandSet, command
from softcxl.spec.command.health import (
    GET_SHUTDOWN_STATE,
    SET_SHUTDOWN_STATE,
    GetShutdownStateResponse,
    SetShutdownStateRequest,
    ShutdownState,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

log = logging.getLogger(__name__)


class ShutdownCommands(CommandSet):
    """Get and Set Shutdown State. Power that goes while the state is dirty, and does not leave time to save what is
    under way, counts as a dirty shutdown, which Get Health Info tells.

    A cold reset and `close` leave the time (a global persistent flush that succeeds). The end of a process that was
    killed does not: the device finds its state dirty when it is made again.
    """

    def __init__(self, device: Type3) -> None:
        self._device = device
        self.state = ShutdownState.CLEAN
        kept = device.page.take("shutdown", lambda section: (bool(section["dirty"]), int(section["count"])))
        if kept is not None:
            dirty, device.health.info.dirty_shutdown_count = kept
            self.state = ShutdownState(dirty)
            self.power_lost(saved=False)

    def power_lost(self, *, saved: bool) -> None:
        """Power has gone, after all was saved or before. Raises `OSError` where that cannot be kept."""
        device = self._device
        with device.lock:
            if self.state is ShutdownState.CLEAN:
                return
            count = device.health.info.dirty_shutdown_count + (not saved)
            self._keep(ShutdownState.CLEAN, count)
            device.health.info = device.health.info.replace(dirty_shutdown_count=count)

    def close(self) -> None:
        """The device is put away, with all saved."""
        try:
            self.power_lost(saved=True)
        except OSError as error:
            log.warning("%s: its next start will count a dirty shutdown: %s", self._device.name, error)

    @command(GET_SHUTDOWN_STATE)
    def get_shutdown_state(self) -> GetShutdownStateResponse:
        return GetShutdownStateResponse(state=self.state)

    @command(SET_SHUTDOWN_STATE)
    def set_shutdown_state(self, request: SetShutdownStateRequest) -> None:
        self._keep(request.state, self._device.health.info.dirty_shutdown_count)

    def _keep(self, state: ShutdownState, count: int) -> None:
        self._device.page.put("shutdown", dirty=state is ShutdownState.DIRTY, count=count)
        self.state = state
