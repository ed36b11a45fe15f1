"""Commands that every component has: which one it is, its background operation, its logs (CXL 3.1 §8.2.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from softcxl.device.cci import Cci, CommandError, CommandSet, command
from softcxl.device.logs import Log, LogCommands
from softcxl.device.management import MESSAGE_LIMITS
from softcxl.spec.command.base import NO_EFFECT, CelEntry, Command, ReturnCode
from softcxl.spec.command.information import (
    BACKGROUND_OPERATION_STATUS,
    GET_RESPONSE_MESSAGE_LIMIT,
    IDENTIFY,
    SET_RESPONSE_MESSAGE_LIMIT,
    BackgroundOperation,
    BackgroundOperationStatusResponse,
    ComponentType,
    IdentifyResponse,
    ResponseMessageLimit,
)
from softcxl.spec.command.logs import CLEAR_LOG, COMMAND_EFFECTS_LOG, POPULATE_LOG
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from softcxl.switch.port import UPSTREAM_PORT_ID

if TYPE_CHECKING:
    from softcxl.switch.physical import PhysicalSwitch

_OF_OTHER_LOGS: Final = (CLEAR_LOG.opcode, POPULATE_LOG.opcode)


class ComponentCommands(CommandSet):
    """Identify, Background Operation Status, Get and Set Response Message Limit.

    The largest message is the switch's payload size, to which alone it keeps: a lower limit is Invalid Input, a higher
    one is answered with what is in effect.
    """

    def __init__(self, switch: PhysicalSwitch, cci: Cci) -> None:
        self._switch, self._cci = switch, cci
        self._limit = switch.payload_max.bit_length() - 1

    @command(IDENTIFY)
    def identify(self) -> IdentifyResponse:
        """A bridge has no subsystem: those numbers are zero."""
        return IdentifyResponse(
            vendor_id=VENDOR_CXL,
            device_id=UPSTREAM_PORT_ID,
            subsystem_vendor_id=0,
            subsystem_id=0,
            serial_number=self._switch.serial,
            max_message_size=self._limit,
            component_type=ComponentType.SWITCH,
        )

    @command(BACKGROUND_OPERATION_STATUS)
    def background_operation_status(self) -> BackgroundOperationStatusResponse:
        state = self._cci.progress()
        return BackgroundOperationStatusResponse(
            status=BackgroundOperation.make(in_progress=state.running, percentage_complete=state.percent),
            opcode=state.opcode,
            return_code=state.code,
            vendor_status=state.vendor_status,
        )

    @command(GET_RESPONSE_MESSAGE_LIMIT)
    def get_response_message_limit(self) -> ResponseMessageLimit:
        return ResponseMessageLimit(limit=self._limit)

    @command(SET_RESPONSE_MESSAGE_LIMIT, effects=NO_EFFECT)
    def set_response_message_limit(self, request: ResponseMessageLimit) -> ResponseMessageLimit:
        if request.limit not in MESSAGE_LIMITS or request.limit < self._limit:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return self.get_response_message_limit()


class SwitchLogs(LogCommands):
    """The Command Effects Log of `cci`, the one log that a switch keeps; there is none to clear or populate."""

    def __init__(self, cci: Cci) -> None:
        self._cci, self._effects = cci, b""
        self.logs = {
            COMMAND_EFFECTS_LOG: Log(lambda: CelEntry.__layout__.size * len(cci.handlers), self.effects)
        }

    def commands(self) -> Iterator[tuple[Command, Callable[..., Any]]]:
        return (one for one in super().commands() if one[0].opcode not in _OF_OTHER_LOGS)
