"""CPMU: performance counters of what the device really does (CXL 3.1 §8.2.7).

What can be counted: CXL.mem requests and responses, one for each line of 64 bytes, of accesses that a host's routing
brings here; mailbox commands and data objects; and clock ticks, a thousand million a second. Memory that a guest or a
program has mapped is reached without the device, and nobody counts that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple

from softcxl.device.clock import Clock, Timer
from softcxl.spec.cxl.cpmu import (
    ANY,
    CONFIGURATION_OFFSET,
    COUNTER_OFFSET,
    EVENT_CAPABILITY_OFFSET,
    FILTER_OFFSET,
    FILTERS,
    WORD,
    BaseEvent,
    CounterConfiguration,
    CounterConfigurationEntry,
    CounterEntry,
    CounterType,
    Cpmu,
    EventCapabilityEntry,
    EventGroup,
    FilterEntry,
    M2sReqEvent,
    M2sRwdEvent,
    S2mDrsEvent,
    S2mNdrEvent,
)
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from softcxl.wire import RegisterFile, on_read, on_write

WIDTH: Final = 48
"""Bits of a counter."""

TICKS: Final = 1_000_000_000
"""Clock ticks a second."""

LINE: Final = 64
"""Bytes that one CXL.mem request is for."""

OWN_GROUP: Final = 0xFF00
"""Event group of the device's own vendor ID: bit 0 mailbox commands, bit 1 data objects answered."""

COMMANDS, OBJECTS = 0, 1


class Group(NamedTuple):
    """Events that one event capability register says: `events` has a bit for each."""

    vendor_id: int
    group: int
    events: int


@dataclass(frozen=True, slots=True)
class Slot:
    """What one counter is: of `group` (by its place) it always counts `events`, unless it is configurable."""

    type: CounterType
    group: int = 0
    events: int = 0


_REQUESTS, _WRITES, _DONE, _DATA, _CLOCK, _OWN = range(6)
_SLOTS = (
    *(Slot(CounterType.CONFIGURABLE) for _ in range(4)),
    # Linux sets a configurable counter to the first group, whatever was asked for (7.3, cxl_pmu_get_event_idx)
    Slot(CounterType.FIXED_FUNCTION, _WRITES, 1 << M2sRwdEvent.MEM_WR),
    Slot(CounterType.FIXED_FUNCTION, _WRITES, 1 << M2sRwdEvent.MEM_WR_PTL),
    Slot(CounterType.FIXED_FUNCTION, _DONE, 1 << S2mNdrEvent.CMP),
    Slot(CounterType.FIXED_FUNCTION, _DATA, 1 << S2mDrsEvent.MEM_DATA),
    Slot(CounterType.FIXED_FUNCTION, _CLOCK, 1 << BaseEvent.CLOCK_TICKS),
    Slot(CounterType.FIXED_FUNCTION, _OWN, 1 << COMMANDS),
    Slot(CounterType.FIXED_FUNCTION, _OWN, 1 << OBJECTS),
    Slot(CounterType.FREE_RUNNING, _CLOCK, 1 << BaseEvent.CLOCK_TICKS),
)


def _groups(vendor_id: int) -> tuple[Group, ...]:
    writes = 1 << M2sRwdEvent.MEM_WR | 1 << M2sRwdEvent.MEM_WR_PTL
    return (
        Group(VENDOR_CXL, EventGroup.M2S_REQ, 1 << M2sReqEvent.MEM_RD),
        Group(VENDOR_CXL, EventGroup.M2S_RWD, writes),
        Group(VENDOR_CXL, EventGroup.S2M_NDR, 1 << S2mNdrEvent.CMP),
        Group(VENDOR_CXL, EventGroup.S2M_DRS, 1 << S2mDrsEvent.MEM_DATA),
        Group(VENDOR_CXL, EventGroup.BASE, 1 << BaseEvent.CLOCK_TICKS),
        Group(vendor_id, OWN_GROUP, 1 << COMMANDS | 1 << OBJECTS),
    )


