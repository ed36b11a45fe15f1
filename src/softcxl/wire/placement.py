"""What stands where in a register file, without the values: made once, and shared by all files that are built alike.

A thousand devices of one kind place the same blocks at the same offsets, one after the other. A `Placement` is one
state of that building. The step to the next one is checked and compiled when it is taken first; every later file
finds it made.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from softcxl.wire.access import Wide, word_of
from softcxl.wire.block import Block
from softcxl.wire.errors import DeclarationError
from softcxl.wire.hook import listening

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softcxl.wire.register import RegisterLayout

SMALL = 8
"""Reads of up to so many bytes are looked up in a set of offsets that matter."""

# Accesses whose masks are kept, and the largest of those in bytes: far above what drivers use, and a bound
# on the memory that a hostile one can take.
_PLANS = 8192
_PLANNED = 64
# Steps that are kept of one placement: far more than devices have kinds.
_STEPS = 256

Call = tuple[int, str]
"""A hook: which of the objects that a file's hooks belong to, and the name of its method."""


class _Listener(NamedTuple):
    register: int  # offset of its register in the file
    start: int  # the bytes that hold what it listens to, in the file
    end: int
    lo: int  # its lowest bit, counted from the file's first
    ones: int
    call: Call


class After(NamedTuple):
    """What follows the store of a write: bits to freeze, and hooks.

    Hooks take their values from a word at `start` that holds all that they listen to, as (owner, method, shift, ones).
    """

    once: tuple[tuple[int, int], ...]  # (register offset, mask)
    hooks: tuple[tuple[int, str, int, int], ...]
    start: int
    hull: struct.Struct | Wide


class Plan(NamedTuple):
    """What a write of a given offset and size does: masks shifted to the access, and what runs after it."""

    word: struct.Struct | Wide
    rw: int
    keep: int
    ones: tuple[int, int] | None  # bits that a one clears, and bits that a one sets, if there are any
    after: After | None


Plans = dict[tuple[int, int], Plan]


