"""Rings, queues and tables of calls against plain lists, whatever is done to them, and whoever dies in the middle.

Who dies at which point of one operation is `crash.c`'s; here what the dead leave is put there as they would have, among
any number of whole operations of others.
"""

from __future__ import annotations

import mmap
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softcxl.pool.errors import Closed, Empty, Full, Lost, TooLong
from softcxl.pool.native import Caller, Memory, Queue, Ring, Worker

RING_AT, RING_SIZE = 0, 256 + 512
ROOM = 512 - 8
"""Bytes for records: a ring keeps 8 behind the last one."""
QUEUE_AT, CELLS, STRIDE = 4096, 4, 64
QUEUE_SIZE = 256 + CELLS * STRIDE
DEAD = 9
"""The slot of who dies."""
FILLING, READY, TAKING, SPOILT = 1, 2, 3, 4
USERS = (1, 2, 3)
DATA = st.binary(max_size=48)


class RingModel(RuleBasedStateMachine):
    """One producer, one consumer, and those who come after them."""

    @initialize()
    def begin(self) -> None:
        self.memory = Memory(mmap.mmap(-1, 8192))
        Ring.make(self.memory, RING_AT, RING_SIZE)
        self.producer = Ring(self.memory, RING_AT, RING_SIZE, True)
        self.consumer = Ring(self.memory, RING_AT, RING_SIZE, False)
        self.model: deque[tuple[bytes, int]] = deque()
        self.sent = 0

    def used(self) -> int:
        return sum(8 + -(-len(data) // 8) * 8 for data, _ in self.model)

    @rule(data=st.binary(max_size=600), kind=st.integers(0, 2**32 - 1))
    def send(self, data: bytes, kind: int) -> None:
        room = 8 + -(-len(data) // 8) * 8
        if room > ROOM:
            with pytest.raises(TooLong):
                self.producer.send(data, kind, 0)
        elif self.used() + room > ROOM:
            with pytest.raises(Full):
                self.producer.send(data, kind, 0)
        else:
            self.producer.send(data, kind, 0)
            self.model.append((data, kind))
            self.sent += room

    @rule()
    def receive(self) -> None:
        if self.model:
            assert self.consumer.take(0) == self.model.popleft()
        else:
            with pytest.raises(Empty):
                self.consumer.take(0)

    @rule(data=DATA)
    def the_producer_dies_over_a_record(self, data: bytes) -> None:
        """Its bytes are there, and nothing says so; another goes on."""
        tail = self.sent
        for at in range(8, 8 + len(data), 8):
            if self.used() + 16 + at <= ROOM:
                self.memory.store(RING_AT + 256 + (tail + at) % 512, int.from_bytes(data[:8], "little"))
        self.producer = Ring(self.memory, RING_AT, RING_SIZE, True)

    @precondition(lambda self: self.model)
    @rule()
    def the_producer_dies_before_its_index_is_there(self) -> None:
        data, _ = self.model[-1]
        self.memory.store(RING_AT + 64, self.sent - 8 - -(-len(data) // 8) * 8)
        self.producer = Ring(self.memory, RING_AT, RING_SIZE, True)

    @rule()
    def the_consumer_dies(self) -> None:
        self.consumer = Ring(self.memory, RING_AT, RING_SIZE, False)

    def teardown(self) -> None:
        if hasattr(self, "producer"):
            self.producer.close()
            while self.model:
                self.receive()
            with pytest.raises(Closed):
                self.consumer.take(0)


class QueueModel(RuleBasedStateMachine):
    """Several users, and one who dies in the middle of what he does."""

    @initialize()
    def begin(self) -> None:
        self.memory = Memory(mmap.mmap(-1, 8192))
        Queue.make(self.memory, QUEUE_AT, QUEUE_SIZE, CELLS, STRIDE)
        self.users = {slot: Queue(self.memory, QUEUE_AT, QUEUE_SIZE, slot) for slot in (*USERS, DEAD)}
        self.model: deque[tuple[bytes, int]] = deque()
        self.spoilt = 0

    def words(self) -> list[tuple[int, int, int, int]]:
        """Ticket, slot, state and place of each cell."""
        found = []
        for cell in range(CELLS):
            at = QUEUE_AT + 256 + cell * STRIDE
            word = self.memory.load(at)
            found.append((word >> 24, word >> 8 & 0xFFFF, word & 0xFF, at))
        return found

    @rule(slot=st.sampled_from((*USERS, DEAD)), data=DATA, kind=st.integers(0, 2**32 - 1))
    def put(self, slot: int, data: bytes, kind: int) -> None:
        try:
            self.users[slot].put(data, kind, 0)
        except Full:
            assert len(self.model) + self.spoilt >= CELLS
        else:
            assert len(self.model) < CELLS
            self.model.append((data, kind))

    @rule(slot=st.sampled_from((*USERS, DEAD)))
    def get(self, slot: int) -> None:
        if self.model:
            assert self.users[slot].take(0) == self.model.popleft()
        else:
            with pytest.raises(Empty):
                self.users[slot].take(0)
            self.spoilt = 0  # whoever looks there cleans up

    @rule(slot=st.sampled_from(USERS), data=st.binary(min_size=49, max_size=100))
    def too_long(self, slot: int, data: bytes) -> None:
        with pytest.raises(TooLong):
            self.users[slot].put(data, 0, 0)

    @rule(mender=st.sampled_from(USERS), times=st.integers(1, 3))
    def mend(self, mender: int, times: int) -> None:
        """Of somebody who had finished all that he did: nothing is another afterwards."""
        for _ in range(times):
            self.users[mender].mend(DEAD)

    @rule(mender=st.sampled_from(USERS), times=st.integers(1, 2))
    def one_dies_over_a_put(self, mender: int, times: int) -> None:
        tail = self.memory.load(QUEUE_AT + 64)
        for ticket, _, state, at in self.words():
            if ticket == tail and state == 0:
                assert self.memory.swap(at, ticket << 24, ticket << 24 | DEAD << 8 | FILLING)
                self.spoilt += 1
        for _ in range(times):
            self.users[mender].mend(DEAD)

    @rule(mender=st.sampled_from(USERS), times=st.integers(1, 2), hint=st.booleans())
    def one_dies_over_a_get(self, mender: int, times: int, hint: bool) -> None:
        """What he had taken and not read to its end is there again, and first."""
        ready = [one for one in self.words() if one[2] == READY]
        if ready:
            ticket, slot, state, at = min(ready)
            assert self.memory.swap(at, ticket << 24 | slot << 8 | state, ticket << 24 | DEAD << 8 | TAKING)
            head = self.memory.load(QUEUE_AT + 128)
            if hint and head == ticket:
                self.memory.store(QUEUE_AT + 128, head + 1)
        for _ in range(times):
            self.users[mender].mend(DEAD)

    @invariant()
    def nothing_is_half_done(self) -> None:
        if hasattr(self, "users"):
            assert {state for _, _, state, _ in self.words()} <= {0, READY, SPOILT}

    def teardown(self) -> None:
        if hasattr(self, "users"):
            self.users[1].close()
            while self.model:
                self.get(2)
            with pytest.raises(Closed):
                self.users[2].take(0)


TABLE_AT, TABLE_CELLS = 8192, 3
TABLE_SIZE = 128 + TABLE_CELLS * 64


class CallsModel(RuleBasedStateMachine):
    """A client, two workers of which one dies over and over: each call is run once at most, and each ends."""

    @initialize()
    def begin(self) -> None:
        self.memory = Memory(mmap.mmap(-1, 16384))
        Queue.make(self.memory, QUEUE_AT, 256 + 16 * 64, 16, 64)
        Caller.make(self.memory, TABLE_AT, TABLE_SIZE, TABLE_CELLS, 64)
        self.queue = Queue(self.memory, QUEUE_AT, 256 + 16 * 64, 1)
        self.caller = Caller(self.memory, TABLE_AT, TABLE_SIZE, self.queue)
        self.workers = {slot: self.worker(slot) for slot in (2, DEAD)}
        self.asked: dict[tuple[int, int], bytes] = {}
        self.running: dict[int, tuple[int, int] | None] = {2: None, DEAD: None}
        self.ended: dict[tuple[int, int], bytes | None] = {}
        self.given_up: set[tuple[int, int]] = set()
        self.number = 0
        self.hands: list[Worker] = []

    def worker(self, slot: int) -> Worker:
        one = Worker(self.memory, Queue(self.memory, QUEUE_AT, 256 + 16 * 64, slot))
        one.learn(1, TABLE_AT, TABLE_SIZE)
        return one

    @rule()
    def start(self) -> None:
        self.number += 1
        try:
            call = self.caller.start(b"%d" % self.number, 0, 0)
        except Full:
            held = {call for call in self.running.values() if call in self.given_up}
            assert len(self.asked) + len(self.ended) + len(held) >= TABLE_CELLS or self.number > 16
        else:
            self.asked[call] = b"%d" % self.number

    @rule(slot=st.sampled_from((2, DEAD)))
    def take(self, slot: int) -> None:
        if self.running[slot] is not None:
            return
        waiting = [call for call in self.asked if call not in self.running.values()]
        try:
            data = self.workers[slot].next(0)
        except Empty:
            assert not waiting
            return
        call = self.workers[slot].current[1:]
        assert call in waiting
        assert self.asked[call] == data
        self.running[slot] = call

    @rule(slot=st.sampled_from((2, DEAD)))
    def answer(self, slot: int) -> None:
        call, self.running[slot] = self.running[slot], None
        if call is None:
            return
        heard = self.workers[slot].answer(b"to %d" % call[1], 0, (1, *call))
        assert heard == (call not in self.given_up)
        if heard:
            self.ended[call] = b"to %d" % call[1]
            del self.asked[call]

    @rule(between=st.booleans())
    def die(self, between: bool) -> None:
        """The one dies, over a call or, `between`, with a note in its hand whose call it has not taken yet."""
        if between and self.running[DEAD] is None:
            lost = Worker(self.memory, Queue(self.memory, QUEUE_AT, 256 + 16 * 64, DEAD))
            try:
                lost.next(0)
            except (Empty, KeyError):
                pass  # it does not know the client: it has claimed the note, and no more
            self.hands.append(lost)  # who is killed gives nothing back
        self.queue.mend(DEAD)
        self.caller.mend(DEAD)
        call, self.running[DEAD] = self.running[DEAD], None
        self.workers[DEAD] = self.worker(DEAD)
        if call is not None and call in self.asked:
            del self.asked[call]
            self.ended[call] = None

    @rule(data=st.data())
    def result(self, data: st.DataObject) -> None:
        calls = sorted([*self.asked, *self.ended])
        if not calls:
            return
        call = data.draw(st.sampled_from(calls))
        if call not in self.ended:
            with pytest.raises(Empty):
                self.caller.result(call, 0)
            return
        expected = self.ended.pop(call)
        if expected is None:
            with pytest.raises(Lost):
                self.caller.result(call, 0)
        else:
            assert self.caller.result(call, 0) == expected

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        calls = sorted([*self.asked, *self.ended])
        if not calls:
            return
        call = data.draw(st.sampled_from(calls))
        assert self.caller.cancel(call)
        self.asked.pop(call, None)
        self.ended.pop(call, None)
        if call in self.running.values():
            self.given_up.add(call)


COUNTS = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRing = RingModel.TestCase
TestRing.settings = COUNTS
TestQueue = QueueModel.TestCase
TestQueue.settings = COUNTS
TestCalls = CallsModel.TestCase
TestCalls.settings = COUNTS
