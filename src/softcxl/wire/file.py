"""A register file: the bytes of one address space, written by software under the declared laws.

The cost of an access does not depend on how many fields it touches: the masks of an access (an offset and a
size) are combined once and kept.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from softcxl.wire.block import Block
from softcxl.wire.errors import DeclarationError, RangeError
from softcxl.wire.hook import hooks_of
from softcxl.wire.law import Reset
from softcxl.wire.register import Register, RegisterLayout

B = TypeVar("B", bound=Block)

_PLANS = 8192  # accesses whose masks are kept: far above what any driver uses, a bound on what a hostile one can grow


class _Listener(NamedTuple):
    start: int  # byte range of the field in the file
    end: int
    offset: int  # its register
    size: int
    lo: int
    ones: int
    call: Callable[..., None]


class _Plan(NamedTuple):
    """What a write of a given offset and size does: masks shifted to the access, and what runs after it."""

    end: int
    rw: int
    keep: int
    w1c: int
    w1s: int
    once: tuple[tuple[int, int], ...]  # (register offset, mask) to freeze after this write
    hooks: tuple[_Listener, ...]


class RegisterFile:
    """`size` bytes of register space, over `buffer` (a writable buffer such as an mmap) or bytes of its own.

    Bytes where nothing is placed read as zero and ignore writes. `read` and `write` are software's accesses;
    values of placed registers are the device's, and meet no law. Not thread-safe: the function that owns it locks.
    """

    def __init__(self, size: int, buffer: Any = None) -> None:
        self.size = size
        self.data: Any = bytearray(size) if buffer is None else buffer
        self._starts: list[int] = []
        self._registers: dict[int, RegisterLayout] = {}
        self._ram: list[tuple[int, int]] = []
        self._resets: dict[int, int] = {}
        self._narrowed: dict[int, int] = {}
        self._writes: list[_Listener] = []
        self._reads: list[_Listener] = []
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._readers: dict[tuple[int, int], tuple[_Listener, ...]] = {}

    # -- building ------------------------------------------------------------------------------------------------

    def place(self, offset: int, block: type[B], *, hooks: object = None) -> B:
        """Put `block` at byte `offset`, at its reset values, and bind the hooks of the object `hooks` that name it.

        Raises `DeclarationError` where it overlaps what is there or does not fit.
        """
        layout = block.__layout__
        if offset < 0 or offset + layout.size > self.size:
            raise DeclarationError(
                f"{layout.name} at {offset:#x} + {layout.size:#x} does not fit {self.size:#x} bytes"
            )
        for placed in layout.registers:
            self._occupy(offset + placed.offset, placed.register.__layout__)
        bound = block(self.data, offset)
        if hooks is not None:
            self.listen(bound, hooks)
        return bound

    def listen(self, block: Block, hooks: object) -> None:
        """Bind the hooks of the object `hooks` that name registers of the placed `block`."""
        for hook, call in hooks_of(hooks, type(block)):
            register = block.base + hook.offset
            first, last = hook.lo // 8, (hook.lo + hook.ones.bit_length() - 1) // 8
            listener = _Listener(
                register + first, register + last + 1, register, hook.size, hook.lo, hook.ones, call
            )
            (self._writes if hook.write else self._reads).append(listener)
        self._forget()

    def ram(self, offset: int, size: int) -> None:
        """Make `size` bytes from `offset` plain memory: software reads back what it wrote."""
        if offset < 0 or size <= 0 or offset + size > self.size:
            raise DeclarationError(f"{size:#x} bytes at {offset:#x} do not fit {self.size:#x} bytes")
        self._ram.append((offset, offset + size))
        self._forget()

    def seal(self) -> None:
        """Take the values as the builder left them for what every later reset returns to."""
        for offset, layout in self._registers.items():
            self._resets[offset] = self._value(offset, layout.size)

    def _occupy(self, offset: int, layout: RegisterLayout) -> None:
        at = bisect_left(self._starts, offset)
        before = self._starts[at - 1] if at else None
        if before is not None and before + self._registers[before].size > offset:
            raise DeclarationError(
                f"{layout.name} at {offset:#x} overlaps {self._registers[before].name} at {before:#x}"
            )
        if at < len(self._starts) and self._starts[at] < offset + layout.size:
            after = self._starts[at]
            raise DeclarationError(
                f"{layout.name} at {offset:#x} overlaps {self._registers[after].name} at {after:#x}"
            )
        insort(self._starts, offset)
        self._registers[offset] = layout
        self._resets[offset] = layout.reset
        self.data[offset : offset + layout.size] = layout.reset.to_bytes(layout.size, "little")
        self._forget()

    def _forget(self) -> None:
        self._plans.clear()
        self._readers.clear()

    # -- software's accesses -------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Read as software does: read hooks run first. Raises `RangeError` outside the file."""
        if self._reads:
            listeners = self._readers.get((offset, size))
            if listeners is None:
                listeners = self._overlapping(self._reads, offset, size)
                if len(self._readers) < _PLANS:
                    self._readers[offset, size] = listeners
            for listener in listeners:
                listener.call()
        if offset < 0 or offset + size > self.size:
            raise RangeError(f"read of {size} bytes at {offset:#x} lies outside {self.size:#x} bytes")
        return bytes(self.data[offset : offset + size])

    def peek(self, offset: int, size: int) -> bytes:
        """Read as a debugger does: nothing happens."""
        if offset < 0 or offset + size > self.size:
            raise RangeError(f"peek of {size} bytes at {offset:#x} lies outside {self.size:#x} bytes")
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write as software does: laws apply, then hooks run. Raises `RangeError` outside the file."""
        size = len(data)
        end, rw, keep, w1c, w1s, once, hooks = self._plans.get((offset, size)) or self._plan(offset, size)
        raw = int.from_bytes(data, "little")
        memory = self.data
        old = int.from_bytes(memory[offset:end], "little")
        new = (old & keep | raw & rw) & ~(raw & w1c) | raw & w1s
        if not hooks:
            memory[offset:end] = new.to_bytes(size, "little")
            if once:
                self._freeze(once)
            return
        was = [self._value(listener.offset, listener.size) for listener in hooks]
        memory[offset:end] = new.to_bytes(size, "little")
        self._freeze(once)
        for listener, value in zip(hooks, was, strict=True):
            now = self._value(listener.offset, listener.size)
            listener.call(value >> listener.lo & listener.ones, now >> listener.lo & listener.ones)

    def _value(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def _overlapping(self, listeners: list[_Listener], offset: int, size: int) -> tuple[_Listener, ...]:
        return tuple(one for one in listeners if one.start < offset + size and offset < one.end)

    def _covered(self, offset: int, size: int) -> list[int]:
        """Offsets of the registers that an access touches."""
        at = bisect_left(self._starts, offset)
        if at and self._starts[at - 1] + self._registers[self._starts[at - 1]].size > offset:
            at -= 1
        found = []
        while at < len(self._starts) and self._starts[at] < offset + size:
            found.append(self._starts[at])
            at += 1
        return found

    def _plan(self, offset: int, size: int) -> _Plan:
        if offset < 0 or offset + size > self.size:
            raise RangeError(f"write of {size} bytes at {offset:#x} lies outside {self.size:#x} bytes")
        full = (1 << 8 * size) - 1
        rw = w1c = w1s = 0
        once = []
        for start in self._covered(offset, size):
            layout = self._registers[start]
            live = ~self._narrowed.get(start, 0)
            shift = 8 * (start - offset)

            def shifted(mask: int, shift: int = shift) -> int:
                return (mask << shift if shift >= 0 else mask >> -shift) & full

            rw |= shifted(layout.rw & live)
            w1c |= shifted(layout.w1c & live)
            w1s |= shifted(layout.w1s & live)
            frozen = sum(
                field.mask for field in layout.fields if field.law.once and shifted(_lanes(field.mask))
            )
            if frozen & live:
                once.append((start, frozen))
        for start, end in self._ram:
            first, last = max(start, offset), min(end, offset + size)
            if first < last:
                rw |= ((1 << 8 * (last - first)) - 1) << 8 * (first - offset)
        plan = _Plan(
            offset + size,
            rw,
            full & ~rw,
            w1c,
            w1s,
            tuple(once),
            self._overlapping(self._writes, offset, size),
        )
        if len(self._plans) >= _PLANS:
            self._plans.clear()
        self._plans[offset, size] = plan
        return plan

    # -- narrowing and reset -------------------------------------------------------------------------------------

    def _freeze(self, masks: tuple[tuple[int, int], ...]) -> None:
        for offset, mask in masks:
            self._narrowed[offset] = self._narrowed.get(offset, 0) | mask
        if masks:
            self._plans.clear()

    def _within(self, part: Block | Register) -> list[int]:
        if isinstance(part, Block):
            return self._covered(part.base, type(part).__layout__.size)
        return self._covered(part._at, type(part).__layout__.size)

    def lock(self, part: Block | Register) -> None:
        """Stop the `RWL` fields of a placed block or register from taking writes, until `unlock` or reset."""
        self._freeze(tuple((offset, self._registers[offset].lockable) for offset in self._within(part)))

    def unlock(self, part: Block | Register) -> None:
        """Let the `RWL` fields of a placed block or register take writes again."""
        for offset in self._within(part):
            self._narrowed[offset] = self._narrowed.get(offset, 0) & ~self._registers[offset].lockable
        self._plans.clear()

    def reset(self, kind: Reset = Reset.COLD) -> None:
        """Return every register to its sealed value; sticky fields keep theirs unless the reset is cold.

        Plain memory (`ram`) is not touched. Hooks do not run.
        """
        for offset, layout in self._registers.items():
            keep = 0 if kind is Reset.COLD else layout.sticky
            value = self._value(offset, layout.size) & keep | self._resets[offset] & ~keep
            self.data[offset : offset + layout.size] = value.to_bytes(layout.size, "little")
            if self._narrowed.get(offset):
                self._narrowed[offset] &= keep
        self._plans.clear()


def _lanes(mask: int) -> int:
    """The whole bytes that hold the bits of `mask`."""
    lanes, shift = 0, 0
    while mask >> shift:
        if mask >> shift & 0xFF:
            lanes |= 0xFF << shift
        shift += 8
    return lanes
