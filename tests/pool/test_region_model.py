"""A region is as one array of bytes, whatever happens to its copies and to whoever has its lock."""

from __future__ import annotations

import struct

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softcxl.pool import errors
from tests.pool.directory import ATOMIC, DEAD, Directory

SIZE = 1024
HEALTHY, JOINING, POISONED = 96, 100, 104

offsets = st.integers(0, SIZE)
words = st.integers(0, SIZE // 8 - 1).map(lambda number: 8 * number)
slots = st.sampled_from([1, 2])


class RegionMachine(RuleBasedStateMachine):
    @initialize(
        copies=st.integers(1, 4), flags=st.sampled_from([0, ATOMIC]), journal=st.sampled_from([64, 1 << 20])
    )
    def begin(self, copies: int, flags: int, journal: int) -> None:
        self.pool = Directory(sources=4, journal=journal)
        self.at = self.pool.region(size=SIZE, copies=copies, flags=flags)
        self.copies = copies
        self.model = bytearray(SIZE)
        self.regions = {slot: self.pool.open(slot=slot) for slot in (1, 2)}

    def bits(self, field: int) -> int:
        return int(struct.unpack_from("<I", self.pool.arena, self.at + field)[0])

    def set(self, field: int, value: int) -> None:
        struct.pack_into("<I", self.pool.arena, self.at + field, value)

    @rule(slot=slots, at=offsets, data=st.binary(max_size=200))
    def write(self, slot: int, at: int, data: bytes) -> None:
        if at + len(data) > SIZE:
            with pytest.raises(IndexError):
                self.regions[slot].write(at, data)
        else:
            self.regions[slot].write(at, data)
            self.model[at : at + len(data)] = data

    @rule(slot=slots, at=words, by=st.integers(-(1 << 63), (1 << 63) - 1))
    def add(self, slot: int, at: int, by: int) -> None:
        (old,) = struct.unpack_from("<Q", self.model, at)
        if self.bits(HEALTHY) & ~self.bits(POISONED):
            struct.pack_into("<Q", self.model, at, old + by & (1 << 64) - 1)
            assert self.regions[slot].add(at, by) == old + by & (1 << 64) - 1
        else:
            with pytest.raises(errors.Poisoned):
                self.regions[slot].add(at, by)

    @rule(slot=slots, at=words, guess=st.booleans(), new=st.integers(0, (1 << 64) - 1))
    @precondition(lambda self: self.bits(HEALTHY) & ~self.bits(POISONED))
    def swap(self, slot: int, at: int, guess: bool, new: int) -> None:
        (old,) = struct.unpack_from("<Q", self.model, at)
        assert self.regions[slot].swap(at, old if guess else old ^ 1, new) is guess
        if guess:
            struct.pack_into("<Q", self.model, at, new)

    @rule(copy=st.integers(0, 3))
    @precondition(lambda self: self.bits(HEALTHY).bit_count() > 1)
    def fail(self, copy: int) -> None:
        """A device goes: first its copy is healthy no more, then its bytes go."""
        left = self.bits(HEALTHY) & ~(1 << copy)
        if left & ~self.bits(POISONED):
            self.set(HEALTHY, left)
            self.set(POISONED, self.bits(POISONED) & ~(1 << copy))
            self.pool.buffers[copy + 1][:SIZE] = bytes(SIZE)

    @rule(copy=st.integers(0, 3))
    def poison(self, copy: int) -> None:
        self.set(POISONED, (self.bits(POISONED) | 1 << copy) & self.bits(HEALTHY))

    @rule(copy=st.integers(0, 3))
    def join(self, copy: int) -> None:
        if copy < self.copies and not self.bits(HEALTHY) >> copy & 1:
            self.set(JOINING, self.bits(JOINING) | 1 << copy)

    @rule(at=st.integers(0, SIZE // 2))
    @precondition(lambda self: self.bits(JOINING) and self.bits(HEALTHY) & ~self.bits(POISONED))
    def rebuild(self, at: int) -> None:
        """A range is brought at any time; all of them, and the copy is healthy."""
        copy = self.bits(JOINING).bit_length() - 1
        self.regions[1].rebuild(copy, at, SIZE - at)
        if at < SIZE // 4:
            self.regions[2].rebuild(copy, 0, at)
            self.set(JOINING, self.bits(JOINING) & ~(1 << copy))
            self.set(HEALTHY, self.bits(HEALTHY) | 1 << copy)

    @rule()
    def die_with_the_lock(self) -> None:
        """The owner of slot 3 takes the lock and is seen no more."""
        self.pool.slot(3)
        for intent in (72, 96, 104, 112, 120):
            struct.pack_into("<Q", self.pool.arena, 8192 + 3 * 256 + intent, 0)
        gone = self.pool.open(slot=3)
        gone.lock()
        self.pool.slot(3, state=DEAD)
        self.regions[1].lock(60)
        self.regions[1].unlock()
        with pytest.raises(errors.Stale):
            gone.unlock()

    @invariant()
    def reads_are_what_was_written(self) -> None:
        if not hasattr(self, "model"):
            return
        for region in self.regions.values():
            if self.bits(HEALTHY) & ~self.bits(POISONED):
                assert region.read(0, SIZE) == self.model
            else:
                with pytest.raises(errors.Poisoned):
                    region.read(0, SIZE)


TestRegion = RegionMachine.TestCase
