"""Commands that every component has, as a switch has them: which one it is, its logs (CXL 3.1 §8.2.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from softcxl.device.cci import Cci, CommandSet, command
from softcxl.device.logs import Log, LogCommands
from softcxl.device.management import ComponentCommands
from softcxl.spec.command.base import CelEntry, Command
from softcxl.spec.command.information import IDENTIFY, ComponentType, IdentifyResponse
from softcxl.spec.command.logs import CLEAR_LOG, COMMAND_EFFECTS_LOG, POPULATE_LOG

if TYPE_CHECKING:
    from softcxl.switch.physical import PhysicalSwitch

_OF_OTHER_LOGS: Final = (CLEAR_LOG.opcode, POPULATE_LOG.opcode)


class SwitchComponentCommands(ComponentCommands):
    """Identify, Background Operation Status, Get and Set Response Message Limit."""

    @command(IDENTIFY)
    def identify(self) -> IdentifyResponse:
        """A bridge has no subsystem: those numbers are zero."""
        header = self._device.header
        return IdentifyResponse(
            vendor_id=int(header.vendor_id),
            device_id=int(header.device_id),
            subsystem_vendor_id=0,
            subsystem_id=0,
            serial_number=self._device.serial,
            max_message_size=self._limit,
            component_type=ComponentType.SWITCH,
        )


class EventCommands(CommandSet):
    """The commands of the switch's event logs, which whatever happens writes to: each has the logs' lock."""

    def __init__(self, switch: PhysicalSwitch) -> None:
        self._switch = switch

    def commands(self) -> Iterator[tuple[Command, Callable[..., Any]]]:
        for declared, handler in self._switch.events.commands():
            yield declared, self._locked(handler)

    def _locked(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def run(*request: Any) -> Any:
            with self._switch.lock:
                return handler(*request)

        return run


class SwitchLogs(LogCommands):
    """The Command Effects Log of `cci`, the one log that a switch keeps; there is none to clear or populate."""

    def __init__(self, cci: Cci) -> None:
        self._cci, self._effects = cci, b""
        self.logs = {
            COMMAND_EFFECTS_LOG: Log(lambda: CelEntry.__layout__.size * len(cci.handlers), self.effects)
        }

    def commands(self) -> Iterator[tuple[Command, Callable[..., Any]]]:
        return (one for one in super().commands() if one[0].opcode not in _OF_OTHER_LOGS)
