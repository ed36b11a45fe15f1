"""Who has an end of a channel and goes: closed, killed, taken for dead, and the server's own end."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import pytest

from softcxl.pool.channel import Consumer
from softcxl.pool.errors import (
    Busy,
    Closed,
    Empty,
    Full,
    Stale,
)
from softcxl.pool.native import Life, Worker
from softcxl.pool.native import Queue as NativeQueue
from softcxl.pool.native import Ring as NativeRing
from softcxl.pool.session import Pool
from tests.pool.peers import consumer_has_gone, peer
from tests.pool.served import Served, wait_until

LONG = 30.0


def test_a_producer_that_is_killed_leaves_what_it_had_sent(served: Served, pool: Pool) -> None:
    with peer("produce", served.address) as producer:
        assert producer.hears() == "sent"
        consumer = pool.ring("numbers").consumer()
        assert consumer.receive(LONG) == b"0"
    assert list(consumer) == [b"%d" % number for number in range(1, 100)]
    with pool.ring("numbers").producer() as successor:
        successor.send(b"next")
        assert consumer.receive(LONG) == b"next"


def test_a_consumer_that_is_killed_makes_room_for_another(served: Served, pool: Pool) -> None:
    with pool.ring("numbers", size=1024).producer() as producer:
        with peer("consume", served.address) as consumer:
            producer.send(b"first")
            assert consumer.hears() == "first"
        assert consumer_has_gone(producer)
        with pool.ring("numbers").consumer() as successor:
            assert successor.receive(LONG) == b"12345678"


def test_killed_users_of_a_queue_stop_nobody(served: Served, pool: Pool) -> None:
    queue = pool.queue("numbers", cells=8)
    for _ in range(3):
        with peer("fill", served.address) as filler:
            got = [queue.get(LONG) for _ in range(600)]
            assert filler.hears() == "filling"
        assert got[0] == b"0"
        while True:  # what is left comes, in order, and then the queue is as good as new
            try:
                got.append(queue.get(0))
            except Empty:
                if len(served.server.names) == 1:
                    break
        assert got == [b"%d" % number for number in range(len(got))]
    queue.put(b"on")
    assert queue.get(LONG) == b"on"


def test_a_queue_whose_oldest_record_is_still_being_taken_is_empty_and_not_corrupt(pool: Pool) -> None:
    queue = pool.queue("work", cells=2, size=16)
    at, size = queue.place.at, queue.place.size
    slow = Worker(pool.directory, NativeQueue(pool.directory, at, size, pool.slot))
    queue.put(struct.pack("<IIQ", 60, 0, 1))
    queue.put(b"second")
    with pytest.raises(KeyError):
        slow.next(0)  # of a client that it does not know: the record stays in its hands
    assert queue.get(0) == b"second"
    with pytest.raises(Empty):
        queue.get(0)
    with pytest.raises(Full):
        queue.put(b"third", timeout=0)
    del slow  # what it has not taken is there for others, and before what came later
    assert queue.get(0) == struct.pack("<IIQ", 60, 0, 1)
    queue.put(b"third", timeout=0)
    assert queue.get(0) == b"third"


@pytest.mark.parametrize("end", ["ring", "pool"])
@pytest.mark.parametrize("what", ["receive", "send"])
def test_who_waits_at_a_ring_that_is_closed_here_is_told(
    pool: Pool, other: Pool, end: str, what: str
) -> None:
    one = pool.ring("orders", 64).consumer() if what == "receive" else pool.ring("orders", 64).producer()
    told: list[Exception] = []

    def wait() -> None:
        try:
            for _ in range(9):
                if isinstance(one, Consumer):
                    one.receive(LONG)
                else:
                    one.send(b"3", timeout=LONG)
        except Closed as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    sleepers = one.place.at + (192 if what == "receive" else 200)
    wait_until(lambda: other.directory.load(sleepers) & 1)
    one.close() if end == "ring" else pool.close()
    waiting.join(LONG)
    assert [type(error) for error in told] == [Closed]
    assert "was closed here" in str(told[0])


@pytest.mark.parametrize("end", ["queue", "pool"])
@pytest.mark.parametrize("what", ["get", "put"])
def test_who_waits_in_a_queue_that_is_closed_here_is_told(
    pool: Pool, other: Pool, end: str, what: str
) -> None:
    queue = pool.queue("work", cells=2)
    if what == "put":
        queue.put(b"1")
        queue.put(b"2")
    told: list[Exception] = []

    def wait() -> None:
        try:
            queue.put(b"3", timeout=LONG) if what == "put" else queue.get(LONG)
        except Closed as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    sleepers = queue.place.at + (192 if what == "get" else 200)
    wait_until(lambda: other.directory.load(sleepers) & 1)
    queue.close() if end == "queue" else pool.close()
    waiting.join(LONG)
    assert [type(error) for error in told] == [Closed]
    assert "was closed here" in str(told[0])


def _waiting(pool: Pool, what: str) -> tuple[int, int, Callable[[], object]]:
    """Where who does that sleeps, how often it is done until he has to, and how."""
    if what in ("get", "put"):
        queue = pool.queue("work", cells=2)
        return (
            queue.place.at + (192 if what == "get" else 200),
            3,
            queue.get if what == "get" else lambda: queue.put(b"1"),
        )
    if what == "receive":
        consumer = pool.ring("orders", 64).consumer()
        return consumer.place.at + 192, 1, consumer.receive
    producer, region = pool.ring("orders", 64).producer(), pool.allocate(64)
    return (
        producer.place.at + 200,
        9,
        lambda: producer.send(b"1") if what == "send" else producer.send_reference(region),
    )


@pytest.mark.parametrize("what", ["receive", "send", "get", "put", "refer"])
def test_who_waits_and_is_taken_for_dead_is_told(served: Served, other: Pool, what: str) -> None:
    pool = served.client("taken for dead")
    at, turns, go = _waiting(pool, what)
    told: list[Exception] = []

    def wait() -> None:
        try:
            for _ in range(turns):
                go()
        except Stale as error:
            told.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    wait_until(lambda: other.directory.load(at) & 1)
    served.server.left(pool.slot)  # its memory may be another channel's now
    waiting.join(LONG)
    assert not waiting.is_alive()
    assert ["taken this client for dead" in str(error) for error in told] == [True]


def test_nothing_is_taken_for_who_has_gone(pool: Pool, other: Pool) -> None:
    queue, ring = other.queue("work"), other.ring("orders")
    producer, consumer = ring.producer(), pool.ring("orders").consumer()
    life = Life(pool.directory, 0, pool.directory.load(0))
    place, end = queue.place, consumer.place
    mine = NativeQueue(pool.directory, place.at, place.size, pool.slot, life)
    worker, received = Worker(pool.directory, mine), NativeRing(pool.directory, end.at, end.size, False, life)
    queue.put(struct.pack("<IIQ", 60, 0, 1))
    producer.send(b"1")
    life.end()
    for take in (worker.next, mine.get, received.receive):
        with pytest.raises(Closed):
            take(0)
    with pytest.raises(Closed):
        mine.put(b"2")
    del worker
    assert queue.get(0) == struct.pack("<IIQ", 60, 0, 1)
    assert consumer.receive(0) == b"1"


def test_channels_outlive_their_server(served: Served, pool: Pool, other: Pool) -> None:
    producer, consumer = pool.ring("orders").producer(), other.ring("orders").consumer()
    queue = pool.queue("work")
    queue.put_reference(pool.allocate("4KiB"), 0, 4, give=True)
    producer.send(b"before")
    served.stop()
    producer.send(b"meanwhile")
    served.start()
    producer.send(b"after")
    assert [consumer.receive(LONG) for _ in range(3)] == [b"before", b"meanwhile", b"after"]
    with pytest.raises(Busy, match="'second'"):
        pool.ring("orders").consumer()
    assert other.queue("work").get(LONG) == bytes(4)
    producer.close()
    with pytest.raises(Closed):
        consumer.receive(LONG)
