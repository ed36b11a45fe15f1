"""A worker may take the next call of the client that it has just served ahead of the note of it: and no other call."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from softcxl.pool.errors import Empty, Full
from softcxl.pool.native import Caller, Memory, Queue, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE_AT, QUEUE_SIZE, CELLS = 0, 256 + 2 * 64, 2
TABLES = {1: 4096, 2: 8192}
TABLE_SIZE = 128 + 2 * 128
MARK, OTHER = 7, 8
ASKED, RUNNING = 1, 2
LONG = 60.0


class Shared:
    """A queue of two cells, a worker in slot 9 that knows two clients, and these."""

    def __init__(self) -> None:
        self.buffer = mmap.mmap(-1, 16384)
        self.while_it_sleeps: list[Callable[[], object]] = []
        self.memory = Memory(self.buffer, ring=lambda _: None, rest=self.rest)
        Queue.make(self.memory, QUEUE_AT, QUEUE_SIZE, CELLS, 64, MARK)
        self.worker = Worker(self.memory, self.user(9))
        self.callers = {}
        for client, at in TABLES.items():
            Caller.make(self.memory, at, TABLE_SIZE, 2, 128)
            self.callers[client] = Caller(self.memory, at, TABLE_SIZE, self.user(client))
            self.worker.learn(client, at, TABLE_SIZE)

    def rest(self, _offset: int, _seconds: float) -> None:
        if self.while_it_sleeps:
            self.while_it_sleeps.pop()()

    def user(self, slot: int) -> Queue:
        return Queue(self.memory, QUEUE_AT, QUEUE_SIZE, slot)

    def serve_one(self, client: int) -> tuple[int, int]:
        """A call from its beginning to its end; the worker then looks for the next one there."""
        call = self.callers[client].start(b"first")
        assert self.worker.next(0) == b"first"
        assert self.worker.answer(b"done")
        assert self.callers[client].result(call, 0) == b"done"
        return call

    def ask(self, client: int, cell: int, number: int, data: bytes, mark: int = MARK) -> None:
        """What a client does ahead of its note, written by hand as the layout says it."""
        at = TABLES[client] + 128 + cell * 128
        struct.pack_into(f"<II{len(data)}s", self.buffer, at + 8, len(data), 0, data)
        self.memory.store(at, number << 24 | mark << 8 | ASKED)

    def note(self, client: int, cell: int, number: int) -> None:
        self.user(client).put(struct.pack("<IIQ", client, cell, number), 0, 0)


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_a_call_is_taken_ahead_of_its_note_and_the_note_is_of_nothing_then(shared: Shared) -> None:
    cell, number = shared.serve_one(1)
    shared.ask(1, cell, number + 1, b"second")
    assert shared.worker.next(0) == b"second"
    assert shared.worker.current == (1, cell, number + 1)
    shared.note(1, cell, number + 1)
    assert shared.worker.answer(b"done")
    with pytest.raises(Empty):
        shared.worker.next(0)
    for _ in range(3 * CELLS):  # its cell of the queue is free again, too
        shared.serve_one(2)


def test_notes_of_many_calls_that_were_taken_ahead_are_of_nothing(shared: Shared) -> None:
    cell, number = shared.serve_one(1)
    for following in (number + 1, number + 2):
        shared.ask(1, cell, following, b"%d" % following)
        assert shared.worker.next(0) == b"%d" % following
        assert shared.worker.answer(b"done")
    shared.note(1, cell, number + 1)
    shared.note(1, cell, number + 2)
    shared.ask(1, cell, number + 3, b"last")
    assert shared.worker.next(0) == b"last"
    shared.note(1, cell, number + 3)
    with pytest.raises(Empty):
        shared.worker.next(0)


@pytest.mark.parametrize(
    ("cell", "number", "mark"),
    [(0, 2, OTHER), (0, 2, 0), (0, 3, MARK), (0, 1, MARK), (1, 1, MARK), (1, 2, MARK)],
    ids=["another service's", "no service's", "a later one", "an earlier one", "another cell", "and number"],
)
def test_no_other_call_is_taken_without_a_note(shared: Shared, cell: int, number: int, mark: int) -> None:
    assert shared.serve_one(1) == (0, 1)
    shared.ask(1, cell, number, b"not this", mark)
    with pytest.raises(Empty):
        shared.worker.next(0)


def test_a_note_in_another_services_queue_has_nobody_take_the_call(shared: Shared) -> None:
    shared.ask(1, 0, 1, b"not this", OTHER)
    shared.note(1, 0, 1)
    with pytest.raises(Empty):
        shared.worker.next(0)


def test_a_note_that_is_longer_than_its_cell_is_none(shared: Shared) -> None:
    shared.callers[2].start(b"waits")
    (ticket,) = struct.unpack_from("<Q", shared.buffer, QUEUE_AT + 128)
    struct.pack_into("<I", shared.buffer, QUEUE_AT + 256 + ticket % CELLS * 64 + 8, 1 << 30)
    shared.callers[1].start(b"on")
    assert shared.worker.next(0) == b"on"
    assert shared.worker.answer(b"done")
    for _ in range(2 * CELLS):
        shared.serve_one(1)


def test_a_note_whose_number_has_more_bits_than_a_word_is_of_no_call(shared: Shared) -> None:
    shared.ask(1, 0, 1, b"not this")
    shared.note(1, 0, 1 + (1 << 40))
    with pytest.raises(Empty):
        shared.worker.next(0)
    assert shared.worker.take((1, 0, 1 + (1 << 40))) is None


def test_who_waits_in_the_queue_goes_before_who_asks_again(shared: Shared) -> None:
    cell, number = shared.serve_one(1)
    shared.callers[2].start(b"waits")
    shared.ask(1, cell, number + 1, b"again")
    assert shared.worker.next(0) == b"waits"
    assert shared.worker.answer(b"done")
    shared.note(1, cell, number + 1)
    assert shared.worker.next(0) == b"again"


@pytest.mark.parametrize("first", [1, 2], ids=["itself", "another client"])
def test_what_was_begun_before_a_call_was_asked_is_run_before_it(shared: Shared, first: int) -> None:
    """While the worker sleeps: when it looks again both are there, and one where it looks for it ahead of its note."""
    cell, number = shared.serve_one(1)
    other = (
        shared.callers[first] if first != 1 else Caller(shared.memory, TABLES[1], TABLE_SIZE, shared.user(1))
    )

    def both() -> None:
        if first == 1:  # in the other cell: this one is taken until it has been asked there
            shared.memory.store(TABLES[1] + 128 + cell * 128, number << 24 | 9 << 8 | RUNNING)
        other.start(b"earlier")
        shared.ask(1, cell, number + 1, b"later")
        shared.note(1, cell, number + 1)

    for _ in range(2):  # and so the next time
        shared.while_it_sleeps.append(both)
        assert shared.worker.next(LONG) == b"earlier"
        earlier = shared.worker.current
        assert shared.worker.answer(b"done")
        assert shared.worker.next(0) == b"later"
        assert shared.worker.current == (1, cell, number + 1)
        assert shared.worker.answer(b"done")
        number += 1
        assert other.result(earlier[1:], 0) == b"done"


def test_a_call_is_taken_ahead_again_when_what_was_begun_has_been_run(shared: Shared) -> None:
    shared.serve_one(2)
    cell, number = shared.serve_one(1)
    with pytest.raises(Empty):
        shared.worker.next(0)
    shared.ask(1, cell, number + 1, b"ahead")
    assert shared.worker.next(0) == b"ahead"


def test_a_call_that_another_worker_took_is_not_waited_for(shared: Shared) -> None:
    cell, number = shared.serve_one(1)
    shared.memory.store(TABLES[1] + 128 + cell * 128, (number + 1) << 24 | 5 << 8 | RUNNING)
    with pytest.raises(Empty):
        shared.worker.next(0)
    shared.callers[2].start(b"on")
    assert shared.worker.next(0) == b"on"


def test_a_client_that_is_forgotten_is_served_by_no_note_and_ahead_of_none(shared: Shared) -> None:
    cell, number = shared.serve_one(1)
    shared.worker.forget(1)
    shared.ask(1, cell, number + 1, b"not this")
    with pytest.raises(Empty):
        shared.worker.next(0)


def test_a_table_that_was_made_anew_begins_anew(shared: Shared) -> None:
    cell, number = shared.serve_one(1)
    for following in (number + 1, number + 2):
        shared.ask(1, cell, following, b"ahead")
        assert shared.worker.next(0) == b"ahead"
    Caller.make(shared.memory, TABLES[1], TABLE_SIZE, 2, 128)
    shared.worker.learn(1, TABLES[1], TABLE_SIZE)
    shared.ask(1, cell, number, b"first again")
    shared.note(1, cell, number)
    assert shared.worker.next(0) == b"first again"


def test_a_client_asks_in_the_cell_that_has_just_been_answered(shared: Shared) -> None:
    cells = {shared.serve_one(1)[0] for _ in range(4)}
    assert cells == {0}
    first, second = shared.callers[1].start(b"a"), shared.callers[1].start(b"b")
    assert [first[0], second[0]] == [0, 1]


def test_who_waits_for_room_for_a_note_waits_no_more_when_a_worker_has_taken_the_call(shared: Shared) -> None:
    held = [Worker(shared.memory, shared.user(slot)) for slot in (3, 4)]
    for one in held:  # each has a note in its hands: the queue has nothing, and no room
        shared.note(60, 0, 1)
        with pytest.raises(KeyError):
            one.next(0)
    with pytest.raises(Full):
        shared.callers[1].start(b"taken back", 0, 0)
    with pytest.raises(Empty):
        shared.worker.take((1, 0, 1)) or shared.worker.next(0)
    got: list[object] = []
    asking = threading.Thread(target=lambda: got.append(shared.callers[2].call(b"ask", 0, LONG)))
    asking.start()
    until = time.monotonic() + LONG
    while shared.worker.take((2, 0, 1)) is None:
        assert time.monotonic() < until
    assert shared.worker.answer(b"answer")
    asking.join(LONG)
    assert got == [b"answer"]
