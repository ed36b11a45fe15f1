"""Clients come, allocate, look, free, die, and servers start anew, in any order: against a model of a few lines."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import identity
from softcxl.pool.protocol import Hold, Located, Named, Opcode, Status
from tests.fm.pool.asking import asking, many
from tests.fm.pool.memories import Client, FakeSource, arena
from tests.fm.pool.test_recovery import PLAN

ROOM = 1 << 20
QUOTA = 1 << 20
NAMES = ["", "", "a", "b", "c"]


@dataclass(eq=False)
class Made:
    """A region that there should be."""

    located: Located
    name: str
    by: str
    size: int
    copies: int
    private: bool
    owner: Client | None
    opened: dict[Client, int] = field(default_factory=dict)

    @property
    def taken(self) -> int:
        return -(-self.size // 4096) * 4096 * self.copies

    def named(self) -> bytes:
        return Named(index=self.located.index, generation=self.located.generation, name=b"").pack()


class PoolModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sources = [FakeSource("mem0", ROOM), FakeSource("mem1", ROOM)]
        self.fd = arena(PLAN)
        self.clients: list[Client] = []
        self.made: list[Made] = []
        self.pins: list[tuple[Client, Made]] = []
        self.request = 0
        self.serve()

    def serve(self) -> None:
        self.server = PoolServer(self.fd, self.sources, plan=PLAN, quotas={"small": QUOTA})
        self.server.directory.ready()

    def teardown(self) -> None:
        self.server.close()
        for fd in (self.fd, *(one.fd for one in self.sources)):
            os.close(fd)

    def ask(self, client: Client, opcode: int, data: bytes) -> tuple[int, bytes]:
        return self.server.execute(client.slot, opcode, data)

    def used(self, name: str) -> int:
        left = [one for one in self.leaving() if one.by == name]
        return sum(one.taken for one in self.made + left if one.by == name)

    def leaving(self) -> list[Made]:
        """Freed, and looked at."""
        return list(dict.fromkeys(made for _, made in self.pins if made not in self.made))

    def gone(self, made: Made) -> None:
        self.made.remove(made)

    # -- what clients do -----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < 3)
    @rule(name=st.sampled_from(["small", "large"]))
    def come(self, name: str) -> None:
        self.clients.append(Client(self.server, self.sources, name))

    @precondition(lambda self: self.clients)
    @rule(
        which=st.integers(0, 9),
        name=st.sampled_from(NAMES),
        size=st.one_of(st.sampled_from([1, 4096, 4097, ROOM, ROOM + 1]), st.integers(1, ROOM // 2)),
        copies=st.integers(1, 3),
        private=st.booleans(),
    )
    def allocate(self, which: int, name: str, size: int, copies: int, private: bool) -> None:
        client = self.clients[which % len(self.clients)]
        by = self.server.names[client.slot]
        self.request += 1
        asked = asking(
            size=size, request=self.request, name=name.encode(), copies=copies, mode=0 if private else 2
        ).pack()
        status, answer = self.ask(client, Opcode.ALLOCATE, asked)
        taken = -(-size // 4096) * 4096 * copies
        if name and name in {one.name for one in self.made}:
            assert status == Status.EXISTS
        elif by == "small" and self.used("small") + taken > QUOTA:
            assert status == Status.QUOTA, answer
        elif copies > 2 or size > ROOM:
            assert status in (Status.NO_ROOM, Status.QUOTA), answer
        elif status:
            assert status == Status.NO_ROOM, answer
            held = sum(one.taken for one in self.made + self.leaving())
            pieces = len(self.made) + len(self.leaving())
            assert held + pieces + taken > ROOM // 2 or pieces + len(self.clients) >= PLAN.regions - 1
        else:
            located = Located.unpack(answer)
            made = Made(located, name, by, size, copies, private, client, {client: 1})
            self.made.append(made)
            region = client.region(located)
            assert region.read(0, size) == bytes(size)
            region.write(0, self.content(made))
            assert self.ask(client, Opcode.ALLOCATE, asked) == (status, answer)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 9), count=st.integers(1, 5))
    def allocate_many(self, which: int, count: int) -> None:
        client = self.clients[which % len(self.clients)]
        status, answer = self.ask(client, Opcode.ALLOCATE_MANY, many(count, size=100))
        if status:
            assert status in (Status.NO_ROOM, Status.QUOTA)
            return
        for at in range(0, len(answer), 16):
            index, generation = (
                int.from_bytes(answer[at + word : at + word + 8], "little") for word in (0, 8)
            )
            located = Located(index=index, generation=generation, size=100)
            by = self.server.names[client.slot]
            made = Made(located, "", by, 100, 1, False, client, {client: 1})
            self.made.append(made)
            client.region(located).write(0, self.content(made))

    def content(self, made: Made) -> bytes:
        return (b"%d.%d." % (made.located.index, made.located.generation)).ljust(made.size, b"x")[: made.size]

    @precondition(lambda self: self.clients and self.made)
    @rule(which=st.integers(0, 9), at=st.integers(0, 99), pin=st.booleans())
    def open(self, which: int, at: int, pin: bool) -> None:
        client, made = self.clients[which % len(self.clients)], self.made[at % len(self.made)]
        mine = made.owner is client or made.by == self.server.names[client.slot]
        status, _ = self.ask(client, Opcode.PIN if pin else Opcode.OPEN, made.named())
        assert status == (Status.DENIED if made.private and not mine else Status.OK)
        if not status and pin:
            self.pins.append((client, made))
        elif not status:
            made.opened[client] = made.opened.get(client, 0) + 1

    @precondition(lambda self: self.clients and self.made)
    @rule(which=st.integers(0, 9), at=st.integers(0, 99))
    def close(self, which: int, at: int) -> None:
        client, made = self.clients[which % len(self.clients)], self.made[at % len(self.made)]
        status, _ = self.ask(client, Opcode.CLOSE, made.named())
        assert status == (Status.OK if made.opened.get(client) else Status.MALFORMED)
        if not status:
            self.less(made, client, 1)

    def less(self, made: Made, client: Client, count: int) -> None:
        made.opened[client] -= count
        if not made.opened[client]:
            del made.opened[client]
        if not made.opened and not made.name:
            self.gone(made)

    @precondition(lambda self: self.pins)
    @rule(at=st.integers(0, 99))
    def unpin(self, at: int) -> None:
        client, made = self.pins.pop(at % len(self.pins))
        assert self.ask(client, Opcode.UNPIN, made.named())[0] == Status.OK

    @precondition(lambda self: self.clients and self.made)
    @rule(which=st.integers(0, 9), at=st.integers(0, 99))
    def free(self, which: int, at: int) -> None:
        client, made = self.clients[which % len(self.clients)], self.made[at % len(self.made)]
        status, _ = self.ask(client, Opcode.FREE, made.named())
        mine = made.owner is client or made.by == self.server.names[client.slot]
        assert status == (Status.OK if mine else Status.DENIED)
        if mine:
            self.gone(made)
            assert self.ask(client, Opcode.FREE, made.named())[0] == Status.GONE

    # -- what happens --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 9))
    def die(self, which: int) -> None:
        client = self.clients.pop(which % len(self.clients))
        self.server.left(client.slot)
        self.pins = [pin for pin in self.pins if pin[0] is not client]
        for made in list(self.made):
            if made.owner is client:
                made.owner = None
                if not made.name:
                    self.gone(made)
                    continue
            if client in made.opened:
                self.less(made, client, made.opened[client])

    @rule()
    def sweep(self) -> None:
        with self.server.lock:
            self.server.regions.sweep()
        self.server.regions.clearing.clear(self.server.lock)

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        if clean:
            self.server.close()
        else:  # as of one that was killed: nothing is put in order
            self.server.directory.close()
        self.serve()
        for client in self.clients:
            client.server, client.directory = self.server, self.server.directory.memory
            client.sources[0] = client.directory
        self.server.regions.clearing.clear(self.server.lock)
        self.pins = [pin for pin in self.pins if pin[1] in self.made]
        for made in self.made:
            for client in self.clients:
                pins = sum(pin == (client, made) for pin in self.pins)
                hold = Hold(
                    index=made.located.index,
                    generation=made.located.generation,
                    opened=made.opened.get(client, 0),
                    pins=pins,
                )
                mine = made.owner is client or made.by == self.server.names[client.slot]
                if mine or not made.private:
                    assert self.ask(client, Opcode.HOLD, hold.pack())[0] == Status.OK
        for client in self.clients:  # that was all: what was pinned and is freed goes
            that_was_all = Hold(index=0, generation=0, opened=0, pins=0)
            assert self.ask(client, Opcode.HOLD, that_was_all.pack())[0] == Status.OK

    # -- what is so always ---------------------------------------------------------------------------------------

    @invariant()
    def names_and_regions_are_the_models(self) -> None:
        known = self.server.regions.known
        assert self.server.regions.names == {one.name: one.located.index for one in self.made if one.name}
        theirs = {
            (index, one.generation)
            for index, one in known.items()
            if not one.leaving and not one.flags & 4  # journals
        }
        assert theirs == {(one.located.index, one.located.generation) for one in self.made}

    @invariant()
    def bytes_are_what_was_written(self) -> None:
        for client in self.clients[:1]:
            for made in self.made:
                assert client.region(made.located).read(0, made.size) == self.content(made)

    @invariant()
    def memory_is_somebodys_once(self) -> None:
        known = self.server.regions.known.values()
        extents = sorted((at, at + one.capacity) for one in known for at in one.extents)
        assert all(end <= start for (_, end), (start, _) in pairwise(extents))
        for number, held in self.server.sources.all.items():
            mine = sum(end - start for start, end in extents if start >> 56 == number)
            assert held.space.available == held.space.size - mine

    @invariant()
    def accounts_are_right(self) -> None:
        self.server.regions.clearing.clear(self.server.lock)
        for name in ("small", "large"):
            assert self.server.accounts.used(identity(name)) == self.used(name)

    @invariant()
    def what_is_free_is_zeros(self) -> None:
        for number, held in self.server.sources.all.items():
            if number:
                memory = self.sources[number - 1].memory
                assert not any(any(memory[at : at + size]) for at, size in held.space.extents())


TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
