"""Whatever is allocated, written, failed, poisoned, restarted and freed, in any order: a read gets what was written."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from softcxl.pool import errors
from softcxl.pool.layout import SourceState
from softcxl.pool.region import Region
from softcxl.pool.session import Pool
from tests.pool.served import Served, wait_until

SOURCES = 4
LOST = (errors.Failed, errors.Poisoned)


class Modelled:
    """A region as two clients have it, and what is in it."""

    def __init__(self, mine: Region, theirs: Region, replicas: int) -> None:
        self.clients = (mine, theirs)
        self.bytes = bytearray(mine.size)
        self.replicas = replicas
        self.hits = 0  # how often a copy of it has failed, or was poisoned

    def read(self, client: int, offset: int, size: int) -> None:
        try:
            found = self.clients[client].read(offset, size)
        except LOST:
            assert self.hits >= self.replicas, "more was lost than has failed"
        else:
            assert found == self.bytes[offset : offset + size]


class PoolMachine(RuleBasedStateMachine):
    """Two clients of one pool, whose memory fails."""

    regions = Bundle("regions")

    @initialize()
    def serve(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.served = Served(self.folder / "pool.sock", SOURCES)
        self.served.start()
        self.pools: list[Pool] = [self.served.connect("one"), self.served.connect("other")]
        self.known: list[Modelled] = []
        self.failed: set[int] = set()
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "served"):
            for pool in self.pools:
                pool.close()
            self.served.stop()
            shutil.rmtree(self.folder)

    def _hit(self, name: str) -> None:
        numbers = {held.number for held in self.served.server.sources.all.values() if held.name == name}
        for one in self.known:
            with contextlib.suppress(errors.Stale):
                one.hits += any(copy.source in numbers for copy in one.clients[0].info.copies)

    @rule(
        target=regions,
        size=st.sampled_from([1, 64, 100, 4096, 70_000]),
        replicas=st.integers(1, 3),
        atomic=st.booleans(),
    )
    def allocate(self, size: int, replicas: int, atomic: bool) -> Modelled | None:
        self.count += 1
        name = f"region {self.count}"
        try:
            mine = self.pools[0].allocate(size, name=name, replicas=replicas, atomic=atomic)
        except errors.NoRoom:
            assert replicas > SOURCES - len(self.failed)
            return None
        one = Modelled(mine, self.pools[1].open(name), replicas)
        self.known.append(one)
        one.read(1, 0, size)
        return one

    @rule(one=regions, client=st.integers(0, 1), data=st.data())
    def write(self, one: Modelled | None, client: int, data: st.DataObject) -> None:
        if one is None:
            return
        offset = data.draw(st.integers(0, len(one.bytes)))
        size = data.draw(st.integers(0, min(len(one.bytes) - offset, 70_000)))
        written = bytes([data.draw(st.integers(0, 255))]) * size
        try:
            one.clients[client].write(offset, written)
        except errors.Failed:
            assert one.hits >= one.replicas
        else:
            one.bytes[offset : offset + size] = written

    @rule(one=regions, client=st.integers(0, 1), data=st.data())
    def read(self, one: Modelled | None, client: int, data: st.DataObject) -> None:
        if one is not None:
            offset = data.draw(st.integers(0, len(one.bytes)))
            one.read(client, offset, data.draw(st.integers(0, len(one.bytes) - offset)))

    @rule(one=regions, client=st.integers(0, 1), by=st.integers(-(1 << 63), (1 << 63) - 1))
    def count_word(self, one: Modelled | None, client: int, by: int) -> None:
        if one is None or len(one.bytes) < 64:
            return
        value = (int.from_bytes(one.bytes[8:16], "little") + by) % (1 << 64)
        try:
            assert one.clients[client].add(8, by) == value
        except LOST:
            assert one.hits >= one.replicas
        else:
            one.bytes[8:16] = value.to_bytes(8, "little")

    @rule(number=st.integers(0, SOURCES - 1))
    def fail(self, number: int) -> None:
        if number not in self.failed:
            self._hit(f"mem{number}")
            self.failed.add(number)
            self.served.sources[number].fail()

    @rule(kept=st.booleans())
    def come_back(self, kept: bool) -> None:
        if self.failed:
            source = self.served.sources[self.failed.pop()]
            source.come_back(kept=kept)
            # What it failed for is first in every record, and what is free there is cleared: by another thread
            held = next(one for one in self.served.server.sources.all.values() if one.name == source.name)
            wait_until(lambda: held.state is SourceState.HEALTHY)

    @rule(one=regions, data=st.data())
    def poison(self, one: Modelled | None, data: st.DataObject) -> None:
        if one is None:
            return
        copies = one.clients[0].info.copies
        copy = copies[data.draw(st.integers(0, len(copies) - 1))]
        if copy.source not in self.served.server.sources.all or not copy.source:
            return
        name = self.served.server.sources.all[copy.source].name
        line = data.draw(st.integers(0, (len(one.bytes) - 1) // 64)) * 64
        one.hits += 1
        next(source for source in self.served.sources if source.name == name).poison(copy.offset + line)

    @rule()
    def restart(self) -> None:
        self.served.stop()
        self.served.start()

    @rule(one=consumes(regions), client=st.integers(0, 0))
    def free(self, one: Modelled | None, client: int) -> None:
        if one is not None:
            one.clients[client].free()
            self.known.remove(one)

    @invariant()
    def all_that_was_written_is_there(self) -> None:
        if hasattr(self, "known"):
            for number, one in enumerate(self.known):
                one.read(number % 2, 0, len(one.bytes))


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
