"""Committing HDM decoders: what is the same for those of devices, host bridges and switches.

The rules are those of CXL 3.1 §8.2.4.20.12. A commit that breaks one sets Error Not Committed, changes nothing
else, and leaves its reason in `DecoderBank.refusals` for whoever debugs the software. Clearing the commit bit
clears the error, too; the next commit is the next time that the bit goes from zero to one.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from softcxl.device.component import ComponentRegisters
from softcxl.memory.errors import GeometryError, MemoryFault
from softcxl.memory.interleave import (
    ADDRESS_LIMIT,
    decode_granularity,
    decode_ways,
    encode_granularity,
    encode_ways,
)
from softcxl.spec.cxl.component import ComponentCapabilityId
from softcxl.spec.cxl.hdm import (
    DECODER_COUNTS,
    DECODER_OFFSET,
    DECODER_STRIDE,
    HDM_VERSION,
    Decoder,
    DecoderControl,
    HdmDecoders,
)
from softcxl.wire import Block, Reset, on_write

log = logging.getLogger(__name__)

_COMMIT = DecoderControl.commit.mask

UNIT = 256 << 20
"""Base, size and skip are multiples of 256 MiB (CXL 3.1 §8.2.4.20.3)."""


class CommitError(Exception):
    """A decoder cannot be committed; the message says which rule stands against it."""


class Effect(Protocol):
    """What a committed decoder does, with addresses from `base` up to `end`."""

    @property
    def base(self) -> int: ...

    @property
    def end(self) -> int: ...


D = TypeVar("D", bound=Decoder)
E = TypeVar("E", bound=Effect)


@dataclass(frozen=True, slots=True)
class Range:
    """What every decoder's registers say: `size` bytes from `base`, dealt out by turns of `granularity` bytes."""

    base: int
    size: int
    ways: int
    granularity: int

    @property
    def end(self) -> int:
        return self.base + self.size


class Slot(Generic[D, E]):
    """One decoder: its registers, the hook on its commit bit, and while it is committed its `effect`."""

    registers: D

    def __init__(self, bank: DecoderBank[D, E], number: int) -> None:
        self.bank, self.number = bank, number
        self.effect: E | None = None

    @property
    def locked(self) -> bool:
        """It was committed with Lock On Commit: nothing but a conventional reset ends that."""
        return self.effect is not None and self.registers.control.lock_on_commit

    @on_write(Decoder.control)
    def changed(self, old: int, new: int) -> None:
        if not new & _COMMIT:
            if old & _COMMIT:
                self.bank.decommit(self)
        elif self.effect is not None:
            self.registers.control.assign(old)  # a committed decoder takes no new geometry
        elif not old & _COMMIT:
            self.bank.commit(self)