class PerformanceMonitor:
    """A CPMU register block at `offset` of `file`: four configurable counters for any group, fixed-function ones for
    each event but reads, and a free-running one for clock ticks. Each has an HDM decoder
    filter, which CXL.mem events alone know.

    Every event is in a clock cycle of its own, so that a threshold above one is never reached. `watch` is called
    with whether a running counter counts CXL.mem, for whom that is news. `interrupt` is called with `vector` when a
    counter overflows that is to interrupt. `lock` is the function's.
    """

    def __init__(
        self,
        file: RegisterFile,
        offset: int,
        clock: Clock,
        *,
        vendor_id: int,
        vector: int,
        interrupt: Callable[[int], None],
        lock: AbstractContextManager[object],
        watch: Callable[[bool], None],
    ) -> None:
        self.clock, self._lock = clock, lock
        self._vector, self._interrupt, self._watch = vector, interrupt, watch
        self.registers = file.place(offset, Cpmu, hooks=self)
        groups = _groups(vendor_id)
        for number, group in enumerate(groups):
            entry = file.place(offset + EVENT_CAPABILITY_OFFSET + WORD * number, EventCapabilityEntry)
            entry.capability.vendor_id, entry.capability.group_id = group.vendor_id, group.group
            entry.capability.supported_events = group.events
        capability = self.registers.capability
        capability.counters = len(_SLOTS) - 1
        capability.counter_width = WIDTH
        capability.event_capabilities = len(groups) - 1
        capability.hdm_decoder_filter = True
        capability.freeze = capability.writable_when_frozen = capability.interrupt = True
        capability.interrupt_message_number = vector
        self.counters = [_Counter(self, number, slot, file, offset) for number, slot in enumerate(_SLOTS)]
        self._listening: dict[tuple[int, int], list[_Counter]] = {}
        self._timer: Timer | None = None
        self.reset()

    def reset(self) -> None:
        """After the registers have been reset: every counter begins at zero. The lock is held."""
        for counter in self.counters:
            counter.value = 0
        self.changed()

    def close(self) -> None:
        """Wait for no overflow any more."""
        if self._timer is not None:
            self._timer.cancel()

    # -- what happens ----------------------------------------------------------------------------------------

    def command(self) -> None:
        """The mailbox has run a command. The lock is held."""
        self._count(_OWN, COMMANDS)

    def data_object(self) -> None:
        """A data object has been answered. The lock is held."""
        self._count(_OWN, OBJECTS)

    def read(self, decoder: int, dpa: int, size: int) -> None:
        """`size` bytes at `dpa` have been read through an HDM decoder."""
        lines = (dpa + size - 1) // LINE - dpa // LINE + 1
        with self._lock:
            self._count(_REQUESTS, M2sReqEvent.MEM_RD, lines, decoder)
            self._count(_DATA, S2mDrsEvent.MEM_DATA, lines, decoder)

    def write(self, decoder: int, dpa: int, size: int) -> None:
        """`size` bytes at `dpa` have been written through an HDM decoder."""
        lines = (dpa + size - 1) // LINE - dpa // LINE + 1
        whole = max(0, (dpa + size) // LINE - -(-dpa // LINE))
        with self._lock:
            self._count(_WRITES, M2sRwdEvent.MEM_WR, whole, decoder)
            self._count(_WRITES, M2sRwdEvent.MEM_WR_PTL, lines - whole, decoder)
            self._count(_DONE, S2mNdrEvent.CMP, lines, decoder)

    def _count(self, group: int, event: int, number: int = 1, decoder: int | None = None) -> None:
        for counter in self._listening.get((group, event), ()):
            if counter.filter in (ANY, decoder) or decoder is None:
                counter.add(number)

    # -- time ------------------------------------------------------------------------------------------------

    def ticks(self) -> int:
        """Clock ticks, since any time."""
        return int(self.clock.now() * TICKS)

    def changed(self) -> None:
        """What counts, and what does not, is another now. The lock is held."""
        self._listening = {}
        for counter in self.counters:
            for place in counter.places():
                self._listening.setdefault(place, []).append(counter)
        self._watch(any(group not in (_CLOCK, _OWN) for group, _ in self._listening))
        self._await_overflow()

    def _await_overflow(self) -> None:
        """Be there when the first counter that goes by the clock overflows."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left = [one.left for one in self.counters if one.ticking and one.telling]
        if left:
            self._timer = self.clock.call_later(min(left) / TICKS, self._look)

    def _look(self) -> None:
        with self._lock:
            self.settle()
            self._await_overflow()

    def settle(self) -> None:
        """Bring every counter that goes by the clock up to now."""
        for counter in self.counters:
            counter.settle()

    # -- overflow and freeze ---------------------------------------------------------------------------------

    def overflowed(self, counter: _Counter) -> None:
        """A counter has gone round."""
        registers = self.registers
        registers.overflow_status.overflow |= 1 << counter.number
        configuration = counter.configuration
        if configuration.freeze_on_overflow:
            registers.freeze.freeze = self._implemented
            self._freeze()
        if configuration.interrupt_on_overflow:
            self._interrupt(self._vector)

    @property
    def _implemented(self) -> int:
        return (1 << len(self.counters)) - 1

    @on_read(Cpmu.overflow_status)
    def _refresh(self) -> None:
        self.settle()

    @on_write(Cpmu.freeze)
    def _freeze_as_asked(self, old: int, new: int) -> None:
        self.registers.freeze.freeze = new & self._implemented
        self._freeze()

    def _freeze(self) -> None:
        frozen = int(self.registers.freeze)
        for counter in self.counters:
            counter.freeze(bool(frozen >> counter.number & 1))
        self.changed()


class _Counter:
    """One counter: its registers, and how it goes on.

    It counts one up for each event (`step`), or down of what the clock has counted (`step` -1, inverted: a cycle with
    the event is none without); `by_clock`: one up for each tick.
    """

    def __init__(
        self, monitor: PerformanceMonitor, number: int, slot: Slot, file: RegisterFile, offset: int
    ) -> None:
        self._monitor, self.number, self._slot = monitor, number, slot
        place = offset + CONFIGURATION_OFFSET + WORD * number
        self.configuration = file.place(place, CounterConfigurationEntry, hooks=self).configuration
        place = offset + FILTER_OFFSET + 4 * FILTERS * number
        self._filter = file.place(place, FilterEntry).filter
        self._counter = file.place(offset + COUNTER_OFFSET + WORD * number, CounterEntry, hooks=self).counter
        self.configuration.type = slot.type
        self.configuration.events, self.configuration.event_group_index = slot.events, slot.group
        self.configuration.enable = self._free = slot.type is CounterType.FREE_RUNNING
        self._value, self._since, self._frozen = 0, 0, False

    @property
    def filter(self) -> int:
        """The HDM decoder whose events count, or `ANY`."""
        return self._filter.value

    @property
    def running(self) -> bool:
        return self.configuration.enable and not self._frozen

    @property
    def telling(self) -> bool:
        """Its overflow is noticed."""
        return self.configuration.interrupt_on_overflow or self.configuration.freeze_on_overflow

    @property
    def _of_clock(self) -> bool:
        return self.configuration.event_group_index == _CLOCK and bool(self.configuration.events & 1)

    @property
    def ticking(self) -> bool:
        """It goes by the clock, now."""
        configuration = self.configuration
        if not self.running or configuration.edge:
            return False
        if configuration.invert:
            return configuration.threshold > (1 if self._of_clock else 0)
        return self._of_clock and configuration.threshold <= 1

    @property
    def _step(self) -> int:
        configuration = self.configuration
        if configuration.threshold > 1 or (configuration.invert and not configuration.threshold):
            return 0
        return -1 if configuration.invert and not configuration.edge else 1

    @property
    def left(self) -> int:
        """Counts until it overflows."""
        return (1 << WIDTH) - self.value

    @property
    def value(self) -> int:
        self.settle()
        return self._value

    @value.setter
    def value(self, value: int) -> None:
        self._value, self._since = value & (1 << WIDTH) - 1, self._monitor.ticks()
        self._frozen = bool(int(self._monitor.registers.freeze) >> self.number & 1) and not self._free
        self._show()

    def places(self) -> Iterator[tuple[int, int]]:
        """The groups and events that it listens to."""
        if self.running and self._step:
            group = self.configuration.event_group_index
            for event in range(32):
                if self.configuration.events >> event & 1 and group != _CLOCK:
                    yield group, event

    def settle(self) -> None:
        now = self._monitor.ticks()
        since, self._since = self._since, now
        if self.ticking and now > since:
            self._advance(now - since)

    def add(self, number: int) -> None:
        """So many events have happened."""
        self.settle()
        if self.running and number:
            self._advance(self._step * number)

    def _advance(self, number: int) -> None:
        over, self._value = divmod(self._value + number, 1 << WIDTH)
        self._show()
        if over > 0:
            self._monitor.overflowed(self)

    def _show(self) -> None:
        self._counter.value = self._value

    def freeze(self, frozen: bool) -> None:
        self.settle()
        self._frozen = frozen and not self._free

    @on_read(CounterEntry.counter)
    def _read(self) -> None:
        self.settle()

    @on_write(CounterEntry.counter)
    def _written(self, old: int, new: int) -> None:
        if self._free:
            self._show()
            return
        self.value = new
        self._monitor.changed()

    @on_write(CounterConfigurationEntry.configuration)
    def _configure(self, old: int, new: int) -> None:
        fixed = _FIXED[self._slot.type]
        self.configuration.assign(old)
        self.settle()
        self.configuration.assign(old & fixed | new & ~fixed)
        self._monitor.changed()


_WHAT = CounterConfiguration.events.mask | CounterConfiguration.event_group_index.mask
_FIXED = {
    CounterType.CONFIGURABLE: 0,
    CounterType.FIXED_FUNCTION: _WHAT,
    CounterType.FREE_RUNNING: (1 << 64) - 1,
}
