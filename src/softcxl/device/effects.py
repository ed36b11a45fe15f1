"""The logs of a command interface that has no other than its Command Effects Log (CXL 3.1 §8.2.9.5)."""

from __future__ import annotations

from softcxl.device.cci import Cci, CommandError, CommandSet, command
from softcxl.spec.command.base import CelEntry, ReturnCode
from softcxl.spec.command.logs import (
    COMMAND_EFFECTS_LOG,
    GET_LOG,
    GET_SUPPORTED_LOGS,
    GetLogRequest,
    GetLogResponse,
    GetSupportedLogsResponse,
    SupportedLog,
)


class EffectsLog(CommandSet):
    """Get Supported Logs and Get Log, with the Command Effects Log of `cci`."""

    def __init__(self, cci: Cci) -> None:
        self._cci = cci

    def read(self) -> bytes:
        """An entry for each command that has a handler, by opcode."""
        return b"".join(
            CelEntry(opcode=opcode, effects=declared.effects).pack()
            for opcode, (declared, _) in sorted(self._cci.handlers.items())
        )

    @command(GET_SUPPORTED_LOGS)
    def get_supported_logs(self) -> GetSupportedLogsResponse:
        size = CelEntry.__layout__.size * len(self._cci.handlers)
        return GetSupportedLogsResponse(
            count=1, logs=[SupportedLog(identifier=COMMAND_EFFECTS_LOG, size=size)]
        )

    @command(GET_LOG)
    def get_log(self, request: GetLogRequest) -> GetLogResponse:
        if request.identifier != COMMAND_EFFECTS_LOG:
            raise CommandError(ReturnCode.INVALID_LOG)
        log = self.read()
        if request.length > self._cci.payload_max or request.offset + request.length > len(log):
            raise CommandError(ReturnCode.INVALID_INPUT)
        return GetLogResponse(data=log[request.offset : request.offset + request.length])