class DecoderBank(ABC, Generic[D, E]):
    """The HDM decoder capability of a component with `count` decoders, each laid out as `block`.

    `lock` is the component's. Raises `ValueError` for a number of decoders that the capability cannot say.
    """

    block: type[D]
    kind = "HDM decoder"

    def __init__(
        self, component: ComponentRegisters, count: int, lock: AbstractContextManager[object]
    ) -> None:
        if count not in DECODER_COUNTS:
            raise ValueError(f"{count} HDM decoders: possible are {', '.join(map(str, DECODER_COUNTS))}")
        self.refusals: deque[str] = deque(maxlen=32)
        size = DECODER_OFFSET + DECODER_STRIDE * count
        self.registers = component.add(
            ComponentCapabilityId.HDM_DECODER, HDM_VERSION, HdmDecoders, size=size, hooks=self
        )
        capability = self.registers.capability
        capability.decoder_count = DECODER_COUNTS.index(count)
        capability.interleave_11_8 = capability.interleave_14_12 = True
        self._file, self._lock = component.file, lock
        self.decoders: list[Slot[D, E]] = [Slot(self, number) for number in range(count)]
        for decoder in self.decoders:
            offset = self.registers.base + DECODER_OFFSET + DECODER_STRIDE * decoder.number
            decoder.registers = component.file.place(offset, self.block, hooks=decoder)

    # -- what a kind of component adds ---------------------------------------------------------------------------

    @abstractmethod
    def check(self, decoder: Slot[D, E]) -> E:
        """What the decoder would do as its registers stand. Raises `CommitError` where a rule is broken."""

    @abstractmethod
    def assign_low(self, registers: D, value: int) -> None:
        """Write the two registers that hold the DPA skip of a device, and the target list of a port."""

    def began(self, effect: E) -> None:
        """Before a commit shows. Raises `CommitError` or `MemoryFault` to refuse it."""

    def ended(self, effect: E) -> None:
        """After a decoder has stopped."""

    def settled(self) -> None:
        """Something has been committed, or has stopped."""

    # -- committing ----------------------------------------------------------------------------------------------

    @property
    def committed(self) -> bool:
        return any(decoder.effect for decoder in self.decoders)

    @property
    def effects(self) -> list[E]:
        """Those of the committed decoders, by number."""
        return [decoder.effect for decoder in self.decoders if decoder.effect is not None]

    def commit(self, decoder: Slot[D, E]) -> None:
        """Put a decoder into effect as its registers say, or set its error bit."""
        control = decoder.registers.control
        control.committed = control.error_not_committed = False
        try:
            effect = self.check(decoder)
            self.began(effect)
        except (CommitError, MemoryFault) as refused:
            control.error_not_committed = True
            self.refusals.append(f"decoder {decoder.number}: {refused}")
            log.info("%s %d is not committed: %s", self.kind, decoder.number, refused)
            return
        decoder.effect = effect
        control.committed = True
        # Nothing but the commit bit can be written while committed; with Lock On Commit that bit cannot, too.
        self._file.lock(decoder.registers)
        if not control.lock_on_commit:
            self._file.unlock(decoder.registers.control)
        self.settled()

    def decommit(self, decoder: Slot[D, E]) -> None:
        """Take a decoder out of effect. Software may do it in any order; order is asked of commits alone."""
        control = decoder.registers.control
        control.committed = control.error_not_committed = False
        self._file.unlock(decoder.registers)
        self._end(decoder)
        self.settled()

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """Forget what the decoders did, but for those that the reset spares; the registers are the file's to reset."""
        for decoder in self.decoders:
            if not self._spares(kind, decoder):
                self._end(decoder)
        self.settled()

    def unreached(self, kind: Reset) -> list[Block]:
        """The registers that a reset leaves alone: of a CXL Reset those of locked decoders, and that they decode."""
        spared: list[Block] = [one.registers for one in self.decoders if self._spares(kind, one)]
        return [self.registers, *spared] if spared else []

    def _spares(self, kind: Reset, decoder: Slot[D, E]) -> bool:
        return kind is Reset.CXL and decoder.locked

    def _end(self, decoder: Slot[D, E]) -> None:
        effect, decoder.effect = decoder.effect, None
        if effect is not None:
            self.ended(effect)

    # -- firmware ------------------------------------------------------------------------------------------------

    def _set(
        self, number: int, hpa: int, size: int, ways: int, granularity: int, low: int, lock: bool
    ) -> None:
        """Set a decoder as platform firmware does, and commit it. `low` is the DPA skip, or the target list.

        Raises `CommitError` where it is committed already or cannot be. The lock is held.
        """
        decoder = self.decoders[number]
        if decoder.effect is not None:
            raise CommitError(f"decoder {number} is committed already")
        registers, control = decoder.registers, decoder.registers.control
        registers.base_low.assign(hpa & 0xF0000000)
        registers.base_high.assign(hpa >> 32)
        registers.size_low.assign(size & 0xF0000000)
        registers.size_high.assign(size >> 32)
        self.assign_low(registers, low)
        control.interleave_ways = encode_ways(ways)
        control.interleave_granularity = encode_granularity(granularity)
        control.lock_on_commit, control.host_only = lock, True
        control.commit = True
        self.commit(decoder)
        if control.error_not_committed:
            raise CommitError(self.refusals[-1])

    # -- rules that all have -------------------------------------------------------------------------------------

    def _range(self, decoder: Slot[D, E]) -> Range:
        """What the registers say, where its geometry is one that there is. Raises `CommitError`."""
        registers = decoder.registers
        try:
            ways = decode_ways(registers.control.interleave_ways)
            granularity = decode_granularity(registers.control.interleave_granularity)
        except GeometryError as error:
            raise CommitError(str(error)) from None
        base = int(registers.base_high) << 32 | int(registers.base_low)
        size = int(registers.size_high) << 32 | int(registers.size_low)
        return Range(base, size, ways, granularity)

    def _in_place(self, number: int, given: Range) -> None:
        """Its range is whole, and above those of the decoders before it. Raises `CommitError`."""
        if given.size % (UNIT * given.ways):
            raise CommitError(f"size {given.size:#x} is not a multiple of {given.ways} x 256 MiB")
        if given.end > ADDRESS_LIMIT:
            raise CommitError(f"host addresses end at {given.end:#x}, beyond 52 bits")
        if any(later.effect is not None for later in self.decoders[number + 1 :]):
            raise CommitError(f"a decoder above {number} is committed: decoders are committed in order")
        if number and self.decoders[number - 1].effect is None:
            raise CommitError(f"decoder {number - 1} is not committed: decoders are committed in order")
        taken = max((one.end for one in self.effects if one.base < one.end), default=0)
        if given.size and given.base < taken:
            raise CommitError(
                f"base {given.base:#x} is not above the decoders below it, which end at {taken:#x}"
            )
