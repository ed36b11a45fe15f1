"""Rings and queues between clients of a pool: order, back-pressure, ends and whose they are, references, deaths."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softcxl.pool.channel import Consumer, Producer
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
from softcxl.pool.native import Life, Worker
from softcxl.pool.native import Queue as NativeQueue
from softcxl.pool.native import Ring as NativeRing
from softcxl.pool.protocol import Attach, ChannelKind, Detach, Give, Opcode
from softcxl.pool.session import Pool
from tests.pool.exchanging import Exchanging, peer, serving
from tests.pool.served import wait_until

LONG = 30.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Exchanging]:
    with serving(tmp_path) as one:
        yield one


@pytest.fixture
def pool(served: Exchanging) -> Pool:
    return served.client("first")


@pytest.fixture
def other(served: Exchanging) -> Pool:
    return served.client("second")


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


def test_what_is_left_waits_for_a_consumer(served: Exchanging, pool: Pool, other: Pool) -> None:
    with pool.ring("orders").producer() as producer:
        producer.send(b"kept")
    with pytest.raises(NameTaken, match="1073741824"):
        pool.ring("orders", size="1GiB").producer()
    with other.ring("orders").consumer() as consumer:
        assert consumer.receive(LONG) == b"kept"
    assert served.regions() == 0


def test_a_channel_nobody_has_open_can_be_removed_with_what_is_in_it(served: Exchanging, pool: Pool) -> None:
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


def test_a_ring_larger_than_the_arena_is_refused(served: Exchanging, pool: Pool) -> None:
    from softcxl.pool.errors import NoRoom

    with pytest.raises(NoRoom):
        pool.ring("huge", size="64GiB").producer()
    assert served.regions() == 0


def test_requests_that_lie_are_refused(served: Exchanging, pool: Pool, other: Pool) -> None:
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


def test_many_put_and_many_get_each_record_once(served: Exchanging) -> None:
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


# -- references ----------------------------------------------------------------------------------------------------


def test_what_is_lent_is_read_where_it_is(pool: Pool, other: Pool) -> None:
    with pool.ring("large").producer() as producer, other.ring("large").consumer() as consumer:
        with pool.allocate("1MiB") as region:
            region.write(4096, b"abcdefgh")
            producer.send_reference(region, 4096, 8, kind=9)
            producer.send_reference(region, 4098, 3)
            record = consumer.receive_record(LONG)
            assert record.kind == 9
            assert record.reference is not None
            assert bytes(record.reference.view()) == record.reference.read() == b"abcdefgh"
            region.view()[4096:4100] = b"ABCD"
            assert bytes(record.reference.view()) == b"ABCDefgh"
            assert consumer.receive(LONG) == b"CDe"
            producer.send_reference(region)
            with pytest.raises(Refused, match="the region has 1048576"):
                producer.send_reference(region, 1 << 20, 1)
            pool.free(region)
        with pytest.raises(Stale):
            consumer.receive(LONG)
        with pytest.raises(Stale):
            record.reference.view()


def test_references_to_one_region_after_another(pool: Pool, other: Pool) -> None:
    regions = [pool.allocate(4096) for _ in range(20)]  # more than are kept open
    for number, region in enumerate(regions):
        region.write(0, b"%04d" % number)
    with pool.ring("bulk").producer() as producer, other.ring("bulk").consumer() as consumer:
        for number in [0, 0, 1, 0, *range(20), 0, 0]:
            producer.send_reference(regions[number], 0, 4, kind=number)
            producer.send_reference(regions[number], 2, 2, kind=number)
            first, second = consumer.receive_record(0), consumer.receive_record(0)
            assert first.reference is not None
            assert second.reference is not None
            assert (first.data, first.kind, first.reference.given) == (b"", number, False)
            assert (first.reference.read(), second.reference.read()) == (b"%04d" % number, b"%02d" % number)
            assert (second.reference.offset, second.reference.length, len(second.reference)) == (2, 2, 2)
            assert bytes(first.reference.view()) == b"%04d" % number
        last = first.reference
        assert last is not None
        with pytest.raises(AttributeError):
            last.offset = 1 << 40


@pytest.mark.parametrize("often", [0, 1, 2])
@pytest.mark.parametrize(
    ("given", "named", "kind", "said"),
    [
        ((4097,), {}, Refused, "at 4097: the region has 4096"),
        ((0, 4097), {}, Refused, "4097 bytes at 0: the region has 4096"),
        ((4096, 1), {}, Refused, "1 bytes at 4096"),
        ((-1,), {}, Refused, "at -1"),
        ((0, -1), {}, Refused, "-1 bytes"),
        ((1 << 70,), {}, Refused, "the region has 4096"),
        ((0, 1), {"kind": 1 << 30}, Refused, "kind"),
        ((0, 1), {"kind": -1}, Refused, "kind"),
        ((0, 1, True), {}, TypeError, "positional"),
        ((), {"gift": True}, TypeError, "gift"),
    ],
)
def test_a_reference_that_cannot_be_is_told_and_nothing_goes(
    pool: Pool,
    often: int,
    given: tuple[object, ...],
    named: dict[str, object],
    kind: type[Exception],
    said: str,
) -> None:
    """Be it the first that is sent of the region, or one of many, which the C core sends by itself."""
    region = pool.allocate(4096)
    with (
        pool.ring("bulk").producer() as producer,
        pool.ring("bulk").consumer() as consumer,
        pool.queue("jobs") as queue,
    ):
        for _ in range(often):
            producer.send_reference(region, 4096)
            queue.put_reference(region, 0, 0)
            assert len(consumer.receive(0)) == len(queue.get(0)) == 0
        for send in (producer.send_reference, queue.put_reference):
            with pytest.raises(kind, match=said):
                send(region, *given, **named)  # type: ignore[arg-type]
        for receive in (consumer.receive, queue.get):
            with pytest.raises(Empty):
                receive(0)


@pytest.mark.parametrize("ends", ["closed", "freed"])
def test_a_region_that_has_gone_is_not_referred_to_any_more(pool: Pool, other: Pool, ends: str) -> None:
    region = pool.allocate(4096, name="shared")
    with pool.ring("bulk").producer() as producer, other.ring("bulk").consumer() as consumer:
        for _ in range(2):
            producer.send_reference(region)
            record = consumer.receive_record(0)
        if ends == "closed":
            region.close()
        else:
            pool.free("shared")
        with pytest.raises(Stale):
            producer.send_reference(region)
        with pytest.raises(Empty):
            consumer.receive(0)
        if ends == "freed":
            assert record.reference is not None
            with pytest.raises(Stale):
                record.reference.view()


def test_what_is_given_is_the_receivers_to_free(served: Exchanging, pool: Pool, other: Pool) -> None:
    producer, consumer = pool.ring("gifts").producer(), other.ring("gifts").consumer()
    region = pool.allocate("64KiB")
    region.view()[:4] = b"gift"
    before = served.regions()
    producer.send_reference(region, 0, 4, give=True)
    with pytest.raises(Stale):
        producer.send_reference(region, 0, 4, give=True)
    record = consumer.receive_record(LONG)
    assert record.reference is not None
    with record.reference as reference:
        assert reference.read() == b"gift"
        assert served.regions() == before
    assert served.regions() == before - 1
    named = pool.allocate("64KiB", name="kept")
    with pytest.raises(Denied, match="it has a name"):
        producer.send_reference(named, give=True)


def test_what_could_not_be_sent_stays_the_givers(pool: Pool) -> None:
    queue = pool.queue("gifts", cells=2)
    queue.put(b"")
    queue.put(b"")
    region = pool.allocate("4KiB")
    with pytest.raises(Full):
        queue.put_reference(region, give=True, timeout=0)
    region.write(0, b"still mine")
    pool.free(region)


def test_a_gift_nobody_takes_goes_with_its_channel(served: Exchanging, pool: Pool) -> None:
    with pool.queue("gifts") as queue:
        queue.put_reference(pool.allocate("4KiB"), give=True)
    pool.remove(queue="gifts")
    assert served.regions() == 0


def died(producer: Producer) -> bool:
    """Send until it is told that there is no room, and that its consumer has gone."""
    while True:
        try:
            producer.send(b"12345678")
        except Closed as error:
            return "its consumer has gone" in str(error)


# -- deaths --------------------------------------------------------------------------------------------------------


def test_a_producer_that_is_killed_leaves_what_it_had_sent(served: Exchanging, pool: Pool) -> None:
    with peer("produce", served) as producer:
        assert producer.hears() == "sent"
        consumer = pool.ring("numbers").consumer()
        assert consumer.receive(LONG) == b"0"
    assert list(consumer) == [b"%d" % number for number in range(1, 100)]
    with pool.ring("numbers").producer() as successor:
        successor.send(b"next")
        assert consumer.receive(LONG) == b"next"


def test_a_consumer_that_is_killed_makes_room_for_another(served: Exchanging, pool: Pool) -> None:
    with pool.ring("numbers", size=1024).producer() as producer:
        with peer("consume", served) as consumer:
            producer.send(b"first")
            assert consumer.hears() == "first"
        assert died(producer)
        with pool.ring("numbers").consumer() as successor:
            assert successor.receive(LONG) == b"12345678"


def test_killed_users_of_a_queue_stop_nobody(served: Exchanging, pool: Pool) -> None:
    queue = pool.queue("numbers", cells=8)
    for _ in range(3):
        with peer("fill", served) as filler:
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
def test_who_waits_and_is_taken_for_dead_is_told(served: Exchanging, other: Pool, what: str) -> None:
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


def test_a_reference_there_is_no_room_for_is_told_in_words(pool: Pool, other: Pool) -> None:
    producer, queue, region = (
        pool.ring("orders", 64).producer(),
        pool.queue("work", cells=2),
        pool.allocate(64),
    )
    producer.send_reference(region)
    with pytest.raises(Full, match=r"producer of ring 'orders'.*: no room in time"):
        producer.send_reference(region, timeout=0)
    other.ring("orders").consumer().close()
    with pytest.raises(Closed, match=r"producer of ring 'orders'.*its consumer has gone"):
        producer.send_reference(region, timeout=0)
    queue.finish()
    with pytest.raises(Closed, match=r"queue 'work'.* was finished"):
        queue.put_reference(region)


def test_a_gift_outlives_its_giver(served: Exchanging, pool: Pool) -> None:
    consumer = pool.ring("gifts").consumer()
    with peer("give", served) as giver:
        assert giver.hears() == "given"
    assert consumer.receive(LONG) == b"a gift"
    with pytest.raises(Closed):
        consumer.receive(LONG)
    consumer.close()
    assert served.regions() == 0


def test_a_gift_does_not_outlive_its_taker(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        pool = served.client()
        producer = pool.ring("gifts").producer()
        region = pool.allocate("64KiB")
        region.write(0, b"a gift")
        producer.send_reference(region, 0, 6, give=True)
        with peer("take", served) as taker:
            assert taker.hears() == "a gift"
        assert died(producer)
        producer.close()
        pool.remove(ring="gifts")
        assert served.regions() == 0


def test_a_gift_on_its_way_when_its_taker_died_is_freed_after_a_lease(tmp_path: Path) -> None:
    now = [0.0]
    with serving(tmp_path) as served:
        channels = served.server.channels
        channels.gifts._clock = lambda: now[0]
        pool = served.client()
        queue = pool.queue("gifts")
        queue.put_reference(pool.allocate("4KiB"), give=True)
        queue.put_reference(pool.allocate("4KiB"), give=True)
        queue._queue.take(0)  # and dies before it has adopted what it took
        with served.server.lock:
            for now[0], left in ((11, 3), (20, 3), (22, 2), (40, 2)):
                channels.tick()
                assert served.regions() == left
        assert len(queue.get(LONG)) == 4096


def test_a_gift_that_lay_for_long_is_there_for_who_takes_it_then(tmp_path: Path) -> None:
    now = [0.0]
    with serving(tmp_path) as served:
        channels = served.server.channels
        channels.gifts._clock = lambda: now[0]
        queue = served.client().queue("gifts")
        queue.put_reference(served.clients[0].allocate("4KiB"), give=True)
        for now[0] in (11, 22.5):
            with served.server.lock:
                channels.tick()
        record = queue._queue.take(0)
        now[0] = 34
        with served.server.lock:
            channels.tick()  # between the taking of the record and the adoption of what it names
        assert queue._bytes(*record) == bytes(4096)


def test_channels_outlive_their_server(served: Exchanging, pool: Pool, other: Pool) -> None:
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
