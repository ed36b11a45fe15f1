"""A switch's mailbox CCI: the PCI function by which a host that is below the switch manages it (CXL 3.1 §7.2.9).

Another class of device than a memory device, with the same registers: a Register Locator names the device registers,
and those hold a mailbox. The commands behind it are the switch's own, the fabric manager's among them.

Locks: a binding may take those of hosts, whose accesses take the function's. So commands of the switch are run by the
clock, without the function's lock, and software finds the doorbell set a moment longer than that of a memory device.
Likewise what the switch tells is noted, and looked at by the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from softcxl.device.cci import BackgroundState, Cci, CommandError, CommandSet, Later, Reply, command
from softcxl.device.clock import Clock
from softcxl.device.events import EventLogs
from softcxl.device.logs import Log
from softcxl.device.mailbox import MailboxDoor
from softcxl.device.registers import DeviceRegisters
from softcxl.pci.function import Function
from softcxl.pci.region import SharedRegisters
from softcxl.spec.command.base import CelEntry, Command, ReturnCode
from softcxl.spec.command.events import (
    EVENT_NOTIFICATION,
    GET_EVENT_INTERRUPT_POLICY,
    GET_MCTP_EVENT_INTERRUPT_POLICY,
    SET_EVENT_INTERRUPT_POLICY,
    SET_MCTP_EVENT_INTERRUPT_POLICY,
    EventInterruptSetting,
    EventLog,
    EventNotificationRequest,
    GetEventInterruptPolicyResponse,
    InterruptMode,
    MctpEventInterruptPolicy,
    MctpEventInterrupts,
    SetEventInterruptPolicyRequest,
)
from softcxl.spec.command.information import (
    BACKGROUND_OPERATION_STATUS,
    GET_RESPONSE_MESSAGE_LIMIT,
    SET_RESPONSE_MESSAGE_LIMIT,
    BackgroundOperationStatusResponse,
)
from softcxl.spec.command.logs import (
    COMMAND_EFFECTS_LOG,
    GET_LOG,
    GET_SUPPORTED_LOGS,
    GetLogRequest,
    GetSupportedLogsResponse,
)
from softcxl.spec.cxl.device import (
    DEVICE_STATUS_VERSION,
    MAILBOX_PAYLOAD_OFFSET,
    MAILBOX_VERSION,
    MEMORY_DEVICE_STATUS_VERSION,
    DeviceCapabilityId,
    DeviceStatus,
    DeviceType,
    Mailbox,
    MemoryDevice,
)
from softcxl.spec.cxl.dvsec import (
    REGISTER_BLOCK_ALIGNMENT,
    VENDOR_CXL,
    RegisterBlockId,
    RegisterLocatorDvsec,
)
from softcxl.spec.pci.extended import AdvancedErrorReporting, DeviceSerialNumber
from softcxl.spec.pci.header import CLASS_CXL_SWITCH_MAILBOX_CCI
from softcxl.switch.fm.generic import SwitchLogs
from softcxl.wire import Reset, on_read

MAILBOX_CCI_ID = 0x0013
"""PCI device ID of a switch's mailbox CCI."""

BAR = 2
"""Which BAR its registers are in, as those of memory devices are; the Register Locator tells."""

_PAGE = 4096
_STATUS, _READY = 0x80, 0x90
_MAPPED = 2 * _PAGE
_MAILBOX = _MAPPED - Mailbox.command.__layout__.offset  # what of it can be mapped begins on a page

_LOGS = (EventLog.INFORMATIONAL, EventLog.WARNING, EventLog.FAILURE, EventLog.FATAL)
_BACKGROUND = MctpEventInterrupts.background_operation.mask
_MESSAGES = frozenset(
    declared.opcode
    for declared in (
        GET_RESPONSE_MESSAGE_LIMIT,
        SET_RESPONSE_MESSAGE_LIMIT,
        GET_MCTP_EVENT_INTERRUPT_POLICY,
        SET_MCTP_EVENT_INTERRUPT_POLICY,
        EVENT_NOTIFICATION,
    )
)
"""Commands of interfaces that are spoken to in messages: no mailbox has them."""


class Interface(Protocol):
    """A command interface of the switch. It takes the locks that it needs."""

    @property
    def payload_max(self) -> int: ...

    def execute(self, opcode: int, payload: bytes = b"") -> Reply: ...

    def close(self) -> None: ...


class Managed(Protocol):
    """What the function shows of its switch."""

    @property
    def serial(self) -> int: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def events(self) -> EventLogs: ...

    def management(
        self, send: Callable[[EventNotificationRequest], None], vcs: int | None = None
    ) -> Interface: ...