class Placement:
    """Registers, plain memory and hooks by their place in `size` bytes. Never changed: each step makes another.

    `image` is what the last step put down, as (start, end, bytes); `first` and `end` bound all registers. `plans` are
    those of writes to a file in which nothing is narrowed.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.registers: dict[int, RegisterLayout] = {}
        self.starts: list[int] = []
        self.ram: tuple[tuple[int, int], ...] = ()
        self.image: tuple[tuple[int, int, bytes], ...] = ()
        self.first = self.end = self.owners = 0
        self.plans: Plans = {}
        self.watched: frozenset[int] = frozenset()  # where a small read may touch what a read hook listens to
        self._writes: tuple[_Listener, ...] = ()
        self._reads: tuple[_Listener, ...] = ()
        self._readers: dict[tuple[int, int], tuple[Call, ...]] = {}
        self._steps: dict[object, Placement] = {}

    # -- steps -----------------------------------------------------------------------------------------------

    def place(self, offset: int, block: type[Block]) -> Placement:
        """With `block` at `offset`. Raises `DeclarationError` where it overlaps what is there or does not fit."""
        return self._steps.get((offset, block)) or self._place(offset, block)

    def listen(self, base: int, block: type[Block], owner: type) -> Placement:
        """With the hooks of one more object, of the class `owner`, that name registers of the `block` at `base`;
        this placement, where there are none."""
        return self._steps.get((base, block, owner)) or self._listen(base, block, owner)

    def memory(self, offset: int, size: int) -> Placement:
        """With plain memory. Raises `DeclarationError`."""
        return self._steps.get((offset, size)) or self._memory(offset, size)

    def _place(self, offset: int, block: type[Block]) -> Placement:
        layout = block.__layout__
        self._inside(offset, layout.size, layout.name)
        placed = [(offset + one.offset, one.register.__layout__) for one in layout.registers]
        for start, register in placed:
            self._vacant(start, register.size, layout.name)
        made = self._next()
        made.registers = self.registers | dict(placed)
        made.starts = sorted(made.registers)
        made.image = tuple(
            (start, start + register.size, register.reset.to_bytes(register.size, "little"))
            for start, register in placed
        )
        if placed:
            made.first = made.starts[0]
            made.end = made.starts[-1] + made.registers[made.starts[-1]].size
        return self._keep((offset, block), made)

    def _listen(self, base: int, block: type[Block], owner: type) -> Placement:
        found = listening(owner, block)  # type: ignore[arg-type]  # classes are hashable
        made = self
        if found:
            made = self._next()
            made.owners += 1
            for hook in found:
                register = base + hook.offset
                start = register + hook.lo // 8
                end = register + (hook.lo + hook.ones.bit_length() - 1) // 8 + 1
                call = self.owners, hook.method
                listener = _Listener(register, start, end, 8 * register + hook.lo, hook.ones, call)
                if hook.write:
                    made._writes += (listener,)
                else:
                    made._reads += (listener,)
                    made.watched |= frozenset(range(start - SMALL + 1, end))
            made._writes = tuple(sorted(made._writes, key=lambda one: one.register))
            made._reads = tuple(sorted(made._reads, key=lambda one: one.register))
        return self._keep((base, block, owner), made)

    def _memory(self, offset: int, size: int) -> Placement:
        if size <= 0:
            raise DeclarationError(f"{size} bytes of memory at {offset:#x}")
        self._inside(offset, size, "memory")
        self._vacant(offset, size, "memory")
        made = self._next()
        made.ram += ((offset, offset + size),)
        return self._keep((offset, size), made)

    def _next(self) -> Self:
        made = type(self)(self.size)
        made.registers, made.starts, made.ram = self.registers, self.starts, self.ram
        made.first, made.end, made.owners = self.first, self.end, self.owners
        made._writes, made._reads, made.watched = self._writes, self._reads, self.watched
        return made

    def _keep(self, step: object, made: Placement) -> Placement:
        if len(self._steps) < _STEPS:
            self._steps[step] = made
        return made

    def _inside(self, offset: int, size: int, name: str) -> None:
        if offset < 0 or offset + size > self.size:
            raise DeclarationError(f"{name} at {offset:#x} + {size:#x} does not fit {self.size:#x} bytes")

    def _vacant(self, offset: int, size: int, name: str) -> None:
        for start in self.covered(offset, size):
            raise DeclarationError(
                f"{name} at {offset:#x} overlaps {self.registers[start].name} at {start:#x}"
            )
        for start, end in self.ram:
            if start < offset + size and offset < end:
                raise DeclarationError(f"{name} at {offset:#x} overlaps memory at {start:#x}")

    # -- accesses --------------------------------------------------------------------------------------------

    def covered(self, offset: int, size: int) -> list[int]:
        """Offsets of the registers that an access touches."""
        at = bisect_left(self.starts, offset)
        if at and self.starts[at - 1] + self.registers[self.starts[at - 1]].size > offset:
            at -= 1
        found = []
        while at < len(self.starts) and self.starts[at] < offset + size:
            found.append(self.starts[at])
            at += 1
        return found if size else []

    def readers(self, offset: int, size: int) -> tuple[Call, ...]:
        """The hooks that run before a read."""
        found = self._readers.get((offset, size))
        if found is None:
            found = tuple(one.call for one in _overlapping(self._reads, offset, size))
            if size <= SMALL:
                self._readers[offset, size] = found
        return found

    def plan(
        self, plans: Plans, offset: int, size: int, frozen: Mapping[int, int], locked: Mapping[int, int]
    ) -> Plan:
        """What a write does that lies within the file. `plans` takes it, for the next one; `frozen` and `locked` are
        the bits, by register, that take no write."""
        full = (1 << 8 * size) - 1
        rw = w1c = w1s = 0
        once = []
        for start in self.covered(offset, size):
            layout = self.registers[start]
            live = ~(frozen.get(start, 0) | locked.get(start, 0))
            shift = 8 * (start - offset)
            rw |= _shifted(layout.rw & live, shift) & full
            w1c |= _shifted(layout.w1c & live, shift) & full
            w1s |= _shifted(layout.w1s & live, shift) & full
            if touched := layout.once & live & _shifted(full, -shift):
                once.append((start, touched))
        for start, end in self.ram:
            first, last = max(start, offset), min(end, offset + size)
            if first < last:
                rw |= ((1 << 8 * (last - first)) - 1) << 8 * (first - offset)
        word = word_of(size)
        after = self._after(offset, size, word, tuple(once))
        plan = Plan(word, rw, full & ~rw, (w1c, w1s) if w1c or w1s else None, after)
        if size <= _PLANNED:
            if len(plans) >= _PLANS:
                plans.clear()
            plans[offset, size] = plan
        return plan

    def _after(
        self, offset: int, size: int, word: struct.Struct | Wide, once: tuple[tuple[int, int], ...]
    ) -> After | None:
        listeners = _overlapping(self._writes, offset, size)
        if not listeners and not once:
            return None
        start = min([offset, *(one.start for one in listeners)])
        end = max([offset + size, *(one.end for one in listeners)])
        hull = word if (start, end) == (offset, offset + size) else word_of(end - start)
        return After(once, tuple((*one.call, one.lo - 8 * start, one.ones) for one in listeners), start, hull)


_EMPTY: dict[int, Placement] = {}


def empty(size: int) -> Placement:
    """That of a file of `size` bytes in which nothing is placed yet."""
    found = _EMPTY.get(size)
    if found is None:
        found = Placement(size)
        if len(_EMPTY) < _STEPS:
            _EMPTY[size] = found
    return found


def _overlapping(listeners: tuple[_Listener, ...], offset: int, size: int) -> list[Any]:
    if not size:
        return []
    return [one for one in listeners if one.start < offset + size and offset < one.end]


def _shifted(mask: int, by: int) -> int:
    return mask << by if by >= 0 else mask >> -by
