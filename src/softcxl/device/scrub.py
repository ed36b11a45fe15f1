"""Scrubbing: patrol scrub, which finds latent poison by the clock, and DDR5 error check scrub, which counts errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError
from softcxl.device.feature import Feature
from softcxl.device.sweep import Sweep
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.features import ERROR_CHECK_SCRUB, PATROL_SCRUB
from softcxl.spec.cxl.events import TransactionType
from softcxl.spec.cxl.scrub import (
    ECS_VERSION,
    PATROL_SCRUB_VERSION,
    EcsCapabilities,
    EcsConfiguration,
    EcsCountMode,
    EcsErrors,
    EcsFruReadable,
    EcsFruWritable,
    EcsLog,
    EcsLogCapabilities,
    EcsLogEntry,
    EcsLogEntryType,
    EcsLogHeader,
    EcsReadable,
    EcsThreshold,
    EcsWritable,
    PatrolScrubCapabilities,
    PatrolScrubCycle,
    PatrolScrubFlags,
    PatrolScrubReadable,
    PatrolScrubWritable,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

HOUR = 3600
CYCLE, CYCLE_MIN = 12, 1
"""Hours of a scrub of all memory: what a device begins with, and the fewest that can be set."""
_GIGABIT = 1 << 27  # bytes
_THRESHOLDS = {
    EcsThreshold.COUNT_256: 256,
    EcsThreshold.COUNT_1024: 1024,
    EcsThreshold.COUNT_4096: 4096,
}


class PatrolScrub(Feature):
    """Device Patrol Scrub Control (CXL 3.2 §8.2.10.9.11.1): all memory is read once in each cycle, from the address on
    where it is. What it finds is listed and logged at once."""

    def __init__(self, device: Type3) -> None:
        on = PatrolScrubFlags.make(enable=True)
        super().__init__(
            PATROL_SCRUB, PatrolScrubWritable(cycle=CYCLE, flags=on).pack(), version=PATROL_SCRUB_VERSION
        )
        self._device = device
        self._sweep = Sweep(device, self._found, endless=True)
        self.changed()

    @property
    def position(self) -> int:
        """The device address where it is."""
        return int(self._sweep.position)

    def readable(self, value: bytes) -> bytes:
        written = PatrolScrubWritable.unpack(value)
        return PatrolScrubReadable(
            capabilities=PatrolScrubCapabilities.make(cycle_changeable=True, real_time_reporting=True),
            cycle=PatrolScrubCycle.make(current=written.cycle, minimum=CYCLE_MIN),
            flags=written.flags,
        ).pack()

    def check(self, value: bytes) -> bytes:
        written = PatrolScrubWritable.unpack(value)
        if written.cycle < CYCLE_MIN:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return written.replace(flags=PatrolScrubFlags.make(enable=written.flags.enable)).pack()

    def changed(self) -> None:
        written = PatrolScrubWritable.unpack(self.value)
        if written.flags.enable:
            at = self._sweep.position if self._sweep.end else 0
            self._sweep.begin(0, self._device.capacity.end, written.cycle * HOUR, at=at)
        else:
            self._sweep.stop()

    def stop(self) -> None:
        """Scrub no more: the device goes."""
        self._sweep.stop()

    def _found(self, line: int) -> None:
        if not self._device.media_disabled:
            self._device.poison.notice(line, TransactionType.MEDIA_SCRUB)


@dataclass(slots=True)
class ErrorCounters:
    """The errors of one media FRU since they were reset: of each row (by its first DPA), and the lines that had any."""

    rows: Counter[int] = field(default_factory=Counter)
    lines: set[int] = field(default_factory=set)
    errors: int = 0
    told: bool = False


class ErrorCheckScrub(Feature):
    """DDR5 ECS Control (CXL 3.2 §8.2.10.9.11.2), and the errors that it counts. Each channel is a media FRU."""

    def __init__(self, device: Type3) -> None:
        frus = device.faults.geometry.channels
        usual = EcsConfiguration.make(threshold=EcsThreshold.COUNT_256)
        default = EcsWritable(
            log_capabilities=EcsLogCapabilities.make(entry_type=EcsLogEntryType.MEDIA_FRU),
            frus=[EcsFruWritable(configuration=usual) for _ in range(frus)],
        )
        super().__init__(ERROR_CHECK_SCRUB, default.pack(), version=ECS_VERSION)
        self._device, self.counters = device, [ErrorCounters() for _ in range(frus)]
        self._again: list[int] = []  # the FRUs whose counters a checked value resets
        device.faults.corrected_at.append(self.count)

    def readable(self, value: bytes) -> bytes:
        written = EcsWritable.unpack(value)
        return EcsReadable(
            log_capabilities=written.log_capabilities,
            frus=[
                EcsFruReadable(
                    capabilities=EcsCapabilities.make(real_time_reporting=True),
                    configuration=one.configuration,
                )
                for one in written.frus
            ],
        ).pack()

    def check(self, value: bytes) -> bytes:
        written = EcsWritable.unpack(value)
        kind = int(written.log_capabilities) & 3
        thresholds = [int(one.configuration) & 7 for one in written.frus]
        if kind not in tuple(EcsLogEntryType) or any(one not in _THRESHOLDS for one in thresholds):
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._again = [number for number, one in enumerate(written.frus) if one.configuration.reset_counter]
        return EcsWritable(
            log_capabilities=EcsLogCapabilities(kind),
            frus=[
                EcsFruWritable(configuration=EcsConfiguration(int(one.configuration) & 0xF))
                for one in written.frus
            ],
        ).pack()

    def changed(self) -> None:
        for number in self._again:
            self.counters[number] = ErrorCounters()
        self._again = []

    def forget(self) -> None:
        """All counters begin again. The function's lock is held."""
        self.counters = [ErrorCounters() for _ in self.counters]

    def count(self, dpa: int, errors: int) -> None:
        """Count errors that were corrected. Those that pass the threshold are an event."""
        geometry = self._device.faults.geometry
        number = geometry.place(dpa).channel
        counters, configuration = self.counters[number], self._configurations()[number]
        counters.rows[self._row(dpa)] += errors
        counters.lines.add(dpa)
        counters.errors += errors
        gigabits = max(1, geometry.capacity // geometry.channels // _GIGABIT)
        if (
            counters.errors > _THRESHOLDS[EcsThreshold(configuration.threshold)] * gigabits
            and not counters.told
        ):
            counters.told = True
            self._device.faults.threshold(dpa, counters.errors, TransactionType.ERROR_CHECK_SCRUB)

    def log(self) -> bytes:
        """The DDR5 ECS Log: an entry for each FRU."""
        entries = []
        for number, (counters, configuration) in enumerate(
            zip(self.counters, self._configurations(), strict=True)
        ):
            worst, most = max(counters.rows.items(), key=lambda one: one[1], default=(0, 0))
            by_rows = configuration.count_mode == EcsCountMode.ROWS
            found = len(counters.rows if by_rows else counters.lines)
            entries.append(
                EcsLogEntry(
                    component_identifier=number.to_bytes(16, "little"),
                    configuration=configuration,
                    errors=EcsErrors.make(
                        error_found=bool(found),
                        error_count=min(found, 0xFFFF),
                        max_row_errors=min(most, 0xFF),
                        max_row_address=worst,
                    ),
                )
            )
        header = EcsLogHeader.make(
            entry_count=len(entries), entry_type=EcsWritable.unpack(self.value).log_capabilities.entry_type
        )
        return EcsLog(header=header, entries=entries).pack()

    def _configurations(self) -> list[EcsConfiguration]:
        return [one.configuration for one in EcsWritable.unpack(self.value).frus]

    def _row(self, dpa: int) -> int:
        """The first DPA of a row."""
        geometry = self._device.faults.geometry
        return geometry.dpa(replace(geometry.place(dpa), column=0))
