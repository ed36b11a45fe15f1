"""Logs: the Command Effects Log, derived from the handlers, and a vendor debug log."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from softcxl.device.cci import Cci, CommandError, CommandSet, command
from softcxl.spec.command.base import CelEntry, ReturnCode
from softcxl.spec.command.logs import (
    CLEAR_LOG,
    COMMAND_EFFECTS_LOG,
    GET_LOG,
    GET_LOG_CAPABILITIES,
    GET_SUPPORTED_LOGS,
    GET_SUPPORTED_LOGS_SUB_LIST,
    VENDOR_DEBUG_LOG,
    GetLogCapabilitiesResponse,
    GetLogRequest,
    GetLogResponse,
    GetSupportedLogsResponse,
    GetSupportedLogsSubListRequest,
    GetSupportedLogsSubListResponse,
    LogIdentifier,
    LogParameters,
    SupportedLog,
)

DEBUG_LOG_MAX = 64 << 10
"""Bytes that the vendor debug log keeps; older ones are dropped."""


@dataclass(slots=True)
class DebugLog:
    """The vendor debug log: lines of text that the device leaves for whoever looks."""

    data: bytearray = field(default_factory=bytearray)

    def note(self, line: str) -> None:
        self.data += line.encode("utf-8") + b"\n"
        del self.data[:-DEBUG_LOG_MAX]


class LogCommands(CommandSet):
    """Get Supported Logs, Get Log, their capabilities and sub-list, and Clear Log."""

    def __init__(self, cci: Cci) -> None:
        self._cci = cci
        self.debug = DebugLog()
        self._effects = b""

    def effects(self) -> bytes:
        """The Command Effects Log: an entry for each command that has a handler, by opcode."""
        handlers = self._cci.handlers
        if len(self._effects) != CelEntry.__layout__.size * len(
            handlers
        ):  # handlers are added, never replaced
            self._effects = b"".join(
                CelEntry(opcode=opcode, effects=declared.effects).pack()
                for opcode, (declared, _) in sorted(handlers.items())
            )
        return self._effects

    def _sizes(self) -> dict[UUID, int]:
        return {
            COMMAND_EFFECTS_LOG: CelEntry.__layout__.size * len(self._cci.handlers),
            VENDOR_DEBUG_LOG: DEBUG_LOG_MAX,
        }

    def _known(self, identifier: UUID) -> None:
        if identifier not in self._sizes():
            raise CommandError(ReturnCode.INVALID_LOG)

    @command(GET_SUPPORTED_LOGS)
    def get_supported_logs(self) -> GetSupportedLogsResponse:
        logs = [SupportedLog(identifier=identifier, size=size) for identifier, size in self._sizes().items()]
        return GetSupportedLogsResponse(count=len(logs), logs=logs)

    @command(GET_LOG)
    def get_log(self, request: GetLogRequest) -> GetLogResponse:
        self._known(request.identifier)
        data = self.effects() if request.identifier == COMMAND_EFFECTS_LOG else bytes(self.debug.data)
        size = self._sizes()[request.identifier]
        if request.length > self._cci.payload_max or request.offset + request.length > size:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return GetLogResponse(data=data[request.offset : request.offset + request.length])

    @command(GET_LOG_CAPABILITIES)
    def get_log_capabilities(self, request: LogIdentifier) -> GetLogCapabilitiesResponse:
        self._known(request.identifier)
        clearable = request.identifier == VENDOR_DEBUG_LOG
        return GetLogCapabilitiesResponse(
            parameters=LogParameters.make(clear_supported=clearable, auto_populate_supported=clearable)
        )

    @command(CLEAR_LOG)
    def clear_log(self, request: LogIdentifier) -> None:
        self._known(request.identifier)
        if request.identifier != VENDOR_DEBUG_LOG:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self.debug.data.clear()

    @command(GET_SUPPORTED_LOGS_SUB_LIST)
    def get_supported_logs_sub_list(
        self, request: GetSupportedLogsSubListRequest
    ) -> GetSupportedLogsSubListResponse:
        every = [SupportedLog(identifier=identifier, size=size) for identifier, size in self._sizes().items()]
        if request.start_index >= len(every):
            raise CommandError(ReturnCode.INVALID_INPUT)
        logs = every[request.start_index :][: request.max_entries or None]
        return GetSupportedLogsSubListResponse(
            count=len(logs), total=len(every), start_index=request.start_index, logs=logs
        )
