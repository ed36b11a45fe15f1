"""Faults of the media: parts that decay by the clock, with corrected errors and in the end poison, until repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softcxl.device.clock import Timer
from softcxl.device.geometry import ALL_NIBBLES, LINE, Geometry, Place, Scope
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.maintenance import MaintenanceClass, PprSubclass
from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    DramEvent,
    DramEventType,
    DramValidity,
    EventAddress,
    EventDescriptor,
    EventFlags,
    EventHeader,
    ThresholdEventFlags,
    TransactionType,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

EVERY_PART = DramValidity.make(
    channel=True,
    rank=True,
    nibble_mask=True,
    bank_group=True,
    bank=True,
    row=True,
    column=True,
    sub_channel=True,
)
_BY_SCRUB = (TransactionType.MEDIA_SCRUB, TransactionType.ERROR_CHECK_SCRUB)
_COUNT_MAX = 0xFFFFFF


@dataclass(slots=True, eq=False)
class Fault:
    """A part of the media, `scope` large, that decays at the line `dpa`: every `every` seconds an error of its
    `nibbles` is corrected, and after `endurance` of them the line is lost. A spare takes its place, until a reset or
    (`permanent`) for good."""

    dpa: int
    place: Place
    scope: Scope
    nibbles: int
    every: float
    endurance: int
    errors: int = 0
    spared: bool = False
    timer: Timer | None = None
    step: object = None

    @property
    def worn(self) -> bool:
        """Errors are no longer corrected."""
        return not self.spared and self.errors > self.endurance

    @property
    def maintenance_needed(self) -> bool:
        """Half of what can be corrected has been."""
        return not self.spared and self.errors * 2 >= self.endurance


class MediaFaults:
    """The faults of a device's media, and the events that come of them.

    `corrected_at` are called with the DPA and the number of errors that were corrected there; `needy` with a fault
    whose errors call for maintenance.
    """

    def __init__(self, device: Type3) -> None:
        self._device = device
        self.geometry = Geometry.of(device.capacity.end)
        self.all: list[Fault] = []
        self.corrected_at: list[Callable[[int, int], None]] = []
        self.needy: Callable[[Fault], None] = lambda fault: None

    def add(
        self,
        dpa: int,
        *,
        scope: Scope = Scope.ROW,
        nibbles: int = 1,
        every: float = 3600.0,
        endurance: int = 10,
    ) -> Fault:
        """From now on the media decay at `dpa` (see `Fault`). Raises `ValueError` for what cannot be. Safe from any
        thread."""
        self._check(dpa, nibbles)
        if every <= 0 or endurance < 0:
            raise ValueError(
                f"every {every} s, endurance {endurance}: more than 0, and 0 or more, are allowed"
            )
        with self._device.lock:
            fault = Fault(dpa & -LINE, self.geometry.place(dpa), scope, nibbles, every, endurance)
            self.all.append(fault)
            self._wait(fault)
            return fault

    def correct(
        self,
        dpa: int,
        count: int = 1,
        *,
        nibbles: int = 1,
        by: TransactionType = TransactionType.UNKNOWN,
    ) -> None:
        """`count` errors at `dpa` are corrected: they are counted, and logged as one. Raises `ValueError` for what
        cannot be. Safe from any thread."""
        self._check(dpa, nibbles)
        if not 1 <= count <= _COUNT_MAX:
            raise ValueError(f"{count} corrected errors: 1 to {_COUNT_MAX} are allowed")
        with self._device.lock:
            self._correct(dpa & -LINE, count, nibbles, by, needy=False)

    def worn(self, dpa: int, length: int) -> list[int]:
        """The lines of a range that are bad whatever is stored there."""
        return [one.dpa for one in self.all if one.worn and dpa <= one.dpa < dpa + length]

    def covered(self, scope: Scope, place: Place, sub_channel: int | None, nibbles: int) -> list[Fault]:
        """The faults that a repair of such a part takes away."""
        return [
            fault
            for fault in self.all
            if fault.scope <= scope
            and fault.place.within(scope) == place.within(scope)
            and sub_channel in (None, fault.place.sub_channel)
            and not fault.nibbles & ~nibbles
        ]

    def spare(self, faults: list[Fault]) -> None:
        """Spare media take the place of faulty ones. Data stay, and so does poison, until it is cleared. The function's
        lock is held."""
        for fault in faults:
            fault.spared = True
            self._still(fault)

    def unspare(self, faults: list[Fault]) -> None:
        """Repairs end: the faults are there again. The function's lock is held."""
        for fault in faults:
            if fault not in self.all:  # mended meanwhile
                continue
            fault.spared = False
            if fault.worn:
                self._device.poison.spoil(fault.dpa)
            else:
                self._wait(fault)

    def mend(self) -> None:
        """The media have no faults any more; poison stays. Safe from any thread."""
        with self._device.lock:
            self.close()
            self.all.clear()

    def close(self) -> None:
        """Nothing decays any more."""
        for fault in self.all:
            self._still(fault)

    # -- decay ---------------------------------------------------------------------------------------------------

    def _check(self, dpa: int, nibbles: int) -> None:
        if not 0 <= dpa < self._device.capacity.end:
            raise ValueError(f"DPA {dpa:#x}: the device has {self._device.capacity.end:#x} bytes")
        if not 0 < nibbles <= ALL_NIBBLES:
            raise ValueError(f"nibble mask {nibbles:#x}: 1 to {ALL_NIBBLES:#x} are allowed")

    def _wait(self, fault: Fault) -> None:
        step = fault.step = object()
        fault.timer = self._device.clock.call_later(fault.every, lambda: self._decay(fault, step))

    @staticmethod
    def _still(fault: Fault) -> None:
        if fault.timer is not None:
            fault.timer.cancel()
        fault.step = None

    def _decay(self, fault: Fault, step: object) -> None:
        with self._device.lock:
            if fault.step is not step:
                return
            fault.errors += 1
            if fault.worn:
                self._device.poison.spoil(fault.dpa)
                return
            needy = fault.maintenance_needed
            self._correct(fault.dpa, 1, fault.nibbles, TransactionType.UNKNOWN, needy=needy)
            self._wait(fault)
            if needy:
                self.needy(fault)

    # -- what is told --------------------------------------------------------------------------------------------

    def _correct(self, dpa: int, count: int, nibbles: int, by: TransactionType, *, needy: bool) -> None:
        device = self._device
        passed = device.alerts.count_corrected(count, volatile=device.volatile_at(dpa))
        event = self._event(dpa, nibbles, by)
        event.corrected_error_count = count
        if passed:
            event.descriptor = EventDescriptor.make(threshold=True)
            event.threshold_flags = ThresholdEventFlags.make(threshold_exceeded=True)
        if needy:
            header = event.header
            header.flags = EventFlags.make(maintenance_needed=True, maintenance_subclass_valid=True)
            header.maintenance_class, header.maintenance_subclass = MaintenanceClass.PPR, PprSubclass.SOFT
        device.events.record(EventLog.WARNING if passed or needy else EventLog.INFORMATIONAL, event)
        for tell in self.corrected_at:
            tell(dpa, count)

    def threshold(self, dpa: int, count: int, by: TransactionType) -> None:
        """Log that a count of errors, of which the last was at `dpa`, has passed its threshold. The function's lock is
        held."""
        event = self._event(dpa, 0, by)
        event.validity.nibble_mask = False
        event.descriptor = EventDescriptor.make(threshold=True)
        event.threshold_flags = ThresholdEventFlags.make(threshold_exceeded=True)
        event.corrected_error_count = min(count, _COUNT_MAX)
        event.event_type = DramEventType.CME_COUNTER_EXPIRATION
        self._device.events.record(EventLog.WARNING, event)

    def uncorrected(self, dpa: int, by: TransactionType, *, listed: bool) -> None:
        """Log a line that is lost. The function's lock is held."""
        nibbles = next((one.nibbles for one in self.all if one.dpa == dpa), ALL_NIBBLES)
        event = self._event(dpa, nibbles, by)
        event.descriptor = EventDescriptor.make(uncorrectable=True, poison_list_overflow=not listed)
        self._device.events.record(EventLog.FAILURE, event)
        self._device.logs.dump.take((EventLog.FAILURE, event.header.handle))

    def _event(self, dpa: int, nibbles: int, by: TransactionType) -> DramEvent:
        place = self.geometry.place(dpa)
        return DramEvent(
            header=EventHeader(identifier=DRAM_EVENT),
            address=EventAddress.make(dpa=dpa // LINE, volatile=self._device.volatile_at(dpa)),
            event_type=(
                DramEventType.SCRUB_MEDIA_ECC_ERROR if by in _BY_SCRUB else DramEventType.MEDIA_ECC_ERROR
            ),
            transaction_type=by,
            validity=DramValidity(int(EVERY_PART)),
            channel=place.channel,
            rank=place.rank,
            nibble_mask=nibbles,
            bank_group=place.bank_group,
            bank=place.bank,
            row=place.row,
            column=place.column,
            sub_channel=place.sub_channel,
        )
