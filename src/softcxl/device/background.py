"""Background operations, as software asks about them."""

from __future__ import annotations

from softcxl.device.cci import Cci, CommandSet, command
from softcxl.spec.command.information import REQUEST_ABORT_BACKGROUND_OPERATION


class BackgroundCommands(CommandSet):
    """Request Abort Background Operation. How far an operation is, a mailbox shows in its registers; the command
    that asks for it is for other doors only."""

    def __init__(self, cci: Cci) -> None:
        self._cci = cci

    @command(REQUEST_ABORT_BACKGROUND_OPERATION)
    def abort(self) -> None:
        self._cci.abort()
