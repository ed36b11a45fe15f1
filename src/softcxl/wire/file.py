"""A register file: the bytes of one address space, written by software under the declared laws.

The cost of an access does not depend on how many fields it touches: the masks of an access (an offset and a
size) are combined once and kept, by all files that are built alike (`softcxl.wire.placement`).
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Any, TypeVar

from softcxl.wire.block import Block
from softcxl.wire.errors import DeclarationError, RangeError
from softcxl.wire.law import Reset
from softcxl.wire.placement import SMALL, Placement, Plan, empty

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softcxl.wire.register import Register, RegisterLayout

B = TypeVar("B", bound=Block)

_TAKE = tuple(struct.Struct(f"{size}s").unpack_from for size in range(SMALL + 1))

_PAGE = 4096
"""Files above this size take memory for the pages that are used, and no more."""


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
        self.data: Any = _memory(size) if buffer is None else buffer
        self._placement = empty(size)
        self._plans = self._placement.plans
        self._watched = self._placement.watched
        self._owners: list[object] = []  # the objects that hooks belong to, in the order of their binding
        self._sealed = b""
        self._sealing: Placement | None = None  # what was placed when it was sealed
        self._frozen: dict[int, int] = {}
        self._locked: dict[int, int] = {}

    # -- building --------------------------------------------------------------------------------------------

    def place(self, offset: int, block: type[B], *, hooks: object = None) -> B:
        """Put `block` at byte `offset`, at its reset values, and bind the hooks of `hooks` that name it.

        Raises `DeclarationError` where it overlaps what is there or does not fit.
        """
        placement, memory = self._placement.place(offset, block), self.data
        for start, end, reset in placement.image:
            memory[start:end] = reset
        self._become(placement)
        bound = block(memory, offset)
        if hooks is not None:
            self.listen(bound, hooks)
        return bound

    def listen(self, block: Block, hooks: object) -> None:
        """Bind the hooks of the object `hooks` that name registers of the placed `block`.

        Hooks that one access sets off run in the order of their registers' offsets; those of one register in
        the order in which they were bound, a class's in the order of its body.
        """
        placement = self._placement.listen(block.base, type(block), type(hooks))
        if placement is not self._placement:
            self._owners.append(hooks)
            self._become(placement)

    def ram(self, offset: int, size: int) -> None:
        """Make `size` bytes from `offset` plain memory: software reads back what it wrote.

        Raises `DeclarationError` where it overlaps a register or does not fit.
        """
        self._become(self._placement.memory(offset, size))

    def seal(self) -> None:
        """Take the values as the builder left them for what every later reset returns to."""
        self._sealing = self._placement
        self._sealed = bytes(self.data[self._placement.first : self._placement.end])

    def _become(self, placement: Placement) -> None:
        self._placement, self._watched = placement, placement.watched
        self._plans = {} if self._frozen or self._locked else placement.plans

    @property
    def registers(self) -> dict[int, RegisterLayout]:
        """The layouts of the placed registers, by byte offset; not to be changed."""
        return self._placement.registers

    # -- software's accesses ---------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Read as software does: read hooks run first. Raises `RangeError` outside the file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self._outside("read", offset, size)
        if size > SMALL:
            self._before(offset, size)
            return bytes(self.data[offset : offset + size])
        if offset in self._watched:
            self._before(offset, size)
        found: bytes = _TAKE[size](self.data, offset)[0]
        return found

    def _before(self, offset: int, size: int) -> None:
        """Run the read hooks of a read."""
        for owner, method in self._placement.readers(offset, size):
            getattr(self._owners[owner], method)()

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
        owners = self._owners
        for owner, method, shift, field in hooks:
            getattr(owners[owner], method)(old >> shift & field, new >> shift & field)

    def _plan(self, offset: int, size: int) -> Plan:
        if offset < 0 or offset + size > self.size:
            raise self._outside("write", offset, size)
        return self._placement.plan(self._plans, offset, size, self._frozen, self._locked)

    def _outside(self, what: str, offset: int, size: int) -> RangeError:
        return RangeError(f"{what} of {size} bytes at {offset:#x} lies outside {self.size:#x} bytes")

    # -- narrowing and reset ---------------------------------------------------------------------------------

    def _narrow(self, narrowed: dict[int, int], masks: tuple[tuple[int, int], ...]) -> None:
        for offset, mask in masks:
            if mask:
                narrowed[offset] = narrowed.get(offset, 0) | mask
        self._become(self._placement)

    def _within(self, part: Block | Register) -> list[int]:
        base = part.base if isinstance(part, Block) else part._at
        if part._data is not self.data:
            raise RangeError(f"{type(part).__name__} is not placed in this register file")
        return self._placement.covered(base, part.__layout__.size)

    def lock(self, part: Block | Register) -> None:
        """Stop the `RWL` fields of a placed block or register from taking writes, until `unlock` or reset."""
        registers = self.registers
        masks = tuple((offset, registers[offset].lockable) for offset in self._within(part))
        self._narrow(self._locked, masks)

    def unlock(self, part: Block | Register) -> None:
        """Let the `RWL` fields of a placed block or register take writes again."""
        for offset in self._within(part):
            self._locked.pop(offset, None)
        self._become(self._placement)

    def reset(self, kind: Reset = Reset.COLD, keep: Iterable[Block | Register] = ()) -> None:
        """Return every register to its sealed value; sticky fields keep theirs unless the reset is cold, and `keep`
        are placed blocks and registers that it does not reach.

        A field that a reset returns to its value takes writes again, whether it was `RWO` and written or
        `RWL` and locked. Plain memory (`ram`) is not touched. Hooks do not run.
        """
        spared = {offset for part in keep for offset in self._within(part)}
        memory, sealing, sealed = self.data, self._sealing, self._sealed
        for offset, layout in self.registers.items():
            if offset in spared:
                continue
            end = offset + layout.size
            if sealing is not None and offset in sealing.registers:
                at = offset - sealing.first
                image = sealed[at : at + layout.size]
            else:
                image = layout.reset.to_bytes(layout.size, "little")
            sticky = 0 if kind is Reset.COLD else layout.sticky
            if sticky:
                value = int.from_bytes(memory[offset:end], "little") & sticky
                value |= int.from_bytes(image, "little") & ~sticky
                image = value.to_bytes(layout.size, "little")
            memory[offset:end] = image
            for narrowed in (self._frozen, self._locked):
                if offset in narrowed and not narrowed[offset] & sticky:
                    del narrowed[offset]
                elif offset in narrowed:
                    narrowed[offset] &= sticky
        self._become(self._placement)


def _memory(size: int) -> Any:
    """`size` zeros, writable."""
    if size <= _PAGE:
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
