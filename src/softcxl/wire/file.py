"""A register file: the bytes of one address space, written by software under the declared laws.

The cost of an access does not depend on how many fields it touches: the masks of an access (an offset and a
size) are combined once and kept.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from softcxl.wire.access import Wide, word_of
from softcxl.wire.block import Block
from softcxl.wire.errors import DeclarationError, RangeError
from softcxl.wire.hook import hooks_of
from softcxl.wire.law import Reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from softcxl.wire.register import Register, RegisterLayout

B = TypeVar("B", bound=Block)

# Accesses whose masks are kept, and the largest of those in bytes: far above what drivers use, and a bound
# on the memory that a hostile one can take.
_PLANS = 8192
_PLANNED = 64
# Reads up to this size are looked up in a set of offsets that matter, and taken from the bytes in one call.
_SMALL = 8
_TAKE = tuple(struct.Struct(f"{size}s").unpack_from for size in range(_SMALL + 1))


class _Listener(NamedTuple):
    register: int  # offset of its register in the file
    start: int  # the bytes that hold what it listens to, in the file
    end: int
    lo: int  # its lowest bit, counted from the file's first
    ones: int
    call: Callable[..., None]


class _After(NamedTuple):
    """What follows the store of a write: bits to freeze, and hooks.

    Hooks take their values from a word at `start` that holds all that they listen to, as (call, shift, ones).
    """

    once: tuple[tuple[int, int], ...]  # (register offset, mask)
    hooks: tuple[tuple[Callable[..., None], int, int], ...]
    start: int
    hull: struct.Struct | Wide


class _Plan(NamedTuple):
    """What a write of a given offset and size does: masks shifted to the access, and what runs after it."""

    word: struct.Struct | Wide
    rw: int
    keep: int
    ones: tuple[int, int] | None  # bits that a one clears, and bits that a one sets, if there are any
    after: _After | None


class RegisterFile:
    """`size` bytes of register space, over `buffer` (a writable buffer such as an mmap) or bytes of its own.

    Bytes where nothing is placed read as zero and ignore writes. `read` and `write` are software's accesses;
    values of placed registers are the device's, and meet no law. Not thread-safe: its owner locks.
    """

    def __init__(self, size: int, buffer: Any = None) -> None:
        if buffer is not None:
            with memoryview(buffer) as view:
                if view.readonly or view.nbytes < size or not view.contiguous:
                    raise DeclarationError(f"a register file of {size:#x} bytes needs as many writable ones")
            if isinstance(buffer, memoryview):
                buffer = buffer.cast("B")
        self.size = size
        self.data: Any = bytearray(size) if buffer is None else buffer
        self._starts: list[int] = []
        self._registers: dict[int, RegisterLayout] = {}
        self._ram: list[tuple[int, int]] = []
        self._resets: dict[int, int] = {}  # of registers placed since the last seal
        self._sealed = b""
        self._frozen: dict[int, int] = {}
        self._locked: dict[int, int] = {}
        self._writes: list[_Listener] = []
        self._reads: list[_Listener] = []
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._readers: dict[tuple[int, int], tuple[Callable[..., None], ...]] = {}
        self._watched: set[int] = set()  # where a small read may touch what a read hook listens to

    # -- building --------------------------------------------------------------------------------------------

    def place(self, offset: int, block: type[B], *, hooks: object = None) -> B:
        """Put `block` at byte `offset`, at its reset values, and bind the hooks of `hooks` that name it.

        Raises `DeclarationError` where it overlaps what is there or does not fit.
        """
        layout = block.__layout__
        self._inside(offset, layout.size, layout.name)
        if self._covered(offset, layout.size) or self._ram:
            for placed in layout.registers:
                self._vacant(offset + placed.offset, placed.register.__layout__.size, layout.name)
        memory = self.data
        starts = []
        for at, register, reset in _images(block):  # type: ignore[arg-type]  # classes are hashable
            start = offset + at
            starts.append(start)
            self._registers[start] = register
            self._resets[start] = register.reset
            memory[start : start + register.size] = reset
        self._starts += starts
        if len(self._starts) > len(starts) and self._starts[-len(starts) - 1] > offset:
            self._starts.sort()
        self._plans.clear()
        bound = block(self.data, offset)
        if hooks is not None:
            self.listen(bound, hooks)
        return bound

    def listen(self, block: Block, hooks: object) -> None:
        """Bind the hooks of the object `hooks` that name registers of the placed `block`.

        Hooks that one access sets off run in the order of their registers' offsets; those of one register in
        the order in which they were bound, a class's in the order of its body.
        """
        for hook, call in hooks_of(hooks, type(block)):
            register = block.base + hook.offset
            first, last = hook.lo // 8, (hook.lo + hook.ones.bit_length() - 1) // 8
            start, end = register + first, register + last + 1
            listener = _Listener(register, start, end, 8 * register + hook.lo, hook.ones, call)
            if hook.write:
                self._writes.append(listener)
            else:
                self._reads.append(listener)
                self._watched.update(range(start - _SMALL + 1, end))
        self._writes.sort(key=lambda listener: listener.register)
        self._reads.sort(key=lambda listener: listener.register)
        self._plans.clear()
        self._readers.clear()

    def ram(self, offset: int, size: int) -> None:
        """Make `size` bytes from `offset` plain memory: software reads back what it wrote.

        Raises `DeclarationError` where it overlaps a register or does not fit.
        """
        if size <= 0:
            raise DeclarationError(f"{size} bytes of memory at {offset:#x}")
        self._inside(offset, size, "memory")
        self._vacant(offset, size, "memory")
        self._ram.append((offset, offset + size))
        self._plans.clear()

    def seal(self) -> None:
        """Take the values as the builder left them for what every later reset returns to."""
        end = max((start + register.size for start, register in self._registers.items()), default=0)
        self._sealed = bytes(self.data[:end])
        self._resets.clear()

    def _inside(self, offset: int, size: int, name: str) -> None:
        if offset < 0 or offset + size > self.size:
            raise DeclarationError(f"{name} at {offset:#x} + {size:#x} does not fit {self.size:#x} bytes")

    def _vacant(self, offset: int, size: int, name: str) -> None:
        for start in self._covered(offset, size):
            raise DeclarationError(
                f"{name} at {offset:#x} overlaps {self._registers[start].name} at {start:#x}"
            )
        for start, end in self._ram:
            if start < offset + size and offset < end:
                raise DeclarationError(f"{name} at {offset:#x} overlaps memory at {start:#x}")

    # -- software's accesses ---------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Read as software does: read hooks run first. Raises `RangeError` outside the file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._outside("read", offset, size)
        if size > _SMALL:
            for listener in self._overlapping(self._reads, offset, size):
                listener.call()
            return bytes(self.data[offset : offset + size])
        if offset in self._watched:
            self._before(offset, size)
        found: bytes = _TAKE[size](self.data, offset)[0]
        return found

    def _before(self, offset: int, size: int) -> None:
        """Run the read hooks of a small read."""
        calls = self._readers.get((offset, size))
        if calls is None:
            calls = tuple(one.call for one in self._overlapping(self._reads, offset, size))
            self._readers[offset, size] = calls
        for call in calls:
            call()

    def peek(self, offset: int, size: int) -> bytes:
        """Read as a debugger does: nothing happens."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._outside("peek", offset, size)
        return bytes(self.data[offset : offset + size])

    def poke(self, offset: int, data: bytes) -> None:
        """Write as the device does: no law applies, no hook runs."""
        if offset < 0 or offset + len(data) > self.size:
            raise self._outside("poke", offset, len(data))
        self.data[offset : offset + len(data)] = data

    def write(self, offset: int, data: bytes) -> None:
        """Write as software does: laws apply, then hooks run. Raises `RangeError` outside the file."""
        size = len(data)
        word, rw, keep, ones, after = self._plans.get((offset, size)) or self._plan(offset, size)
        memory = self.data
        (raw,) = word.unpack(data)
        (old,) = word.unpack_from(memory, offset)
        if ones is None:
            new = old & keep | raw & rw
        else:
            w1c, w1s = ones
            new = (old & keep | raw & rw) & ~(raw & w1c) | raw & w1s
        if after is None:
            word.pack_into(memory, offset, new)
            return
        once, hooks, start, hull = after
        if hull is not word:
            (old,) = hull.unpack_from(memory, start)
        word.pack_into(memory, offset, new)
        if hull is not word:
            (new,) = hull.unpack_from(memory, start)
        if once:
            self._narrow(self._frozen, once)
        for call, shift, field in hooks:
            call(old >> shift & field, new >> shift & field)

    def _outside(self, what: str, offset: int, size: int) -> RangeError:
        return RangeError(f"{what} of {size} bytes at {offset:#x} lies outside {self.size:#x} bytes")

    def _value(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def _set(self, offset: int, size: int, value: int) -> None:
        self.data[offset : offset + size] = value.to_bytes(size, "little")

    def _overlapping(self, listeners: list[_Listener], offset: int, size: int) -> list[_Listener]:
        if not size:
            return []
        return [one for one in listeners if one.start < offset + size and offset < one.end]

    def _covered(self, offset: int, size: int) -> list[int]:
        """Offsets of the registers that an access touches."""
        at = bisect_left(self._starts, offset)
        if at and self._starts[at - 1] + self._registers[self._starts[at - 1]].size > offset:
            at -= 1
        found = []
        while at < len(self._starts) and self._starts[at] < offset + size:
            found.append(self._starts[at])
            at += 1
        return found if size else []

    def _plan(self, offset: int, size: int) -> _Plan:
        if offset < 0 or offset + size > self.size:
            raise self._outside("write", offset, size)
        full = (1 << 8 * size) - 1
        rw = w1c = w1s = 0
        once = []
        for start in self._covered(offset, size):
            layout = self._registers[start]
            live = ~(self._frozen.get(start, 0) | self._locked.get(start, 0))
            shift = 8 * (start - offset)
            rw |= _shifted(layout.rw & live, shift) & full
            w1c |= _shifted(layout.w1c & live, shift) & full
            w1s |= _shifted(layout.w1s & live, shift) & full
            if touched := layout.once & live & _shifted(full, -shift):
                once.append((start, touched))
        for start, end in self._ram:
            first, last = max(start, offset), min(end, offset + size)
            if first < last:
                rw |= ((1 << 8 * (last - first)) - 1) << 8 * (first - offset)
        word = word_of(size)
        after = self._after(offset, size, word, tuple(once))
        plan = _Plan(word, rw, full & ~rw, (w1c, w1s) if w1c or w1s else None, after)
        if size <= _PLANNED:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[offset, size] = plan
        return plan

    def _after(
        self, offset: int, size: int, word: struct.Struct | Wide, once: tuple[tuple[int, int], ...]
    ) -> _After | None:
        listeners = self._overlapping(self._writes, offset, size)
        if not listeners and not once:
            return None
        start = min([offset, *(one.start for one in listeners)])
        end = max([offset + size, *(one.end for one in listeners)])
        hull = word if (start, end) == (offset, offset + size) else word_of(end - start)
        return _After(once, tuple((one.call, one.lo - 8 * start, one.ones) for one in listeners), start, hull)

    # -- narrowing and reset ---------------------------------------------------------------------------------

    def _narrow(self, narrowed: dict[int, int], masks: tuple[tuple[int, int], ...]) -> None:
        for offset, mask in masks:
            narrowed[offset] = narrowed.get(offset, 0) | mask
        self._plans.clear()

    def _within(self, part: Block | Register) -> list[int]:
        base = part.base if isinstance(part, Block) else part._at
        if part._data is not self.data:
            raise RangeError(f"{type(part).__name__} is not placed in this register file")
        return self._covered(base, part.__layout__.size)

    def lock(self, part: Block | Register) -> None:
        """Stop the `RWL` fields of a placed block or register from taking writes, until `unlock` or reset."""
        masks = tuple((offset, self._registers[offset].lockable) for offset in self._within(part))
        self._narrow(self._locked, masks)

    def unlock(self, part: Block | Register) -> None:
        """Let the `RWL` fields of a placed block or register take writes again."""
        for offset in self._within(part):
            self._locked.pop(offset, None)
        self._plans.clear()

    def reset(self, kind: Reset = Reset.COLD, keep: Iterable[Block | Register] = ()) -> None:
        """Return every register to its sealed value; sticky fields keep theirs unless the reset is cold, and `keep`
        are placed blocks and registers that it does not reach.

        A field that a reset returns to its value takes writes again, whether it was `RWO` and written or
        `RWL` and locked. Plain memory (`ram`) is not touched. Hooks do not run.
        """
        spared = {offset for part in keep for offset in self._within(part)}
        for offset, layout in self._registers.items():
            if offset in spared:
                continue
            sticky = 0 if kind is Reset.COLD else layout.sticky
            reset = self._resets.get(offset)
            if reset is None:
                reset = int.from_bytes(self._sealed[offset : offset + layout.size], "little")
            value = self._value(offset, layout.size) & sticky | reset & ~sticky
            self._set(offset, layout.size, value)
            for narrowed in (self._frozen, self._locked):
                if offset in narrowed:
                    narrowed[offset] &= sticky
        self._plans.clear()


@lru_cache(maxsize=4096)
def _images(block: Any) -> tuple[tuple[int, RegisterLayout, bytes], ...]:
    """The registers of a block: offset, layout and the bytes of the reset value; many files place the same ones."""
    layouts = [(placed.offset, placed.register.__layout__) for placed in block.__layout__.registers]
    return tuple((at, layout, layout.reset.to_bytes(layout.size, "little")) for at, layout in layouts)


def _shifted(mask: int, by: int) -> int:
    return mask << by if by >= 0 else mask >> -by