class SwitchMailboxCci(Function):
    """The mailbox CCI called `name` of `switch`, with the switch's serial number.

    A switch can have several, each with a background operation and an interrupt policy of its own. Vector 0 is the
    mailbox's, the next ones the event logs', as far as there are so many. `vcs` is the virtual switch of the host that
    has it: by it that host names its domain (CXL 3.1 §7.6.7.1.6). Raises `ValueError` for another kind of
    `interrupts` than "msi" and "msix".
    """

    def __init__(
        self, name: str, switch: Managed, *, interrupts: str = "msi", vcs: int | None = None
    ) -> None:
        super().__init__(
            vendor_id=VENDOR_CXL,
            device_id=MAILBOX_CCI_ID,
            class_code=CLASS_CXL_SWITCH_MAILBOX_CCI,
            interrupts=interrupts,
        )
        self.name, self.switch = name, switch
        self.serial = switch.serial
        self.aer = self.add_extended(AdvancedErrorReporting)
        self.add_extended(DeviceSerialNumber).serial_number.value = switch.serial
        self.locator = self.add_extended(RegisterLocatorDvsec)
        self.locator.block1_low.bar, self.locator.block1_low.block_id = BAR, RegisterBlockId.DEVICE
        self.locator.header1.length = 0x14  # with one entry
        self._told: deque[int] = deque()  # what the switch has told of, and has not been looked at
        self._door = switch.management(self._notified, vcs)
        self._door.execute(
            SET_MCTP_EVENT_INTERRUPT_POLICY.opcode,
            MctpEventInterruptPolicy(
                settings=MctpEventInterrupts(_BACKGROUND | sum(1 << log for log in _LOGS))
            ).pack(),
        )
        self.policy = InterruptPolicy(self.vectors[interrupts])
        self.cci = _SwitchCci(switch.clock, self, self._door)
        self.cci.add([self.policy])
        effects = _effects(self._door, self.cci.handlers.values())
        logs = SwitchLogs(self.cci)
        logs.logs = {COMMAND_EFFECTS_LOG: Log(lambda: len(effects), lambda: effects)}
        self.cci.add([logs])
        self._add_registers()
        self.finish()

    def _add_registers(self) -> None:
        payload = self.cci.payload_max
        mapped = -(-(_MAILBOX + MAILBOX_PAYLOAD_OFFSET + payload) // _PAGE) * _PAGE - _MAPPED
        size = max(REGISTER_BLOCK_ALIGNMENT, 1 << (_MAPPED + mapped - 1).bit_length())
        self._file = SharedRegisters(size, f"{self.name}-registers")
        self.device_registers = DeviceRegisters(self._file, DeviceType.SWITCH)
        self.status = self.device_registers.add(
            _STATUS, DeviceCapabilityId.DEVICE_STATUS, DEVICE_STATUS_VERSION, DeviceStatus, hooks=self
        )
        self.mailbox = MailboxDoor(self._file, _MAILBOX, self.cci, vector=0, interrupt=self.interrupt)
        self.cci.answered = self.mailbox.release
        self.mailbox.registers.capabilities.type = DeviceType.SWITCH
        self.device_registers.list_capability(
            DeviceCapabilityId.PRIMARY_MAILBOX, MAILBOX_VERSION, _MAILBOX, MAILBOX_PAYLOAD_OFFSET + payload
        )
        # As QEMU's has it: the capability that says of a memory device whether its mailbox is ready, and of no media.
        ready = self.device_registers.add(
            _READY, DeviceCapabilityId.MEMORY_DEVICE_STATUS, MEMORY_DEVICE_STATUS_VERSION, MemoryDevice
        )
        ready.status.mailbox_ready = True
        rest = sum(self.mailbox.payload_range)
        if rest < _MAPPED + mapped:
            self._file.ram(rest, _MAPPED + mapped - rest)
        self.add_bar(BAR, self._file, [(_MAPPED, mapped)])

    def __repr__(self) -> str:
        return f"<mailbox CCI {self.name}: serial {self.serial:#x}>"

    def close(self) -> None:
        """Let go of the switch and the registers. It must not be attached."""
        with self.lock:
            self.cci.closed = True
        self._door.close()
        self._file.close()

    # -- behaviour -------------------------------------------------------------------------------------------------

    def _notified(self, notification: EventNotificationRequest) -> None:
        """Locks of the switch's are held."""
        self._told.append(int(notification.events))
        self.switch.clock.call_later(0, self._look)

    def _look(self) -> None:
        told = self._told.popleft()
        if told & _BACKGROUND:
            self.cci.look()
        with self.lock:
            if self.cci.closed:
                return
            if told & _BACKGROUND:
                self.mailbox.background_ended()
            for log in _LOGS:
                if told >> log & 1 and self.policy.interrupts(log):
                    self.interrupt(self.policy.vectors[log])

    @on_read(DeviceStatus.event_status)
    def _show_events(self) -> None:
        logs = self.switch.events.logs
        self.status.event_status.assign(sum(1 << log for log in _LOGS if logs[log].records))

    def on_reset(self, kind: Reset) -> None:
        """The mailbox and the interrupt policy are as after power-on. The switch is no part of the function, and what
        runs in its background goes on."""
        super().on_reset(kind)
        self._file.reset(kind)
        self.policy.reset()
        self.mailbox.reset()


def _effects(door: Interface, more: Iterable[tuple[Command, object]]) -> bytes:
    """The Command Effects Log: that of the interface behind the mailbox, but for what no mailbox has, and `more`."""
    sizes = GetSupportedLogsResponse.unpack(door.execute(GET_SUPPORTED_LOGS.opcode).payload).logs
    size = next(log.size for log in sizes if log.identifier == COMMAND_EFFECTS_LOG)
    request = GetLogRequest(identifier=COMMAND_EFFECTS_LOG, offset=0, length=size)
    log = door.execute(GET_LOG.opcode, request.pack()).payload
    step = CelEntry.__layout__.size
    entries = {(entry := CelEntry.unpack(log[at : at + step])).opcode: entry for at in range(0, size, step)}
    entries |= {one.opcode: CelEntry(opcode=one.opcode, effects=one.effects) for one, _ in more}
    return b"".join(entries[opcode].pack() for opcode in sorted(entries.keys() - _MESSAGES))


class InterruptPolicy(CommandSet):
    """Get and Set Event Interrupt Policy of a function with so many `vectors`."""

    def __init__(self, vectors: int) -> None:
        self.vectors = {log: min(1 + log, vectors - 1) for log in _LOGS}
        self.reset()

    def reset(self) -> None:
        """No log interrupts."""
        self._modes = dict.fromkeys(_LOGS, InterruptMode.NONE)

    def interrupts(self, log: EventLog) -> bool:
        """Whether software wants to be interrupted by the log."""
        return self._modes[log] is InterruptMode.MSI

    @command(GET_EVENT_INTERRUPT_POLICY)
    def get_interrupt_policy(self) -> GetEventInterruptPolicyResponse:
        informational, warning, failure, fatal = (
            EventInterruptSetting.make(mode=self._modes[log], message_number=self.vectors[log])
            for log in _LOGS
        )
        return GetEventInterruptPolicyResponse(
            informational=informational, warning=warning, failure=failure, fatal=fatal
        )

    @command(SET_EVENT_INTERRUPT_POLICY)
    def set_interrupt_policy(self, request: SetEventInterruptPolicyRequest) -> None:
        """A fifth setting, of dynamic capacity, is ignored: the switch has no such log."""
        if len(request.dynamic_capacity) > 1:
            raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
        modes = [one.mode for one in (request.informational, request.warning, request.failure, request.fatal)]
        if any(mode not in tuple(InterruptMode) for mode in modes):
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._modes = {log: InterruptMode(mode) for log, mode in zip(_LOGS, modes, strict=True)}


class _SwitchCci(Cci):
    """What the mailbox is a door into: the function's own commands, and the switch's, which the clock's thread runs
    without the function's lock. `answered` is called with that lock when a reply is there."""

    def __init__(self, clock: Clock, function: SwitchMailboxCci, door: Interface) -> None:
        super().__init__(clock, function.lock, payload_max=door.payload_max)
        self._door = door
        self.answered: Callable[[], object] = lambda: None
        self.closed = False

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        if opcode in self.handlers:
            return self.run(opcode, payload)
        if opcode in _MESSAGES:
            return Reply(ReturnCode.UNSUPPORTED)
        answer: list[Reply] = []

        def reply() -> Reply:
            return answer[0] if answer else Later(run=reply)

        def ask() -> None:
            given = self._door.execute(opcode, payload)
            if given.code == ReturnCode.BACKGROUND_STARTED:
                self.look()
            with self.lock:
                answer.append(given)
                if not self.closed:
                    self.answered()

        self.clock.call_later(0, ask)
        return reply()

    def progress(self) -> BackgroundState:
        if self.background.running:
            self.clock.call_later(0, self.look)
        return self.background

    def look(self) -> None:
        """Bring what is known of the background operation up to date. The function's lock is not held."""
        answer = self._door.execute(BACKGROUND_OPERATION_STATUS.opcode)
        if answer.code == ReturnCode.SUCCESS:
            found = BackgroundOperationStatusResponse.unpack(answer.payload)
            with self.lock:
                self.background = BackgroundState(
                    found.opcode,
                    found.status.percentage_complete,
                    ReturnCode(found.return_code),
                    found.vendor_status,
                    bool(found.status.in_progress),
                )
