"""Rings and queues between clients of a pool: order, back-pressure, whose an end is, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from softcxl.pool.errors import (
    Busy,
    Closed,
    Denied,
    Empty,
    Full,
    NameTaken,
    NoSuchName,
    Refused,
    Stale,
    TooLong,
)
from softcxl.pool.protocol import Attach, ChannelKind, Detach, Give, Opcode
from softcxl.pool.session import Pool
from tests.pool.served import Served

LONG = 30.0


# -- rings ---------------------------------------------------------------------------------------------------------


def test_records_come_in_order_whole_and_with_their_kind(pool: Pool, other: Pool) -> None:
    with pool.ring("orders").producer() as producer, other.ring("orders").consumer() as consumer:
        for number in range(50):
            producer.send(b"x" * number, kind=number)
        for number in range(50):
            record = consumer.receive_record(timeout=0)
            assert (record.data, record.kind, record.reference) == (b"x" * number, number, None)
        with pytest.raises(Empty, match="orders"):
            consumer.receive(timeout=0)


def test_what_is_sent_can_be_said_by_name(pool: Pool, other: Pool) -> None:
    with pool.ring("orders").producer() as producer, other.ring("orders").consumer() as consumer:
        producer.send(kind=5, data=bytearray(b"named"), timeout=0)
        assert consumer.receive_record(timeout=0)[:2] == (b"named", 5)
        producer.send(memoryview(b"by place"), 1 << 29, None)
        assert consumer.receive(timeout=LONG) == b"by place"
    with other.queue("jobs") as queue:
        queue.put(kind=5, data=bytearray(b"named"), timeout=0)
        assert queue.get_record(0)[:2] == (b"named", 5)
        queue.put(b"by place", 1)
        assert queue.get(timeout=0) == b"by place"


@pytest.mark.parametrize(
    ("given", "named", "kind", "said"),
    [
        ((), {}, TypeError, "data"),
        ((b"x", 0, None, 1), {}, TypeError, "arguments"),
        ((b"x",), {"kinds": 1}, TypeError, "kinds"),
        ((b"x",), {"data": b"y"}, TypeError, "data"),
        ((b"x", -1), {}, Refused, "kind -1"),
        ((b"x", 1 << 30), {}, Refused, "kind 1073741824"),
        ((b"x", "1"), {}, TypeError, "str"),
        (("text",), {}, TypeError, "bytes-like"),
        (([1],), {}, TypeError, "bytes-like"),
        ((memoryview(b"abcd")[::2],), {}, BufferError, "contiguous"),
    ],
)
def test_what_cannot_be_sent_is_told_and_nothing_goes(
    pool: Pool, given: tuple[object, ...], named: dict[str, object], kind: type[Exception], said: str
) -> None:
    with pool.ring("orders").producer() as producer, pool.queue("jobs") as queue:
        for send in (producer.send, queue.put):
            with pytest.raises(kind, match=said):
                send(*given, **named)  # type: ignore[arg-type]
        with pool.ring("orders").consumer() as consumer, pytest.raises(Empty):
            consumer.receive(0)
        with pytest.raises(Empty):
            queue.get(0)
        for receive in (queue.get, pool.ring("other").consumer().receive):
            with pytest.raises((ValueError, TypeError)):
                receive(-1)
            with pytest.raises(TypeError):
                receive("soon")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                receive(patience=1)  # type: ignore[call-arg]


def test_a_full_ring_holds_the_producer_back(pool: Pool, other: Pool) -> None:
    producer = pool.ring("small", size=1024).producer()
    consumer = other.ring("small").consumer()
    assert producer.size == 1024
    sent = 1024 // 16 - 1
    for _ in range(sent):
        producer.send(b"12345678", timeout=0)
    with pytest.raises(Full, match="no room"):
        producer.send(b"12345678", timeout=0)
    thread = threading.Thread(target=producer.send, args=(b"late",))
    thread.start()
    assert [consumer.receive(LONG) for _ in range(sent)] == [b"12345678"] * sent
    assert consumer.receive(LONG) == b"late"
    thread.join()
    with pytest.raises(TooLong):
        producer.send(bytes(2000))


def test_iteration_ends_with_the_producer(pool: Pool, other: Pool) -> None:
    with pool.ring("orders").producer() as producer:
        producer.send(b"one")
        producer.send(b"two")
        consumer = other.ring("orders").consumer()
    assert list(consumer) == [b"one", b"two"]
    with pytest.raises(Closed, match="producer has gone"):
        consumer.receive(LONG)


def test_an_end_is_one_client_s(pool: Pool, other: Pool) -> None:
    ring = pool.ring("orders")
    with ring.producer():
        for somebody in (pool, other):
            with pytest.raises(
                Busy, match=f"ring 'orders' has a producer: 'first', slot {pool.slot}, process"
            ):
                somebody.ring("orders").producer()
        with other.ring("orders").consumer(), pytest.raises(Busy, match="a consumer: 'second'"):
            ring.consumer()


def test_the_next_producer_goes_on(pool: Pool, other: Pool) -> None:
    consumer = other.ring("orders").consumer()
    with pool.ring("orders").producer() as producer:
        producer.send(b"one")
    assert consumer.receive(LONG) == b"one"
    with pytest.raises(Closed):
        consumer.receive(LONG)
    with pool.ring("orders").producer() as producer:
        with pytest.raises(Empty):
            consumer.receive(0)
        producer.send(b"two")
    assert list(consumer) == [b"two"]


def test_what_is_left_waits_for_a_consumer(served: Served, pool: Pool, other: Pool) -> None:
    with pool.ring("orders").producer() as producer:
        producer.send(b"kept")
    with pytest.raises(NameTaken, match="1073741824"):
        pool.ring("orders", size="1GiB").producer()
    with other.ring("orders").consumer() as consumer:
        assert consumer.receive(LONG) == b"kept"
    assert served.regions() == 0


def test_a_channel_nobody_has_open_can_be_removed_with_what_is_in_it(served: Served, pool: Pool) -> None:
    producer = pool.ring("orders").producer()
    producer.send(b"never read")
    with pytest.raises(Busy, match="somebody has ring 'orders' open"):
        pool.remove(ring="orders")
    producer.close()
    pool.remove(ring="orders")
    assert served.regions() == 0
    with pytest.raises(NoSuchName, match="there is no ring 'orders'"):
        pool.remove(ring="orders")


def test_a_closed_end_says_so(pool: Pool) -> None:
    producer = pool.ring("orders").producer()
    producer.close()
    producer.close()
    with pytest.raises(Closed, match="closed here"):
        producer.send(b"")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda pool: pool.ring("").producer(), "no name"),
        (lambda pool: pool.ring("x" * 64).producer(), "no name"),
        (lambda pool: pool.ring("x" * 60).producer(), "1 to 58 bytes"),
        (lambda pool: pool.ring("a\nb").consumer(), "no name"),
        (lambda pool: pool.ring("x", size=0), "size=0: it is between 1 and"),
        (lambda pool: pool.ring("x", size="many"), "many"),
        (lambda pool: pool.ring("x", size=float("inf")), "size=inf: it is a whole number"),
        (lambda pool: pool.remove(ring=""), "no name"),
        (lambda pool: pool.remove(queue="x" * 64), "no name"),
        (lambda pool: pool.queue("x", cells=1), "cells=1: it is between 2"),
        (lambda pool: pool.queue("x", cells=3), "not 3 of"),
        (lambda pool: pool.queue("x", size=65536), "65520 bytes"),
        (lambda pool: pool.ring("x").producer().send(b"", kind=1 << 30), "kind 1073741824"),
        (lambda pool: pool.ring("x").producer().send(b"", kind=-1), "kind -1"),
    ],
)
def test_what_cannot_be_is_refused(pool: Pool, what: Callable[[Pool], object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        what(pool)


def test_a_ring_larger_than_the_arena_is_refused(served: Served, pool: Pool) -> None:
    from softcxl.pool.errors import NoRoom

    with pytest.raises(NoRoom):
        pool.ring("huge", size="64GiB").producer()
    assert served.regions() == 0


def test_requests_that_lie_are_refused(served: Served, pool: Pool, other: Pool) -> None:
    mine = pool.ring("orders").producer()
    place = mine.place
    odd = Attach(kind=77, role=1, flags=0, cells=0, size=0, request=0, name=b"x")
    with pytest.raises(Refused, match="kind 77"):
        pool.ask(Opcode.ATTACH, odd.pack())
    with pytest.raises(Refused, match="a queue has no producer"):
        pool.ask(Opcode.ATTACH, odd.replace(kind=ChannelKind.QUEUE).pack())
    with pytest.raises(Stale):
        other.ask(Opcode.DETACH, Detach(index=place.index, generation=place.generation, role=1).pack())
    with pytest.raises(Stale):
        pool.ask(Opcode.DETACH, Detach(index=place.index, generation=place.generation + 1, role=1).pack())
    region = other.allocate("4KiB")
    gift = Give(
        index=region.index,
        generation=region.generation,
        channel=place.index,
        channel_generation=place.generation,
    )
    with pytest.raises(Denied, match="no part in ring 'orders'"):
        other.ask(Opcode.GIVE, gift.pack())
    with pytest.raises(Denied, match=r"another's"):
        pool.ask(Opcode.GIVE, gift.pack())
    with pytest.raises(Stale, match="not on its way"):
        pool.ask(Opcode.ADOPT, gift.pack())
    mine.send(b"still works")


# -- queues --------------------------------------------------------------------------------------------------------


def test_many_put_and_many_get_each_record_once(served: Served) -> None:
    queues = [served.client(f"user {number}").queue("work", cells=8, size=64) for number in range(4)]
    assert {(queue.cells, queue.room) for queue in queues} == {(8, 112)}
    got: list[bytes] = []

    def put(queue: int) -> None:
        for number in range(200):
            queues[queue].put(b"%d of %d" % (number, queue), kind=number)

    def get(queue: int) -> None:
        got.extend(queues[queue])

    putters = [threading.Thread(target=put, args=(number,)) for number in (0, 1)]
    getters = [threading.Thread(target=get, args=(number,)) for number in (2, 3, 3)]
    for thread in putters + getters:
        thread.start()
    for thread in putters:
        thread.join()
    queues[0].finish()
    for thread in getters:
        thread.join()
    assert sorted(got) == sorted(b"%d of %d" % (number, queue) for number in range(200) for queue in (0, 1))
    with pytest.raises(Closed, match="was finished"):
        queues[1].put(b"too late")


def test_a_queue_polls_and_refuses(pool: Pool, other: Pool) -> None:
    with pool.queue("work", cells=2) as queue:
        with pytest.raises(Empty, match="queue 'work'"):
            queue.get(timeout=0)
        queue.put(b"1", kind=3)
        queue.put(b"2")
        with pytest.raises(Full, match="queue 'work'"):
            queue.put(b"3", timeout=0)
        with pytest.raises(TooLong):
            queue.put(bytes(queue.room + 1))
        assert other.queue("work").get_record(LONG)[:2] == (b"1", 3)
        with pytest.raises(NameTaken, match="2 cells of 1008 bytes; 4 of 0 were asked for"):
            other.queue("work", cells=4)
