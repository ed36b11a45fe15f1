"""Background operations, as commands see them: ask how far one is, ask it to stop."""

from __future__ import annotations

from softcxl.device.cci import Cci, CommandSet, command
from softcxl.spec.command.information import (
    BACKGROUND_OPERATION_STATUS,
    REQUEST_ABORT_BACKGROUND_OPERATION,
    BackgroundOperation,
    BackgroundOperationStatusResponse,
)


class BackgroundCommands(CommandSet):
    """Background Operation Status and Request Abort Background Operation."""

    def __init__(self, cci: Cci) -> None:
        self._cci = cci

    @command(BACKGROUND_OPERATION_STATUS)
    def background_operation_status(self) -> BackgroundOperationStatusResponse:
        now = self._cci.progress()
        return BackgroundOperationStatusResponse(
            status=BackgroundOperation.make(in_progress=now.running, percentage_complete=now.percent),
            opcode=now.opcode,
            return_code=now.code,
            vendor_status=now.vendor_status,
        )

    @command(REQUEST_ABORT_BACKGROUND_OPERATION)
    def abort(self) -> None:
        self._cci.abort()
