"""A memory device's command interface for doors other than its mailboxes, such as an MCTP endpoint.

>>> from softcxl.device.type3 import Type3
>>> device = Type3("mem0", volatile=256 << 20, serial=7)
>>> door = device.management(lambda notification: None)
>>> door.execute(0x0001).payload[8:16].hex()
'0700000000000000'

No transport is here: whoever has one hands in opcodes and payloads, with the device's lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from softcxl.device.cci import Cci, CommandError, CommandSet, Reply, command
from softcxl.device.dynamic.owner import OwnerCommands
from softcxl.device.logs import LogCommands
from softcxl.device.notification import NotificationPolicy
from softcxl.spec.command.base import NO_EFFECT, ReturnCode
from softcxl.spec.command.events import (
    GET_EVENT_INTERRUPT_POLICY,
    SET_EVENT_INTERRUPT_POLICY,
    EventNotificationRequest,
)
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
from softcxl.spec.command.logs import COMMAND_EFFECTS_LOG, POPULATE_LOG
from softcxl.spec.pci.header import CommonHeader, Type0Header

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

MESSAGE_LIMITS: Final = range(8, 21)
"""What a message may be limited to, as powers of two in bytes."""

OF_MAILBOXES: Final = (GET_EVENT_INTERRUPT_POLICY.opcode, SET_EVENT_INTERRUPT_POLICY.opcode)
"""Commands about interrupts of a function, which other doors than its mailbox do not have."""


class Component(Protocol):
    """What the component commands tell of: a function with an endpoint's header, its serial number and commands."""

    header: CommonHeader
    serial: int
    cci: Cci


class ComponentCommands(CommandSet):
    """Identify, Background Operation Status, Get and Set Response Message Limit: what a mailbox shows in registers,
    or the function in its configuration space.

    The largest message is the mailbox's payload size. The device cannot keep to less: a lower limit is Invalid Input,
    a higher one is answered with what is in effect.
    """

    def __init__(self, device: Component) -> None:
        self._device = device
        self._limit = device.cci.payload_max.bit_length() - 1

    @command(IDENTIFY)
    def identify(self) -> IdentifyResponse:
        header = self._device.header
        assert isinstance(header, Type0Header), "a device has this one"
        return IdentifyResponse(
            vendor_id=int(header.vendor_id),
            device_id=int(header.device_id),
            subsystem_vendor_id=int(header.subsystem_vendor_id),
            subsystem_id=int(header.subsystem_id),
            serial_number=self._device.serial,
            max_message_size=self._limit,
            component_type=ComponentType.TYPE_3,
        )

    @command(BACKGROUND_OPERATION_STATUS)
    def background_operation_status(self) -> BackgroundOperationStatusResponse:
        state = self._device.cci.progress()
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


class _Logs(LogCommands):
    """The device's logs, with the Command Effects Log of another interface."""

    def __init__(self, device: Type3, cci: Cci) -> None:
        super().__init__(device)
        self._cci = cci
        self.debug, self.dump = device.logs.debug, device.logs.dump
        self.logs = device.logs.logs | {COMMAND_EFFECTS_LOG: self.logs[COMMAND_EFFECTS_LOG]}


class ManagementCci:
    """A door's command interface: the device's commands, and those that no mailbox has, a fabric manager's for dynamic
    capacity (`softcxl.device.dynamic.owner`) among them.

    The device's commands are those of its mailbox, but for Get and Set Event Interrupt Policy, which are about
    interrupts of the function. They run in the device's own `Cci`: there is one background operation in all, and they
    meet the faults of `device.inject` here, too. `send` gets each Event Notification, with the lock held.
    """

    def __init__(self, device: Type3, send: Callable[[EventNotificationRequest], None]) -> None:
        self._device = device
        self.policy = NotificationPolicy(device.events, send)
        self._own = Cci(device.clock, device.lock, payload_max=device.cci.payload_max)
        logs = _Logs(device, self._own)
        self._own.add([ComponentCommands(device), self.policy, logs])
        if device.owns_dynamic:
            self._own.add([OwnerCommands(device.dynamic, device.cci.payload_max)])
        self._here = frozenset(self._own.handlers) - {POPULATE_LOG.opcode}
        for opcode, entry in device.cci.handlers.items():
            if opcode not in OF_MAILBOXES:
                self._own.handlers.setdefault(opcode, entry)
        device.doors.append(self)

    def add(self, one: CommandSet) -> None:
        """Answer the commands of `one` at this door, too."""
        self._own.add([one])
        self._here |= {declared.opcode for declared, _ in one.commands()}

    @property
    def payload_max(self) -> int:
        """The largest payload of a request or response, in bytes."""
        return self._own.payload_max

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        """Answer one command. Never raises. The device's lock is held. A `Later` is for a door that can wait."""
        if len(payload) > self.payload_max:
            return Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)
        if opcode in self._here or opcode not in self._own.handlers:
            return self._own.execute(opcode, payload)
        return self._device.cci.execute(opcode, payload)

    def reset(self) -> None:
        """A conventional reset of the device."""
        self.policy.reset()

    def background_ended(self) -> None:
        """A background operation of the device has ended, whichever door it came by."""
        self.policy.background_ended()

    def close(self) -> None:
        """The door is closed: nothing is sent any more."""
        with self._device.lock:
            self.policy.close()
            self._device.doors.remove(self)
