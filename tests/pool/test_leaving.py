"""Who leaves a pool has nothing of it open, and nothing mapped that nobody looks at, before garbage is collected."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softcxl.pool.errors import Closed, Stale
from softcxl.pool.session import Pool
from tests.pool.served import Served, wait_until


@pytest.fixture(autouse=True)
def _nothing_is_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def descriptors() -> list[str]:
    """What this process has open, but for what it looks with."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(one.readlink()))
    return sorted(found)


def shared() -> int:
    """How many maps of the pool's memory this process has; the server's own are among them."""
    return Path("/proc/self/maps").read_text().count("/memfd:")


def nothing(pool: Pool) -> object:
    return None


def regions(pool: Pool) -> object:
    one = pool.allocate("1MiB", replicas=2)
    one.write(0, b"1" * 100_000)
    assert one.read(0, 3) == b"111"
    closed = pool.allocate("64KiB")
    closed.write(0, b"2")
    closed.close()
    return one, closed, pool.allocate("64KiB")


def channels(pool: Pool) -> object:
    ring = pool.ring("ring")
    with ring.consumer() as consumer, ring.producer() as producer, pool.queue("queue") as queue:
        producer.send(b"3")
        queue.put(b"4")
        assert consumer.receive(60) + queue.get(60) == b"34"
    return None


def services(pool: Pool) -> object:
    @pool.service("service")
    def double(data: bytes) -> bytes:
        return data * 2

    client = pool.client("service", timeout=60)
    assert client.double(b"5") == b"55"
    assert client.within(30).double(b"6" * 100_000) == b"6" * 200_000
    return None


@pytest.mark.parametrize("use", [nothing, regions, channels, services])
def test_a_pool_that_was_left_has_nothing_open_and_nothing_mapped(
    served: Served, use: Callable[[Pool], object]
) -> None:
    before, mapped = descriptors(), shared()
    pool = served.connect()
    kept: Any = use(pool)
    assert shared() > mapped
    pool.close()
    assert shared() == mapped
    wait_until(lambda: descriptors() == before)  # the server's end of the socket is in this process, too
    del kept


def test_a_pool_that_nobody_has_is_left(served: Served) -> None:
    before, mapped = descriptors(), shared()
    pool = served.connect()
    region = pool.allocate("64KiB")
    region.write(0, b"1")
    channels(pool)
    del pool, region
    wait_until(lambda: descriptors() == before)  # by its thread, which was asked to close the region
    wait_until(lambda: shared() == mapped)


def test_a_client_has_no_descriptor_for_each_source(served: Served) -> None:
    before = [one for one in descriptors() if "memfd" in one]
    with served.connect() as pool:
        assert len(pool.sources) == 4
        assert [one for one in descriptors() if "memfd" in one] == before


def test_a_view_keeps_its_memory_and_nothing_else(served: Served) -> None:
    before, mapped = descriptors(), shared()
    pool = served.connect()
    view = pool.allocate("64KiB").view()
    view[:3] = b"abc"
    pool.close()
    assert shared() == mapped + 1
    wait_until(lambda: descriptors() == before)
    assert view[0] in b"a\0"  # the region was freed, and its memory is another's
    view.release()
    del view
    assert shared() == mapped


def test_who_leaves_waits_for_no_server(served: Served) -> None:
    """However patient he is, and whatever he has."""
    pool, other = served.connect(patience=10_000), served.connect("other", patience=10_000)
    kept = [regions(pool), pool.queue("kept"), pool.ring("kept").producer(), pool.allocate(64).view()]
    for name in ("first", "second"):

        @pool.service(name)
        def double(data: bytes) -> bytes:
            return data * 2

    assert other.client("first").double(b"1") == b"11"
    served.stop()
    pool.close()
    other.close()
    served.start()
    del kept


def test_who_leaves_while_there_is_no_server_is_gone_for_the_next_one(served: Served) -> None:
    """Its process lives on, and may for years: what it had, and leases, do not wait for that."""
    pool, other = served.connect(), served.connect("other")
    pool.allocate("64KiB").view()[:3] = b"abc"
    pool.allocate("64KiB", name="kept")
    served.stop()
    pool.close()
    served.start()
    assert list(served.server.names.values()) == ["other"]
    assert [found.name for found in other.regions()] == ["kept"]
    other.close()


def test_what_is_used_after_that_says_so(served: Served) -> None:
    pool = served.connect()
    region = pool.allocate("64KiB")
    region.write(0, b"1")
    untouched = pool.allocate("64KiB")
    queue = pool.queue("queue")

    @pool.service("service")
    def double(data: bytes) -> bytes:
        return data * 2

    client = pool.client("service", timeout=60)
    function = client.double
    pool.close()
    pool.close()
    with pytest.raises(Closed, match="was closed"):
        region.read(0, 1)
    uses: list[Callable[[], object]] = [
        lambda: untouched.read(0, 1),
        lambda: untouched.info,
        lambda: queue.put(b"1"),
        lambda: client.double(b"1"),
        lambda: function(b"1"),
        lambda: function.start(b"1"),
        lambda: pool.allocate("64KiB"),
        lambda: pool.health,
        lambda: pool.map(0),
        lambda: pool.memory(1),
        lambda: list(pool.regions()),
    ]
    for use in uses:
        with pytest.raises(Stale, match="was closed"):
            use()
