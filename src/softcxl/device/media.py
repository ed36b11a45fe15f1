"""Erasure: sanitize, secure erase, and operations on ranges of the media (CXL 3.1 §8.2.9.9.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.media import (
    MEDIA_OPERATIONS,
    SANITIZE,
    SECURE_ERASE,
    DiscoveryArguments,
    DpaRange,
    GeneralSubclass,
    MediaOperationClass,
    MediaOperationsDiscoveryResponse,
    MediaOperationsRequest,
    SanitizeSubclass,
    SupportedOperation,
)
from softcxl.spec.cxl.events import (
    MEMORY_MODULE_EVENT,
    EventHeader,
    MemoryModuleEvent,
    MemoryModuleEventType,
)
from softcxl.wire import WireError

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

NEED_MEDIA = frozenset(
    (
        *(0x0100, 0x0201, 0x0202),  # event records, which rest in the media; firmware
        *(0x4100, 0x4101, 0x4102, 0x4103),
        *(0x4300, 0x4301, 0x4302, 0x4303, 0x4304, 0x4305),
        *(0x4400, 0x4401, 0x4402),
    )
)
"""Opcodes answered with Media Disabled while the media are: those whose return codes in the standard include it, except
Get Log. Software that cannot read the effects log, as Linux at probe, never comes to the Sanitize that ends that."""

NEED_UNLOCKED = frozenset((0x4101, 0x4102, 0x4103))
"""Opcodes answered with Media Disabled while persistent memory is locked, whatever they ask: partitions, labels."""

GRANULARITY = 64
"""Media operations take ranges of whole cache lines, in bytes."""

DISCOVERY: Final = (MediaOperationClass.GENERAL, GeneralSubclass.DISCOVERY)
OPERATIONS: Final = (
    (MediaOperationClass.SANITIZE, SanitizeSubclass.SANITIZE),
    (MediaOperationClass.SANITIZE, SanitizeSubclass.WRITE_ZEROS),
)
"""The operations that discovery tells of; itself it does not tell, as QEMU's does not."""


class MediaCommands(CommandSet):
    """Sanitize, Secure Erase and Media Operations. What runs in the background takes `seconds`.

    Sanitize disables the media; when it has ended, bytes, labels, poison and event records are gone. `unfinished` says
    that one was started and did not end well, by a failure, a reset or the end of the process: then the media stay
    disabled until another has ended (CXL 3.1 §8.2.9.9.5.1).
    """

    def __init__(self, device: Type3, seconds: float = 1.0) -> None:
        self._device, self.seconds = device, seconds
        self.unfinished = device.page.take("sanitize", lambda section: bool(section["unfinished"])) or False

    def barred(self, opcode: int) -> bool:
        """Whether the media are not there for a command."""
        device = self._device
        if device.media_disabled:
            return opcode in NEED_MEDIA and not (opcode == SANITIZE.opcode and self.unfinished)
        return device.security.locked and opcode in NEED_UNLOCKED

    def power_on(self) -> None:
        """After a conventional reset: what was left unfinished still is."""
        if self.unfinished:
            self._device.media_disabled = True

    # -- commands ------------------------------------------------------------------------------------------------

    @command(SANITIZE)
    def sanitize(self) -> Background:
        if self._device.security.state.user_passphrase_set:
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)
        self._leave_unfinished(True)
        self._device.media_disabled = True
        return Background(self.seconds, self._sanitize, interrupted=self.power_on)

    @command(
        SECURE_ERASE,
        effects=CommandEffects.make(immediate_data_change=True, security_state_change=True),
    )
    def secure_erase(self) -> None:
        """All user data get another key, which takes no time: labels are none (`ndctl sanitize-dimm --crypto-erase`
        keeps them, too), and bad media stay bad."""
        if self._device.security.locked:
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)
        for start, end in self._device.own_ranges:
            self._device.space.clear(start, end - start)

    @command(MEDIA_OPERATIONS)
    def media_operations(
        self, request: MediaOperationsRequest
    ) -> MediaOperationsDiscoveryResponse | Background | None:
        operation = request.operation_class, request.operation_subclass
        if operation == DISCOVERY:
            return self._discover(request)
        if operation not in OPERATIONS:
            raise CommandError(ReturnCode.UNSUPPORTED)
        if request.arguments:
            raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
        device, ranges = self._device, request.ranges
        for one in ranges:
            end = one.start + one.length
            if one.start % GRANULARITY or one.length % GRANULARITY or not one.length:
                raise CommandError(ReturnCode.INVALID_INPUT)
            if end > device.dynamic.start and device.dynamic.refusal(
                one.start, one.length, host=device.dynamic_host
            ):
                raise CommandError(ReturnCode.INVALID_INPUT)
            if end > device.capacity.end or device.is_others(one.start, one.length):
                raise CommandError(ReturnCode.INVALID_INPUT)
        if any(device.security.locks(one.start, one.length) for one in ranges):
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)
        return Background(self.seconds, lambda: self._clear(ranges)) if ranges else None

    def _discover(self, request: MediaOperationsRequest) -> MediaOperationsDiscoveryResponse:
        try:
            arguments = DiscoveryArguments.unpack(request.arguments)
        except WireError:
            raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH) from None
        if request.ranges or arguments.start_index >= len(OPERATIONS):
            raise CommandError(ReturnCode.INVALID_INPUT)
        told = OPERATIONS[arguments.start_index : arguments.start_index + arguments.count]
        return MediaOperationsDiscoveryResponse(
            granularity=GRANULARITY,
            total=len(OPERATIONS),
            count=len(told),
            operations=[
                SupportedOperation(operation_class=kind, operation_subclass=sub) for kind, sub in told
            ],
        )

    # -- what they do --------------------------------------------------------------------------------------------

    def _clear(self, ranges: list[DpaRange]) -> ReturnCode:
        for one in ranges:
            self._device.space.clear(one.start, one.length)
            self._device.poison.clear(one.start, one.length)
        return ReturnCode.SUCCESS

    def _sanitize(self) -> ReturnCode:
        try:
            self.wipe()
        except OSError:
            self._tell(EventLog.FAILURE)  # data may be left: the media stay disabled
            raise
        self._tell(EventLog.INFORMATIONAL)
        return ReturnCode.SUCCESS

    def wipe(self) -> None:
        """Leave nothing of what it holds, and have the media there. Raises `OSError`, and then something may be left.
        The lock is held."""
        device = self._device
        for start, end in device.own_ranges:
            device.space.clear(start, end - start)
            device.poison.clear(start, end - start)
        device.labels.clear()
        device.events.forget()
        self._leave_unfinished(False)
        device.media_disabled = False

    def _leave_unfinished(self, unfinished: bool) -> None:
        self._device.page.put("sanitize", unfinished=unfinished)
        self.unfinished = unfinished

    def _tell(self, log: EventLog) -> None:
        """The event of media that can be used again, or of those that cannot."""
        self._device.events.record(
            log,
            MemoryModuleEvent(
                header=EventHeader(identifier=MEMORY_MODULE_EVENT),
                event_type=MemoryModuleEventType.MEDIA_STATUS_CHANGE,
                health=self._device.health.condition(),
            ),
        )
