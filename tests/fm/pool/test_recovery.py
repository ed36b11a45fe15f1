"""A server that is killed at any store leaves a pool that the next one takes over whole: each region is there or is
not, no memory is two regions', none is nobody's, and what is free is zeros."""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from softcxl.fm.pool import directory as directory_module
from softcxl.fm.pool.cleaning import Stain
from softcxl.fm.pool.errors import ArenaUnfit
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import HEADER, Plan, identity
from softcxl.pool.protocol import Allocate, Located, Named, Opcode
from tests.fm.pool.memories import Client, FakeSource, arena

PLAN = Plan(slots=8, regions=32, heap=4 << 20)
SIZE = 256 << 10


class Dying:
    """A directory's memory whose owner is killed before its store number `at`, counted from 1."""

    def __init__(self, memory: Any, at: int) -> None:
        self._memory = memory
        self.left = at

    def point(self) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def store(self, offset: int, value: int) -> None:
        self.point()
        self._memory.store(offset, value)

    def add(self, offset: int, by: int) -> int:
        self.point()
        return int(self._memory.add(offset, by))

    def swap(self, offset: int, old: int, new: int) -> bool:
        self.point()
        return bool(self._memory.swap(offset, old, new))

    def load(self, offset: int) -> int:
        return int(self._memory.load(offset))


class HalfWritten:
    """Packs a record as `struct` does, and is killed on the way, too: half of it is there then."""

    def __init__(self, packer: struct.Struct, dying: Dying) -> None:
        self._packer = packer
        self._dying = dying

    def pack_into(self, buffer: Any, at: int, *values: Any) -> None:
        record = self._packer.pack(*values)
        self._dying.point()
        buffer[at : at + 100] = record[:100]
        self._dying.point()
        buffer[at : at + len(record)] = record


def die_at(server: PoolServer, at: int) -> None:
    dying = Dying(server.directory.memory, at)
    cleaning = server.sources.cleaning
    clear = cleaning.clear

    def clear_or_die(extents: Any) -> list[Stain]:
        dying.point()
        stains = clear(extents)
        dying.point()
        return stains

    cleaning.clear = clear_or_die  # type: ignore[method-assign]
    server.directory.memory = dying  # type: ignore[assignment]
    directory_module.RECORDS = [HalfWritten(packer, dying) for packer in directory_module.RECORDS]  # type: ignore[misc]


