"""Reading around poison: each line from a copy that has it, whatever is poisoned where."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.pool.errors import Corrupt, Denied, Poisoned, Refused
from softcxl.pool.poison import Poison
from softcxl.pool.protocol import Heal, Opcode, PoisonAnswer, PoisonedRange, PoisonQuery
from softcxl.pool.region import Region
from tests.pool.served import Served, wait_until

SIZE = 1024

ranges = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, SIZE - 1), st.integers(1, 200)).map(
        lambda one: (one[0], one[1], min(one[2], SIZE - one[1]))
    ),
    max_size=12,
)


@given(ranges, st.integers(0, SIZE), st.integers(0, SIZE), st.integers(1, 7))
def test_a_plan_is_what_a_look_at_each_byte_says(
    poisoned: list[tuple[int, int, int]], offset: int, size: int, copies: int
) -> None:
    size = min(size, SIZE - offset)
    pieces, lost = Poison(0, tuple(poisoned)).plan(offset, size, copies)
    clean = [
        {copy for copy in range(3) if copies >> copy & 1}
        - {copy for copy, at, length in poisoned if at <= byte < at + length}
        for byte in range(SIZE)
    ]
    gone = [byte for at, length in lost for byte in range(at, at + length)]
    assert gone == [byte for byte in range(offset, offset + size) if not clean[byte]]
    read: list[int] = []
    for at, length, whole in pieces:
        assert whole
        for byte in range(at, at + length):
            assert all(not whole >> copy & 1 or copy in clean[byte] for copy in range(3))
        read += range(at, at + length)
    assert sorted(read + gone) == list(range(offset, offset + size))
    assert len(pieces) <= 1 + 2 * len(poisoned)


@given(ranges, st.integers(2, 5))
def test_all_of_it_is_asked_for(poisoned: list[tuple[int, int, int]], most: int) -> None:
    """A server that tells a few at a time, in order of their offset, as it does."""
    lines = sorted({(offset // 64 * 64, copy) for copy, offset, _ in poisoned})

    def ask(query: bytes) -> bytes:
        asked = PoisonQuery.unpack(query)
        assert (asked.index, asked.generation) == (7, 3)
        found = [(at, copy) for at, copy in lines if asked.offset - 64 < at < asked.offset + asked.length]
        told = found[: max(most, 4)]  # more than there are copies
        answer = PoisonAnswer(
            more=len(found) > len(told),
            ranges=[PoisonedRange(copy=copy, offset=at, length=64) for at, copy in told],
        )
        return answer.pack()

    found = Poison.of(7, 3, SIZE, 9, ask)
    assert found.health == 9
    assert {(copy, at) for copy, at, _ in found.ranges} == {(copy, at) for at, copy in lines}


@pytest.mark.parametrize("offsets", [[], [0], [64, 0], [0, 0], [SIZE], [1 << 60]])
def test_a_server_that_tells_of_poison_in_no_order_is_told(offsets: list[int]) -> None:
    ranges = [PoisonedRange(copy=0, offset=offset, length=64) for offset in offsets]
    with pytest.raises(Corrupt, match="and of more"):
        Poison.of(7, 3, SIZE, 9, lambda query: PoisonAnswer(more=1, ranges=ranges).pack())


# -- through a server ------------------------------------------------------------------------------------------------


def poison(served: Served, region: Region, copy: int, *offsets: int) -> None:
    where = region.info.copies[copy]
    held = served.server.sources.all[where.source]
    source = next(one for one in served.sources if one.name == held.name)
    source.poison(*(where.offset + offset for offset in offsets))


def test_each_line_is_read_from_a_copy_that_has_it(served: Served) -> None:
    data = os.urandom(1 << 16)
    with served.connect() as pool:
        region = pool.allocate(len(data), replicas=2)
        region.write(0, data)
        poison(served, region, 0, 64, 640)
        assert region.read() == data
        poison(served, region, 1, 128, 4096)
        assert region.read() == data
        assert region.read(64, 128) == data[64:192]
        into = bytearray(1000)
        region.read_into(3, into)
        assert into == data[3:1003]
        with region.locked():
            assert region.read() == data
        assert region.load(640) == int.from_bytes(data[640:648], "little")
        word = int.from_bytes(data[8:16], "little")
        assert region.add(8, 5) == (word + 5) % (1 << 64)
        assert not region.swap(8, word, 1)
        assert region.swap(8, (word + 5) % (1 << 64), 1)
        assert region.load(8) == 1


def test_only_where_no_copy_has_a_line_there_is_an_error(served: Served) -> None:
    data = os.urandom(8192)
    with served.connect() as pool:
        region = pool.allocate(len(data), name="one")
        region.write(0, data)
        poison(served, region, 0, 1024, 1088, 4096)
        assert region.read(0, 1024) == data[:1024]
        assert region.read(1152, 2944) == data[1152:4096]
        for offset, size in ((0, 8192), (1100, 1), (1023, 4000)):
            with pytest.raises(Poisoned, match="region 'one': no healthy copy has ") as found:
                region.read(offset, size)
            lost = {line for at, length in found.value.ranges for line in range(at, at + length)}
            assert lost == set(range(offset, offset + size)) & {*range(1024, 1152), *range(4096, 4160)}
        assert [(copy, at) for copy, at, _ in region.stat.poisoned] == [(0, 1024), (0, 1088), (0, 4096)]


def test_many_poisoned_lines_are_asked_for_in_pieces(served: Served) -> None:
    data = os.urandom(1 << 16)
    with served.connect() as pool:
        region = pool.allocate(len(data), replicas=2)
        region.write(0, data)
        poison(served, region, 0, *range(0, 1 << 16, 128))
        poison(served, region, 1, *range(64, 1 << 16, 128))
        assert region.read() == data


@pytest.mark.parametrize("heals", [True, False])
def test_a_read_waits_for_poison_that_is_healed_and_not_for_what_comes_anew(
    served: Served, monkeypatch: pytest.MonkeyPatch, heals: bool
) -> None:
    monkeypatch.setattr("softcxl.pool.region._HEALING", -1.0)
    lines = [(copy, line * 64, 64) for copy in range(2) for line in range(40)]

    def around(region: Region, offset: int, into: memoryview) -> Poisoned | None:
        """There is other poison after it was read than there was before."""
        if heals:
            lines.pop()
        return Poisoned() if lines else None

    monkeypatch.setattr(Region, "_poisoned", lambda region: Poison(0, tuple(lines)))
    monkeypatch.setattr(Region, "_read_around", around)
    with served.connect() as pool:
        region = pool.allocate(1 << 16, replicas=2)
        with contextlib.nullcontext() if heals else pytest.raises(Poisoned):
            region._read_anyway(0, memoryview(bytearray(64)), Poisoned())
    assert bool(lines) is not heals


def test_poison_that_comes_while_others_read_is_never_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softcxl.pool.region._HEALING", 300.0)  # as long as a busy machine takes
    data = os.urandom(1 << 20)
    with served.connect() as pool:
        region = pool.allocate(len(data), replicas=2)
        region.write(0, data)
        stop = threading.Event()

        def read() -> int:
            count = 0
            while not stop.is_set():
                assert region.read() == data
                count += 1
            return count

        with ThreadPoolExecutor(2) as threads:
            reading = [threads.submit(read) for _ in range(2)]
            for number in range(60):
                poison(served, region, number % 2, number * 4096 + 64 * (number % 2))
            stop.set()
        assert all(one.result() for one in reading)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("within", [False, True])
def test_lines_that_are_lost_are_good_again_when_they_are_written(
    served: Served, replicas: int, within: bool
) -> None:
    data = bytearray(os.urandom(5000))
    with served.connect() as pool:
        region = pool.allocate(len(data), replicas=replicas)
        region.write(0, data)
        for copy in range(replicas):
            poison(served, region, copy, 128, 192, 4992)
        with pytest.raises(Poisoned):
            region.read()
        data[100:200] = b"x" * 100  # all of the line at 128, a part of that at 192

        def healed() -> bool:
            """Within the lock there is one try: where the server has other things to see to the line stays lost."""
            with region.locked() if within else contextlib.nullcontext():
                region.write(100, b"x" * 100)
            try:
                return region.read(0, 192) == data[:192]
            except Poisoned:
                assert within
                return False

        wait_until(healed)
        with pytest.raises(Poisoned) as found:
            region.read()
        assert found.value.ranges == ((192, 64), (4992, 8))
        region.write(192, b"y" * 64)
        data[192:256] = b"y" * 64
        assert region.read(0, 4992) == data[:4992]
        region.write(4992, b"z" * 8)  # to the end: the line has no more
        data[4992:] = b"z" * 8
        assert region.read() == data
        wait_until(lambda: not region.stat.poisoned)


def test_who_may_only_read_makes_nothing_good(served: Served) -> None:
    with served.connect("owner") as pool, served.connect("other") as other:
        region = pool.allocate(4096, name="shown", mode="read")
        poison(served, region, 0, 0)
        theirs = other.open("shown")
        asked = Heal(
            index=theirs.index, generation=theirs.generation, offset=0, length=64, health=other.health
        )
        with pytest.raises(Denied, match="written by its owner alone"):
            other.ask(Opcode.HEAL, asked.pack())
        with pytest.raises(Refused, match="the region has 4096"):
            pool.ask(Opcode.HEAL, Heal(
                index=region.index, generation=region.generation, offset=4096, length=64, health=0
            ).pack())  # fmt: skip
        with pytest.raises(Poisoned):
            theirs.read()


def test_lines_that_are_about_to_be_poisoned_are_told(served: Served) -> None:
    """A source tells first. Who asks before it is so must not take the line for good afterwards."""
    with served.connect() as pool:
        region = pool.allocate(4096)
        region.write(0, b"x" * 4096)
        where = region.info.copies[0]
        held = served.server.sources.all[where.source]
        source = next(one for one in served.sources if one.name == held.name)
        assert source.observer is not None
        source.observer.poisoned([(where.offset + 64, 64)])
        with pytest.raises(Poisoned, match="64 bytes at 64"):
            region.read()
        assert region.read(128, 64) == b"x" * 64
        source.lines.add(where.offset + 64)
        with pytest.raises(Poisoned, match="64 bytes at 64"):
            region.read()
        wait_until(lambda: region.stat.poisoned == ((0, 64, 64),))
