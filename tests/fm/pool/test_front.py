"""A pool's server behind a region's front: what each request gets, and that nobody is hurt by a guest that lies."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from softcxl.fm.pool import front
from softcxl.fm.pool.front import Front
from softcxl.fm.pool.guests import Guests
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import PROTOCOL, Hello, Opcode, Status, Welcome
from tests.fm.pool.memories import PLAN, FakeSource
from tests.pool.served import wait_until

FRONT = 2 << 20
READY, BEAT, BELLS, WORDS, CELLS = 12, 24, 0x3000, 0x3000 + 56 * 8, 0x4000
CLAIMED, ASKED, ANSWERED = 1, 2, 3
HEAD = struct.Struct("<IIII")
HELLO = Hello(
    protocol=PROTOCOL, pid=1, slot=0, epoch=0, token=b"", lease=0, name=b"program", host=b"elsewhere"
).pack()


@dataclass(frozen=True)
class Visitor:
    device: str
    host: str


@dataclass
class Region:
    """A device's memory, decoded by a guest of host alpha."""

    name: str = "way"
    visitor: Visitor = Visitor("way", "alpha")
    front_fd: int = -1
    decoded: bool = True
    comings: int = 0
    memory: mmap.mmap = field(init=False)

    def __post_init__(self) -> None:
        self.front_fd = os.memfd_create("front", os.MFD_CLOEXEC)
        os.truncate(self.front_fd, FRONT)
        self.memory = mmap.mmap(self.front_fd, FRONT)

    def word(self, cell: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, WORDS + 8 * cell)[0])

    def put(self, at: int, value: int) -> None:
        struct.pack_into("<Q", self.memory, at, value)

    def request(self, cell: int, slot: int, opcode: int, data: bytes, length: int | None = None) -> None:
        """As a program does that has the number 77."""
        place = CELLS + 4096 * cell
        HEAD.pack_into(self.memory, place, slot, opcode, len(data) if length is None else length, 0)
        self.memory[place + 64 : place + 64 + len(data)] = data
        self.put(WORDS + 8 * cell, 77 << 8 | ASKED)

    def answer(self, cell: int) -> tuple[int, bytes]:
        """What is there, read as a program does that gives its cell back."""
        assert self.word(cell) == 77 << 8 | ANSWERED
        place = CELLS + 4096 * cell
        _, _, length, status = HEAD.unpack_from(self.memory, place)
        self.put(WORDS + 8 * cell, 0)
        return status, self.memory[place + 64 : place + 64 + length]


@pytest.fixture
def server() -> Iterator[PoolServer]:
    arena = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.truncate(arena, PLAN.size)
    with PoolServer(arena, [FakeSource("mem0")], plan=PLAN) as one:
        yield one
    os.close(arena)


@pytest.fixture
def guests(server: PoolServer) -> Guests:
    return Guests(server)


@pytest.fixture
def region() -> Iterator[Region]:
    one = Region()
    yield one
    os.close(one.front_fd)


@pytest.fixture
def desk(guests: Guests, region: Region) -> Front:
    """Whose looks the test does."""
    return Front(guests, region)


def come(desk: Front, region: Region, cell: int = 0) -> Welcome:
    region.request(cell, 0, Opcode.HELLO, HELLO)
    assert desk.look()
    status, answer = region.answer(cell)
    assert status == Status.OK, answer
    return Welcome.unpack(answer)


def test_it_answers_by_itself_and_says_so(guests: Guests, region: Region) -> None:
    with Front(guests, region):
        assert region.memory[READY] == 1
        region.request(3, 0, Opcode.HELLO, HELLO)
        wait_until(lambda: region.word(3) != 77 << 8 | ASKED)
        assert region.answer(3)[0] == Status.OK
        beat = region.memory[BEAT : BEAT + 8]
        wait_until(lambda: region.memory[BEAT : BEAT + 8] != beat)
    assert region.memory[READY] == 0


def test_a_program_is_of_the_guests_host(desk: Front, region: Region, server: PoolServer) -> None:
    welcome = come(desk, region)
    told = server.directory.map[:]
    assert b"alpha" in told
    assert b"elsewhere" not in told
    assert server.names[welcome.slot] == "program"