def asking(name: str, copies: int, request: int, size: int = SIZE // 8) -> bytes:
    return Allocate(
        size=size, request=request, copies=copies, policy=0, separate=0, mode=2, flags=0, source=0, lease=0,
        reserved0=b"", name=name.encode(),
    ).pack()  # fmt: skip


def busy(server: PoolServer, client: Client, log: mmap.mmap) -> None:
    """Allocate and free; the log says how many of each were answered."""
    made = {}
    for number, (name, copies) in enumerate([("one", 1), ("two", 2), ("", 1), ("three", 2)]):
        made[name] = Located.unpack(client.execute(Opcode.ALLOCATE, asking(name, copies, 10 + number)))
        region = client.region(made[name])
        region.write(0, b"\xab" * (SIZE // 8))
        log[0] = number + 1
    for number, name in enumerate(["one", "", "three"]):
        named = Named(index=made[name].index, generation=made[name].generation, name=b"")
        client.execute(Opcode.FREE, named.pack())
        log[1] = number + 1
    server.regions.clearing.clear(server.lock)
    client.execute(Opcode.ALLOCATE, asking("four", 1, 20))
    log[0] = 5
    server.left(client.slot)
    server.regions.clearing.clear(server.lock)


def in_child(run: Callable[[], None]) -> bool:
    """Run in a process of its own. Returns whether it came to its end, and was not killed."""
    process = os.fork()
    if not process:
        try:
            run()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the server failed"
    return os.WIFEXITED(status)


def killed(at: int, fd: int, sources: list[FakeSource], log: mmap.mmap) -> bool:
    """Whether a server that was to be killed at that store came to its end before."""

    def run() -> None:
        server = PoolServer(fd, sources, plan=PLAN)
        server.directory.ready()
        client = Client(server, sources, "busy")
        die_at(server, at)
        busy(server, client, log)

    return in_child(run)


def whole(server: PoolServer, sources: list[FakeSource], allocated: int, freed: int) -> None:
    """Check a pool that was taken over, of which so many allocations and frees were answered."""
    server.regions.clearing.clear(server.lock)
    known = server.regions.known
    names = ["one", "two", "", "three", "four"]
    gone = ["one", "", "three"][:freed]
    must = {name for name in names[:allocated] if name} - set(gone)
    may = {names[allocated]} if allocated < len(names) else set()
    may |= {["one", "", "three"][freed]} if freed < 3 and allocated >= 4 else set()
    there = set(server.regions.names)
    assert must - may <= there <= must | may, (allocated, freed)
    assert {one.name for one in known.values()} <= there  # what has no name went with its owner
    extents = sorted((at, at + one.capacity) for one in known.values() for at in one.extents)
    assert all(end <= start for (_, end), (start, _) in pairwise(extents)), "twice"
    for number, held in server.sources.all.items():
        mine = sum(end - start for start, end in extents if start >> 56 == number)
        assert held.space.available == held.space.size - mine, "nobody's"
        for offset, size in held.space.extents():
            if number:
                assert not any(sources[number - 1].memory[offset : offset + size]), "not zeros"
    used = sum(one.capacity * len(one.extents) for one in known.values())
    assert server.accounts.used(identity("busy")) == used
    for name, index in server.regions.names.items():
        copies = {
            sources[(at >> 56) - 1].memory[at & (1 << 56) - 1 : (at & (1 << 56) - 1) + SIZE // 8]
            for at in known[index].extents
        }
        assert len(copies) == 1, "copies differ"
        if name in must:
            assert copies == {b"\xab" * (SIZE // 8)} or name == "four"


def test_a_server_that_is_killed_at_any_store_leaves_all_or_nothing() -> None:
    at = 0
    ended = False
    while not ended:
        at += 1
        fd, sources = arena(PLAN), [FakeSource("mem0", SIZE), FakeSource("mem1", SIZE)]
        log = mmap.mmap(-1, 4096)
        ended = killed(at, fd, sources, log)
        with_server = PoolServer(fd, sources, plan=PLAN)
        try:
            assert not with_server.regions.damaged
            whole(with_server, sources, log[0], log[1])
        finally:
            with_server.close()
            for one in (fd, *(source.fd for source in sources)):
                os.close(one)
    assert at > 30  # each store was one


@pytest.mark.parametrize("first", [9, 17, 23, 26, 31])
def test_a_server_that_is_killed_while_it_takes_over_leaves_it_to_the_next(first: int) -> None:
    at = 0
    ended = False
    while not ended:
        at += 1
        fd, sources = arena(PLAN), [FakeSource("mem0", SIZE), FakeSource("mem1", SIZE)]
        log = mmap.mmap(-1, 4096)
        assert not killed(first, fd, sources, log)

        def take_over(fd: int = fd, sources: list[FakeSource] = sources, at: int = at) -> None:
            original = PoolServer._recover

            def recover(server: PoolServer) -> None:
                original(server)
                die_at(server, at)

            PoolServer._recover = recover  # type: ignore[method-assign, assignment]
            server = PoolServer(fd, sources, plan=PLAN)
            server.regions.clearing.clear(server.lock)

        ended = in_child(take_over)
        last = PoolServer(fd, sources, plan=PLAN)
        try:
            whole(last, sources, log[0], log[1])
        finally:
            last.close()
            for one in (fd, *(source.fd for source in sources)):
                os.close(one)


def test_a_request_is_had_once_over_a_server_that_dies() -> None:
    """Killed at any store of an allocation, and asked again: the client has one region, and one only."""
    at, ended = 0, False
    while not ended:
        at += 1
        fd, sources = arena(PLAN), [FakeSource("mem0", SIZE)]
        first = PoolServer(fd, sources, plan=PLAN)
        client = Client(first, sources, "me")
        slot = client.slot
        first.close()

        def run(fd: int = fd, sources: list[FakeSource] = sources, at: int = at, slot: int = slot) -> None:
            server = PoolServer(fd, sources, plan=PLAN)
            die_at(server, at)
            assert server.execute(slot, Opcode.ALLOCATE, asking("", 1, 5))[0] == 0

        ended = in_child(run)
        last = PoolServer(fd, sources, plan=PLAN)
        try:
            status, answer = last.execute(slot, Opcode.ALLOCATE, asking("", 1, 5))
            assert status == 0, answer
            made = Located.unpack(answer)
            mine = [index for index, one in last.regions.known.items() if one.size == SIZE // 8]
            assert mine == [made.index]
        finally:
            last.close()
            for one in (fd, *(source.fd for source in sources)):
                os.close(one)
    assert at > 3


# -- damage ------------------------------------------------------------------------------------------------------


def a_pool() -> tuple[int, list[FakeSource]]:
    fd, sources = arena(PLAN), [FakeSource("mem0", SIZE), FakeSource("mem1", SIZE)]
    server = PoolServer(fd, sources, plan=PLAN)
    server.directory.ready()
    client = Client(server, sources, "busy")
    for number in range(4):
        made = Located.unpack(client.execute(Opcode.ALLOCATE, asking(f"r{number}", 1 + number % 2, number)))
        client.region(made).write(0, f"r{number}".encode())
    server.close()
    return fd, sources


@pytest.mark.parametrize(
    ("word", "value", "words"),
    [
        (1, 0, "its size cannot be"),
        (1, 1 << 60, "its size cannot be"),
        (7, 12345, "what it takes is not its size"),
        (3, 2 << 32 | 99, "the number of its copies cannot be"),
        (3, 9 << 32 | 1, "its mode is none"),
        (2, 1 << 20, "its owner's slot is none"),
        (2, 0xFF << 32, "its flags are none"),
        (16, 200 << 56, "copy 0 is nowhere"),
        (16, 1 << 56 | 7, "copy 0 is nowhere"),
        (16, 1 << 56 | SIZE, "copy 0 is nowhere"),
        (0, 5 << 24 | 0x77, "its state is none"),
    ],
)
def test_a_record_that_is_damaged_is_set_aside_and_reported(word: int, value: int, words: str) -> None:
    fd, sources = a_pool()
    with mmap.mmap(fd, PLAN.size) as whole_arena:
        index = next(
            index
            for index in range(PLAN.regions)
            if whole_arena[PLAN.regions_at + 256 * index + 192 :][:3] == b"r1\0"
        )
        struct.pack_into("<Q", whole_arena, PLAN.regions_at + 256 * index + 8 * word, value)
    told: list[Any] = []
    server = PoolServer(fd, sources, plan=PLAN, event=lambda *said: told.append(said))
    server.directory.ready()
    assert set(server.regions.names) == {"r0", "r2", "r3"}
    assert server.regions.damaged == [f"region {index} is set aside: {words}"]
    assert [said[0] for said in told].count("damaged") == 1
    client = Client(server, sources, "other")
    for name in ("r0", "r2", "r3"):
        found = Located.unpack(
            client.execute(Opcode.OPEN, Named(index=0, generation=0, name=name.encode()).pack())
        )
        assert client.region(found).read(0, 2) == name.encode()
    server.close()


def test_memory_that_two_regions_say_they_have_is_one_ones() -> None:
    fd, sources = a_pool()
    with mmap.mmap(fd, PLAN.size) as whole_arena:
        at = {
            whole_arena[PLAN.regions_at + 256 * index + 192 :][:2]: PLAN.regions_at + 256 * index
            for index in range(8)
        }
        whole_arena[at[b"r2"] + 128 : at[b"r2"] + 136] = whole_arena[at[b"r0"] + 128 : at[b"r0"] + 136]
    server = PoolServer(fd, sources, plan=PLAN)
    assert len(server.regions.names) == 3
    assert "its memory at" in server.regions.damaged[0]
    server.close()


def test_the_number_of_records_is_found_without_the_header() -> None:
    fd, sources = a_pool()
    os.pwrite(fd, struct.pack("<Q", 0), HEADER["regions_used"])
    server = PoolServer(fd, sources, plan=PLAN)
    assert set(server.regions.names) == {"r0", "r1", "r2", "r3"}
    server.close()


@pytest.mark.parametrize("seed", range(60))
def test_an_arena_with_anything_in_it_is_taken_or_is_unfit(seed: int) -> None:
    """Random words anywhere in the directory: a server starts and serves what it believes, or says why not."""
    fd, sources = a_pool()
    chance = random.Random(seed)
    with mmap.mmap(fd, PLAN.size) as whole_arena:
        for _ in range(1 << chance.randrange(8)):
            at = chance.randrange(0x98 if chance.random() < 0.1 else PLAN.heap_at) // 8 * 8
            value = chance.choice([0, 1, 2**64 - 1, chance.getrandbits(64), chance.getrandbits(32)])
            struct.pack_into("<Q", whole_arena, at, value)
    try:
        server = PoolServer(fd, sources, plan=PLAN)
    except ArenaUnfit:
        return  # and no other error
    server.directory.ready()
    client = Client(server, sources, "other")
    client.allocate(4096)
    server.close()
