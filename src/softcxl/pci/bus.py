"""A logical bus: the functions that one bridge, or a host bridge, has directly below it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from softcxl.pci.region import Bus

if TYPE_CHECKING:
    from softcxl.pci.aer import Message
    from softcxl.pci.bridge import Bridge
    from softcxl.pci.function import Function

DEVICES, FUNCTIONS = 32, 8
"""Devices on a bus, and functions of a device (PCIe 6.0 §7.3.2)."""


class Claim(NamedTuple):
    """Who answers at an address: registers from `start` up to `end`, read and written by their offset there."""

    start: int
    end: int
    read: Callable[[int, int], bytes]
    write: Callable[[int, bytes], None]


class Root(Protocol):
    """What stands above a root bus."""

    lock: AbstractContextManager[object]

    def changed(self) -> None:
        """Something below routes otherwise than before."""

    def reclaimed(self) -> None:
        """Memory addresses are claimed otherwise than before; all else stands."""

    def bus_of(self, function: Function) -> Bus:
        """A function has come to be below: what it can do to the machine."""

    def gone(self, function: Function) -> None:
        """A function is not below any more."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a function sits: on `bus`, as `device` and `number`."""

    bus: LogicalBus
    device: int
    number: int

    @property
    def requester_id(self) -> int:
        """Bus, device and function as messages carry them (PCIe 6.0 §2.2.6.2)."""
        return self.bus.number << 8 | self.device << 3 | self.number


class LogicalBus:
    """Functions by device and function number. `bridge` is the bridge above; a root bus has none, and a `number`
    of its own."""

    def __init__(self, bridge: Bridge | None = None, number: int = 0) -> None:
        self.bridge = bridge
        self.root: Root | None = None
        self.functions: dict[int, Function] = {}
        self._number = number
        self._alone = threading.RLock()
        # What `find` and `claim` go by, made of the functions' registers when it is asked for.
        self._ways: tuple[tuple[int, int, LogicalBus], ...] | None = None
        self._claims: tuple[tuple[int, int, Claim | LogicalBus], ...] | None = None

    @property
    def number(self) -> int:
        """The bus number, as software has set it in the bridge above."""
        return self._number if self.bridge is None else self.bridge.secondary

    @number.setter
    def number(self, number: int) -> None:
        if self.bridge is not None:
            raise ValueError("the bus has the number that the bridge's registers say")
        self._number = number
        self.changed()

    @property
    def lock(self) -> AbstractContextManager[object]:
        """The one lock of the machine. Whoever takes a function's lock too takes this one first."""
        return self._alone if self.root is None else self.root.lock

    def __iter__(self) -> Iterator[Function]:
        return iter(self.functions.values())

    def at(self, device: int, number: int) -> Function | None:
        """The function there, if there is one."""
        return self.functions.get(device << 3 | number)

    def plug(self, function: Function, device: int = 0, number: int = 0) -> None:
        """Seat a function. Raises `ValueError` where the seat is taken, or the function has another."""
        if not (0 <= device < DEVICES and 0 <= number < FUNCTIONS):
            raise ValueError(f"device {device}, function {number}: a bus has 32 devices of 8 functions")
        if function.seat is not None:
            raise ValueError("the function is plugged in elsewhere")
        if device << 3 | number in self.functions:
            raise ValueError(f"device {device}, function {number} is taken")
        function.seat = Seat(self, device, number)
        self.functions[device << 3 | number] = function
        self._connect(function)
        self.changed()

    def unplug(self, function: Function) -> None:
        """Take a function off the bus, with all below it. Raises `ValueError` where it is not on it."""
        seat = function.seat
        if seat is None or seat.bus is not self:
            raise ValueError("the function is not on this bus")
        if self.root is not None:
            self._disconnect(function, self.root)
        del self.functions[seat.device << 3 | seat.number]
        self.changed()
        function.seat = None

    def rise(self, root: Root | None) -> None:
        """The bus has come to be below `root`, or, with None, below nothing."""
        before, self.root = self.root, root
        for function in self:
            if root is not None:
                self._connect(function)
            elif before is not None:
                self._disconnect(function, before)

    def _connect(self, function: Function) -> None:
        if self.root is None:
            return
        function.attach(self.root.bus_of(function))
        if function.below is not None:
            function.below.rise(self.root)

    def _disconnect(self, function: Function, root: Root) -> None:
        function.detach()
        root.gone(function)
        if function.below is not None:
            function.below.rise(None)

    def changed(self) -> None:
        """What is on this bus, or what its functions forward, has changed."""
        self._ways = self._claims = None
        if self.root is not None:
            self.root.changed()

    def reclaimed(self) -> None:
        """The memory addresses that functions of this bus claim or forward have changed."""
        self._claims = None
        if self.root is not None:
            self.root.reclaimed()

    def message(self, message: Message) -> None:
        """An error message from a function of this bus goes up."""
        if self.bridge is not None:
            self.bridge.receive(message)

    def find(self, number: int) -> LogicalBus | None:
        """The bus of that number at or below this one, where every bridge on the way forwards to it."""
        bus = self
        while bus.number != number:
            for first, last, below in bus._forwarded():
                if first <= number <= last:
                    bus = below
                    break
            else:
                return None
        return bus

    def _forwarded(self) -> tuple[tuple[int, int, LogicalBus], ...]:
        if self._ways is None:
            self._ways = tuple(
                (*numbers, function.below)
                for function in self
                if function.below is not None and (numbers := function.forwarded_buses()) is not None
            )
        return self._ways

    def claim(self, address: int) -> Claim | None:
        """Who on this bus or below answers at a memory address."""
        for start, end, taker in self._claimed():
            if start <= address < end:
                return taker if isinstance(taker, Claim) else taker.claim(address)
        return None

    def _claimed(self) -> tuple[tuple[int, int, Claim | LogicalBus], ...]:
        if self._claims is None:
            found: list[tuple[int, int, Claim | LogicalBus]] = []
            for function in self:
                found += [
                    (start, end, _claim(function, start, end, bar)) for start, end, bar in function.claims()
                ]
                if function.below is not None:
                    found += [(start, end, function.below) for start, end in function.forwarded_addresses()]
            self._claims = tuple(found)
        return self._claims


def _claim(function: Function, start: int, end: int, bar: int) -> Claim:
    def read(offset: int, size: int) -> bytes:
        return function.read(bar, offset, size)

    def write(offset: int, data: bytes) -> None:
        function.write(bar, offset, data)

    return Claim(start, end, read, write)
