"""References through channels: what is lent is read where it is, what is given is the receiver's."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcxl.pool.errors import (
    Closed,
    Denied,
    Empty,
    Full,
    Refused,
    Stale,
)
from softcxl.pool.session import Pool
from tests.pool.peers import consumer_has_gone, peer
from tests.pool.served import Served, serving

LONG = 30.0


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


def test_what_is_given_is_the_receivers_to_free(served: Served, pool: Pool, other: Pool) -> None:
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


def test_a_gift_nobody_takes_goes_with_its_channel(served: Served, pool: Pool) -> None:
    with pool.queue("gifts") as queue:
        queue.put_reference(pool.allocate("4KiB"), give=True)
    pool.remove(queue="gifts")
    assert served.regions() == 0


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


def test_a_gift_outlives_its_giver(served: Served, pool: Pool) -> None:
    consumer = pool.ring("gifts").consumer()
    with peer("give", served.address) as giver:
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
        with peer("take", served.address) as taker:
            assert taker.hears() == "a gift"
        assert consumer_has_gone(producer)
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
        queue._core.take(0)  # and dies before it has adopted what it took
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
        record = queue._core.take(0)
        now[0] = 34
        with served.server.lock:
            channels.tick()  # between the taking of the record and the adoption of what it names
        assert queue._bytes(*record) == bytes(4096)
