"""Logs: the Command Effects Log, derived from the handlers, and what a device keeps for whoever looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.spec.command.base import CelEntry, Command, CommandEffects, ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.logs import (
    CLEAR_LOG,
    COMMAND_EFFECTS_LOG,
    COMPONENT_STATE_DUMP_LOG,
    ECS_LOG,
    GET_LOG,
    GET_LOG_CAPABILITIES,
    GET_SUPPORTED_LOGS,
    GET_SUPPORTED_LOGS_SUB_LIST,
    POPULATE_LOG,
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
from softcxl.spec.cxl.logs import ComponentStateDump, ComponentStateDumpFlags

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

DEBUG_LOG_MAX = 64 << 10
"""Bytes that the vendor debug log keeps; older ones are dropped."""
DUMP_MAX = 4096
"""Bytes of a component state dump log at most."""
DUMP_SECONDS = 0.1
"""How long populating it takes."""
_AUTO_MAX = 0xFF


@dataclass(slots=True)
class DebugLog:
    """The vendor debug log: lines of text that the device leaves for whoever looks."""

    data: bytearray = field(default_factory=bytearray)

    def note(self, line: str) -> None:
        self.data += line.encode("utf-8") + b"\n"
        del self.data[:-DEBUG_LOG_MAX]


@dataclass(frozen=True, slots=True)
class Log:
    """One log: `size` is the largest it can have, in bytes. What can be done to it, is there."""

    size: Callable[[], int]
    read: Callable[[], bytes]
    clear: Callable[[], None] | None = None
    populate: Callable[[], None] | None = None
    auto: bool = False

    @property
    def parameters(self) -> LogParameters:
        return LogParameters.make(
            clear_supported=self.clear is not None,
            populate_supported=self.populate is not None,
            auto_populate_supported=self.auto,
        )


class StateDump:
    """The component state dump: the device's state as JSON, taken when it is asked for, or when the media fail."""

    def __init__(self, device: Type3) -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        self._dump: ComponentStateDump | None = None
        self._count = 0

    def take(self, why: tuple[EventLog, int] | None = None) -> None:
        """Fill the log with the state as of now. The device does so by itself, with the log and handle of the event
        that is `why`, only where the log is empty."""
        device = self._device
        if why is not None:
            self._count = min(self._count + 1, _AUTO_MAX)
            if self._dump is not None:
                return
        state = {
            "firmware": device.firmware.active,
            "media_disabled": device.media_disabled,
            "security": int(device.security.state),
            "temperature": device.health.info.device_temperature,
            "poison": {"listed": len(device.poison.map), "latent": len(device.poison.latent)},
            "events": {log.name.lower(): len(held.records) for log, held in device.events.logs.items()},
            "spares": device.repair.spares,
            "background": f"{device.cci.background.opcode:04X}h" if device.cci.busy else None,
        }
        data = json.dumps(state).encode()
        log, handle = why or (EventLog.INFORMATIONAL, 0)
        self._dump = ComponentStateDump(
            data_length=len(data),
            event_log=log,
            event_record_handle=handle,
            timestamp=device.timestamp.now(),
            flags=ComponentStateDumpFlags.make(auto_populated=why is not None),
            data=data,
        )

    def read(self) -> bytes:
        if self._dump is None:
            return b""
        return self._dump.replace(auto_populate_count=self._count).pack()


class LogCommands(CommandSet):
    """Get Supported Logs, Get Log, their capabilities and sub-list, Clear Log and Populate Log."""

    def __init__(self, device: Type3) -> None:
        self._cci = device.cci
        self.debug, self.dump = DebugLog(), StateDump(device)
        self._effects = b""
        self.logs: dict[UUID, Log] = {
            COMMAND_EFFECTS_LOG: Log(
                lambda: CelEntry.__layout__.size * len(self._cci.handlers), self.effects
            ),
            VENDOR_DEBUG_LOG: Log(
                lambda: DEBUG_LOG_MAX, lambda: bytes(self.debug.data), self.debug.data.clear, auto=True
            ),
            COMPONENT_STATE_DUMP_LOG: Log(
                lambda: DUMP_MAX, self.dump.read, self.dump.clear, self.dump.take, auto=True
            ),
            ECS_LOG: Log(
                lambda: len(device.ecs.log()),
                lambda: device.ecs.log(),
                lambda: device.ecs.forget(),
                auto=True,
            ),
        }

    def effects(self) -> bytes:
        """The Command Effects Log: an entry for each command that has a handler, by opcode."""
        handlers = self._cci.handlers
        if len(self._effects) != CelEntry.__layout__.size * len(
            handlers
        ):  # handlers are added, never replaced
            self._effects = b"".join(
                CelEntry(opcode=opcode, effects=self._told(declared)).pack()
                for opcode, (declared, _) in sorted(handlers.items())
            )
        return self._effects

    def _told(self, declared: Command) -> CommandEffects:
        """What the log tells of a command: its effects, and whether a secondary mailbox takes it."""
        if declared.background or not self._cci.secondary:
            return declared.effects
        return CommandEffects(int(declared.effects) | CommandEffects.secondary_mailbox_supported.mask)

    def power_on(self) -> None:
        """No log outlives power. The function's lock is held."""
        for log in self.logs.values():
            if log.clear is not None:
                log.clear()

    def _log(self, identifier: UUID) -> Log:
        log = self.logs.get(identifier)
        if log is None:
            raise CommandError(ReturnCode.INVALID_LOG)
        return log

    def _list(self) -> list[SupportedLog]:
        return [SupportedLog(identifier=identifier, size=log.size()) for identifier, log in self.logs.items()]

    @command(GET_SUPPORTED_LOGS)
    def get_supported_logs(self) -> GetSupportedLogsResponse:
        logs = self._list()
        return GetSupportedLogsResponse(count=len(logs), logs=logs)

    @command(GET_LOG)
    def get_log(self, request: GetLogRequest) -> GetLogResponse:
        log = self._log(request.identifier)
        if request.length > self._cci.payload_max or request.offset + request.length > log.size():
            raise CommandError(ReturnCode.INVALID_INPUT)
        return GetLogResponse(data=log.read()[request.offset : request.offset + request.length])

    @command(GET_LOG_CAPABILITIES)
    def get_log_capabilities(self, request: LogIdentifier) -> GetLogCapabilitiesResponse:
        return GetLogCapabilitiesResponse(parameters=self._log(request.identifier).parameters)

    @command(CLEAR_LOG)
    def clear_log(self, request: LogIdentifier) -> None:
        log = self._log(request.identifier)
        if log.clear is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        log.clear()

    @command(
        POPULATE_LOG,
        effects=CommandEffects.make(
            immediate_log_change=True, background_operation=True, abort_supported=True
        ),
    )
    def populate_log(self, request: LogIdentifier) -> Background:
        log = self._log(request.identifier)
        if log.populate is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        populate = log.populate

        def finish() -> ReturnCode:
            populate()
            return ReturnCode.SUCCESS

        return Background(DUMP_SECONDS, finish, abort=lambda: None)

    @command(GET_SUPPORTED_LOGS_SUB_LIST)
    def get_supported_logs_sub_list(
        self, request: GetSupportedLogsSubListRequest
    ) -> GetSupportedLogsSubListResponse:
        every = self._list()
        if request.start_index >= len(every):
            raise CommandError(ReturnCode.INVALID_INPUT)
        logs = every[request.start_index :][: request.max_entries or None]
        return GetSupportedLogsSubListResponse(
            count=len(logs), total=len(every), start_index=request.start_index, logs=logs
        )
