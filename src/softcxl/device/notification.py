"""Events told over MCTP: a manager that cannot be interrupted gets a message (CXL 3.1 §8.2.9.2.6 to §8.2.9.2.8).

These are commands of a CCI over MCTP; a mailbox does not have them. Whoever opens such a door makes a policy for it
and adds it to the door's `Cci`, whose `ended` it also gets::

    policy = NotificationPolicy(device.events, send)
    cci.add([policy])
    cci.ended = policy.background_ended
"""

from __future__ import annotations

from collections.abc import Callable

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.events import EventLogs
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import (
    GET_MCTP_EVENT_INTERRUPT_POLICY,
    SET_MCTP_EVENT_INTERRUPT_POLICY,
    EventLog,
    EventNotificationRequest,
    MctpEventInterruptPolicy,
    MctpEventInterrupts,
)

_BACKGROUND = MctpEventInterrupts.background_operation.mask


class NotificationPolicy(CommandSet):
    """Get and Set MCTP Event Interrupt Policy, for the logs of `events`; nothing is told until it is asked for.

    `send` is called with each Event Notification (opcode 0106h) as it becomes due: when a log that was empty takes a
    record, or a background operation has ended. The device's lock is held then: it only passes the message on.
    """

    def __init__(self, events: EventLogs, send: Callable[[EventNotificationRequest], None]) -> None:
        self._events, self._send = events, send
        self._settings = 0
        events.filled.append(self._filled)

    @property
    def possible(self) -> int:
        """The settings that this device can have, as `MctpEventInterrupts`."""
        return sum(1 << log for log in self._events.logs) | _BACKGROUND

    def reset(self) -> None:
        """A conventional reset: nothing is asked for any more."""
        self._settings = 0

    def close(self) -> None:
        """The door is closed: nothing is sent any more."""
        self._events.filled.remove(self._filled)

    def background_ended(self) -> None:
        """A background operation of the door's CCI has ended."""
        self._notify(_BACKGROUND)

    def _filled(self, log: EventLog) -> None:
        self._notify(1 << log)

    def _notify(self, what: int) -> None:
        if self._settings & what:
            self._send(EventNotificationRequest(events=MctpEventInterrupts(what)))

    @command(GET_MCTP_EVENT_INTERRUPT_POLICY)
    def get_policy(self) -> MctpEventInterruptPolicy:
        return MctpEventInterruptPolicy(settings=MctpEventInterrupts(self._settings))

    @command(SET_MCTP_EVENT_INTERRUPT_POLICY)
    def set_policy(self, request: MctpEventInterruptPolicy) -> MctpEventInterruptPolicy:
        """Answers with what is in effect. What the device does not have cannot be asked for."""
        wanted = int(request.settings)
        if wanted & ~self.possible:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._settings = wanted
        return self.get_policy()
