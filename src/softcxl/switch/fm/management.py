"""A switch's command interface, for whoever manages it: each door has one, into the same switch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from softcxl.device.background import BackgroundCommands
from softcxl.device.cci import Background, Cci, Reply
from softcxl.device.management import OF_MAILBOXES
from softcxl.device.notification import NotificationPolicy
from softcxl.spec.command.base import ReturnCode
from softcxl.switch.fm.generic import EventCommands, SwitchComponentCommands, SwitchLogs
from softcxl.switch.fm.mld_port import MldPortCommands
from softcxl.switch.fm.physical_switch import DomainCommands, PhysicalSwitchCommands
from softcxl.switch.fm.virtual_switch import VirtualSwitchCommands

if TYPE_CHECKING:
    from softcxl.device.cci import CommandSet
    from softcxl.spec.command.events import EventNotificationRequest
    from softcxl.spec.pci.header import CommonHeader
    from softcxl.switch.binding import Operation
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.virtual import VirtualSwitch


class Commands:
    """What all doors of `switch` have alike, with the one background operation: the commands in `cci`.

    Doors take `lock`, which comes before all others, for each command. A binding change that has ended is seen to have
    by the next command, whatever the clock is at.
    """

    def __init__(self, switch: PhysicalSwitch) -> None:
        self.lock = threading.RLock()
        self.cci = Cci(switch.clock, self.lock, payload_max=switch.payload_max)
        self.header: CommonHeader = switch.pattern.header
        self.serial = switch.serial
        self.doors: list[SwitchManagement] = []
        self._switch = switch
        self._operation: Operation | None = None
        self.cci.ended = self._ended
        self.mld_ports = MldPortCommands(switch)
        self.sets: list[CommandSet] = [
            EventCommands(switch),
            switch.timestamp,
            BackgroundCommands(self.cci),
            PhysicalSwitchCommands(switch),
            VirtualSwitchCommands(switch, self),
            self.mld_ports,
        ]
        self.cci.add(self.sets)

    def _ended(self) -> None:
        for door in list(self.doors):
            door.policy.background_ended()

    def follow(self, operation: Operation) -> Background:
        """A binding change in the background, whose end is seen as soon as it has ended. It has been set about, or
        is run now."""
        self._operation = operation

        def finish() -> ReturnCode:
            if operation.prompt:
                operation.run()
            operation.give_up(ReturnCode.RETRY_REQUIRED)
            return operation.code or ReturnCode.SUCCESS

        operation.ended.append(self._look_soon)
        return Background(
            0 if operation.prompt else self._switch.patience,
            finish,
            abort=lambda: operation.give_up(ReturnCode.ABORTED),
        )

    def _look_soon(self) -> None:
        """Locks may be held that come after ours."""
        self._switch.clock.call_later(0, self.look)

    def look(self) -> None:
        """See whether the binding change under way has ended."""
        with self.lock:
            if self._operation is not None and self._operation.prompt:
                self._operation = None
                self.cci.finish()


class SwitchManagement:
    """A door's command interface: the switch's commands, and what is of this door alone. `send` gets each Event
    Notification, with locks held. With `virtual` it is the one of the host at that virtual switch's upstream port,
    which can name its domain, too. Safe from any thread."""

    def __init__(
        self,
        switch: PhysicalSwitch,
        send: Callable[[EventNotificationRequest], None],
        virtual: VirtualSwitch | None = None,
    ) -> None:
        self._commands = commands = switch.commands
        self._logs = switch.lock
        with commands.lock, switch.lock:
            self.policy = NotificationPolicy(switch.events, send)
            self._own = Cci(switch.clock, commands.lock, payload_max=switch.payload_max)
            self._own.add([SwitchComponentCommands(commands), self.policy, SwitchLogs(self._own)])
            if virtual is not None:
                self._own.add([DomainCommands(virtual), PhysicalSwitchCommands(switch, virtual.upstream)])
            self._here = frozenset(self._own.handlers)
            for opcode, entry in commands.cci.handlers.items():
                if opcode not in OF_MAILBOXES:
                    self._own.handlers.setdefault(opcode, entry)
            commands.doors.append(self)

    @property
    def payload_max(self) -> int:
        """The largest payload of a request or response, in bytes."""
        return self._own.payload_max

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        """Answer one command. Never raises."""
        if len(payload) > self.payload_max:
            return Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)
        with self._commands.lock:
            self._commands.look()
            if opcode in self._here or opcode not in self._own.handlers:
                return self._own.execute(opcode, payload)
            return self._commands.cci.execute(opcode, payload)

    def close(self) -> None:
        """The door is closed: nothing is sent any more."""
        with self._commands.lock:
            with self._logs:  # whoever writes to them goes through who is told
                self.policy.close()
            self._commands.doors.remove(self)