def test_several_ask_at_once(desk: Front, region: Region) -> None:
    for cell in range(8):
        region.request(cell, 0, Opcode.HELLO, HELLO)
    assert desk.look()
    assert len({Welcome.unpack(region.answer(cell)[1]).slot for cell in range(8)}) == 8
    assert not desk.look()


@pytest.mark.parametrize(
    ("slot", "opcode", "data", "length", "status", "says"),
    [
        (0, Opcode.HELLO, b"", 4033, Status.MALFORMED, "a request of 4033 bytes; 4032 are the most"),
        (0, Opcode.HELLO, b"", 0xFFFFFFFF, Status.MALFORMED, "are the most"),
        (0, Opcode.HELLO, b"short", None, Status.MALFORMED, ""),
        (5, Opcode.TELL, b"", None, Status.GONE, "slot 5 is none of this guest's"),
        (0xFFFFFFFF, 0xFFFFFFFF, b"", None, Status.GONE, "slot 4294967295 is none of this guest's"),
    ],
)
def test_requests_that_cannot_be(
    desk: Front,
    region: Region,
    slot: int,
    opcode: int,
    data: bytes,
    length: int | None,
    status: Status,
    says: str,
) -> None:
    region.request(0, slot, opcode, data, length)
    assert desk.look()
    found, answer = region.answer(0)
    assert found == status
    assert says in answer.decode()
    come(desk, region)


def test_an_unknown_opcode_of_one_who_is_there(desk: Front, region: Region) -> None:
    welcome = come(desk, region)
    region.request(0, welcome.slot, 0xFFFFFFFF, b"")
    desk.look()
    assert region.answer(0)[0] == Status.MALFORMED


def test_bells_ring_words_of_the_arena_and_nothing_else(desk: Front, region: Region, guests: Guests) -> None:
    heard: list[int | None] = []
    guests.listen(heard.append)
    for number, bell in enumerate((1, PLAN.heap_at // 8 + 1, (1 << 64) - 1, PLAN.size)):
        region.put(BELLS + 8 * number, bell)
    assert desk.look()
    assert heard == [0, PLAN.heap_at]
    assert not any(region.memory[BELLS : BELLS + 56 * 8])
    assert not desk.look()


@pytest.mark.parametrize("word", [77 << 8 | CLAIMED, 77 << 8 | ANSWERED, 77 << 8 | 9, (1 << 64) - 1])
def test_a_cell_whose_owner_is_dead_is_free_again(
    desk: Front, region: Region, monkeypatch: pytest.MonkeyPatch, word: int
) -> None:
    now = [100.0]
    monkeypatch.setattr(front, "time", SimpleNamespace(monotonic=lambda: now[0]))
    region.put(WORDS, word)
    for passed in (0, 4.9):
        now[0] = 100.0 + passed
        assert not desk.look()
        assert region.word(0) == word
    now[0] = 105.1
    desk.look()
    assert region.word(0) == 0


def test_a_cell_that_changes_hands_is_nobodys_leftover(
    desk: Front, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(front, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for owner in range(1, 20):
        region.put(WORDS, owner << 8 | CLAIMED)
        desk.look()
        now[0] += 4
        assert region.word(0) == owner << 8 | CLAIMED


@pytest.mark.parametrize("how", ["comings", "decoded"])
def test_a_guest_that_goes_takes_its_programs_along(
    desk: Front, region: Region, server: PoolServer, how: str
) -> None:
    slot = come(desk, region).slot
    region.put(BELLS, 5)
    if how == "comings":
        region.comings += 1
    else:
        region.decoded = False
    assert not desk.look()
    assert slot not in server.names
    assert not any(region.memory[BELLS:CELLS])


def test_nobody_is_heard_before_there_is_a_region(desk: Front, region: Region, server: PoolServer) -> None:
    region.decoded = False
    region.request(0, 0, Opcode.HELLO, HELLO)
    assert not desk.look()
    assert region.word(0) == 77 << 8 | ASKED
    region.decoded = True
    assert desk.look()
    assert region.answer(0)[0] == Status.OK


def test_a_bug_of_the_server_is_an_answer(
    desk: Front,
    region: Region,
    guests: Guests,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*given: object) -> tuple[int, bytes]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(guests, "ask", fails)
    region.request(0, 0, Opcode.HELLO, HELLO)
    assert desk.look()
    assert region.answer(0) == (Status.FAILED, b"the pool's server failed")
    assert "way: the pool's server failed; a bug" in caplog.text
