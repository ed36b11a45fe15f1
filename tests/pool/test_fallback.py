"""Rings in Python alone: the same bytes as the C core's, at either end, and a clear answer for what takes more."""

from __future__ import annotations

import importlib.util
import mmap
import os
import platform
import random
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import softcxl
from softcxl.pool import errors, fallback, native

SIZE = 4096 + 256
ENDS = {"C": native, "Python": fallback}


@pytest.fixture
def shared() -> mmap.mmap:
    return mmap.mmap(-1, 1 << 16)


def ends(shared: mmap.mmap, sender: str, receiver: str, size: int = SIZE) -> tuple[Any, Any]:
    """The two ends of a new ring, made by the sender's side."""
    one, other = ENDS[sender], ENDS[receiver]
    there: Any = one.Memory(shared)
    one.Ring.make(there, 64, size)
    return one.Ring(there, 64, size, True), other.Ring(other.Memory(shared), 64, size, False)


PAIRS = pytest.mark.parametrize(
    ("sender", "receiver"), [("C", "Python"), ("Python", "C"), ("Python", "Python"), ("C", "C")]
)


@PAIRS
def test_records_come_as_they_went(sender: str, receiver: str, shared: mmap.mmap) -> None:
    one, other = ends(shared, sender, receiver)
    drawn = random.Random(6)
    for number in range(500):
        data = drawn.randbytes(drawn.randrange(0, 900))
        one.send(data, number)
        if number % 3 == 0:
            one.send(bytearray(b"between"), (1 << 32) - 1)
            assert other.take() == (data, number)
            assert other.receive() == b"between"
            assert other.kind == (1 << 32) - 1
        else:
            assert other.take(0) == (data, number)


@PAIRS
def test_an_end_that_was_left_is_closed(sender: str, receiver: str, shared: mmap.mmap) -> None:
    one, other = ends(shared, sender, receiver)
    one.send(b"before")
    one.leave()
    with pytest.raises(errors.Closed):
        one.send(b"after")
    assert other.receive(0) == b"before"
    one = ENDS[sender].Ring(ENDS[sender].Memory(shared), 64, SIZE, True)
    one.send(b"of the next owner")
    other.leave()
    with pytest.raises(errors.Closed):
        other.receive(0)
    assert one.left is False
    assert other.left is True


@PAIRS
def test_the_limits_are_the_same(sender: str, receiver: str, shared: mmap.mmap) -> None:
    one, other = ends(shared, sender, receiver)
    assert one.size == other.size == 4096
    with pytest.raises(errors.Empty):
        other.receive(0)
    with pytest.raises(errors.TooLong):
        one.send(bytes(4096 - 15))
    one.send(bytes(4096 - 16))
    with pytest.raises(errors.Full):
        one.send(b"", 0, 0)
    with pytest.raises(TypeError, match="this end of the ring sends"):
        one.receive(0)
    with pytest.raises(TypeError, match="this end of the ring receives"):
        other.send(b"")
    with pytest.raises(OverflowError, match="kind 4294967296: it has 32 bits"):
        one.send(b"", 1 << 32)
    with pytest.raises(ValueError, match="0 or more seconds"):
        one.send(b"x", 0, -1)
    assert other.receive() == bytes(4096 - 16)
    one.send(b"last")
    one.close()
    assert other.receive() == b"last"
    with pytest.raises(errors.Closed):
        other.receive()
    other.close()
    one.send(bytes(4000))  # nobody looks until there is no room
    with pytest.raises(errors.Closed):
        one.send(bytes(1000))


@PAIRS
def test_who_comes_after_goes_on(sender: str, receiver: str, shared: mmap.mmap) -> None:
    one, other = ends(shared, sender, receiver)
    one.send(b"1")
    one.send(b"2")
    assert other.receive() == b"1"
    side = ENDS[receiver]
    after: Any = ENDS[sender].Memory(shared)
    struct.pack_into("<Q", shared, 64 + 64, 16)  # as if the producer had died before it wrote the index
    ENDS[sender].Ring(after, 64, SIZE, True).send(b"3")
    last: Any = side.Memory(shared)
    heir = side.Ring(last, 64, SIZE, False)
    assert [heir.receive(0), heir.receive(0)] == [b"2", b"3"]


@PAIRS
def test_two_processes_wait_for_each_other(sender: str, receiver: str, shared: mmap.mmap) -> None:
    there, back = shared, mmap.mmap(-1, 1 << 16)
    out, into = ends(there, sender, receiver, 512)
    answer, heard = ends(back, receiver, sender, 512)
    child = os.fork()
    if not child:
        try:
            while data := into.receive(60):
                answer.send(data[::-1], into.kind + 1, 60)
        finally:
            os._exit(0)
    for number in range(300):
        data = number.to_bytes(4, "little") * (number % 20 + 1)
        out.send(data, number, 60)
        assert heard.take(60) == (data[::-1], number + 1)
    out.send(b"")
    assert os.waitpid(child, 0)[1] == 0


def test_who_sleeps_with_the_c_core_is_woken(shared: mmap.mmap) -> None:
    rung: list[int] = []
    native.Ring.make(native.Memory(shared), 64, SIZE)
    one = fallback.Ring(fallback.Memory(shared, ring=rung.append), 64, SIZE, True)
    for waiting, left, expected in (
        (0, 0, []),
        (1, 4, []),
        (4 * 7 + 2, 4 * 8, [64 + 192]),  # wakes are counted: who is about to sleep finds another word
        (0xFFFFFFFF, 0, [64 + 192] * 2),
    ):
        struct.pack_into("<I", shared, 64 + 192, waiting)
        one.send(b"x")
        assert struct.unpack_from("<I", shared, 64 + 192) == (left,)
        assert rung == expected
    other = native.Ring(native.Memory(shared), 64, SIZE, False)
    for _ in range(4):
        other.receive()
    heard: list[bytes] = []
    sleeper = threading.Thread(target=lambda: heard.append(other.receive(60)))
    sleeper.start()
    while not struct.unpack_from("<I", shared, 64 + 192)[0] & 3:
        pass
    one.send(b"awake")
    sleeper.join(60)
    assert heard == [b"awake"]


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0, 5, errors.Foreign),
        (4, 9, errors.Foreign),
        (8, 4097, errors.Corrupt),
        (8, 32, errors.Corrupt),
        (8, 8192, errors.Corrupt),
        (64, 7, errors.Corrupt),
        (128, 4, errors.Corrupt),
        (128, 1 << 40, errors.Corrupt),
    ],
)
@pytest.mark.parametrize("side", ENDS)
def test_a_header_that_cannot_be(
    side: str, at: int, value: int, error: type[Exception], shared: mmap.mmap
) -> None:
    ends(shared, "C", "C")
    struct.pack_into("<H" if at == 4 else "<I" if at == 0 else "<Q", shared, 64 + at, value)
    memory: Any = ENDS[side].Memory(shared)
    with pytest.raises(error):
        ENDS[side].Ring(memory, 64, SIZE, True)


@pytest.mark.parametrize("side", ENDS)
@pytest.mark.parametrize("header", [1, (1 << 31) | 4096, (1 << 32) - 1, 1 << 40])
def test_a_record_that_cannot_be(side: str, header: int, shared: mmap.mmap) -> None:
    _, other = ends(shared, "C", side)
    struct.pack_into("<Q", shared, 64 + 256, header)
    with pytest.raises(errors.Corrupt):
        other.receive(0)
    memory: Any = ENDS[side].Memory(shared)
    with pytest.raises(errors.Corrupt):
        ENDS[side].Ring(memory, 64, SIZE, True)


def test_where_it_does_not_fit(shared: mmap.mmap) -> None:
    memory = fallback.Memory(shared)
    with pytest.raises(IndexError, match="4352 bytes at 65536: there are 65536"):
        fallback.Ring.make(memory, 65536, SIZE)
    with pytest.raises(errors.TooLong):
        fallback.Ring.make(memory, 0, 256)
    with pytest.raises(errors.TooLong):
        fallback.Ring(memory, 0, 256, True)
    with pytest.raises(BufferError):
        fallback.Memory(b"read only")
    with pytest.raises(ValueError, match="ring is missing"):
        fallback.Memory(shared, rest=lambda offset, seconds: None)
    memory.store(8, -1)
    assert memory.load(8) == (1 << 64) - 1


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """softcxl.pool.native as it is where there is no C core."""
    monkeypatch.setitem(sys.modules, "softcxl.pool._native", None)
    spec = importlib.util.spec_from_file_location("without_core", Path(native.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_core_there_are_rings_and_reasons(without: ModuleType, shared: mmap.mmap) -> None:
    assert native.CORE
    assert not without.CORE
    memory = without.Memory(shared)
    without.Ring.make(memory, 0, SIZE)
    without.Ring(memory, 0, SIZE, True).send(b"there")
    assert native.Ring(native.Memory(shared), 0, SIZE, False).receive() == b"there"
    missing: dict[str, Callable[[], object]] = {
        "a queue": lambda: without.Queue.make(memory, 0, 4096, 4, 64),
        "a table of calls": lambda: without.Caller.make(memory, 0, 4096, 4, 64),
        "a worker": lambda: without.Worker(memory, None),
        "a region": lambda: without.Region(memory, 0, 1, [memory], 1, 1),
        "compare-and-swap": lambda: memory.swap(0, 1, 2),
        "adding to a shared word": lambda: memory.add(0, 1),
        "sleeping on a shared word": lambda: memory.wait(0, 1),
        "waking from a shared word": lambda: memory.wake(0),
        "flushing cache lines": lambda: memory.flush(0, 64),
        "invalidating cache lines": lambda: memory.invalidate(0, 64),
    }
    for what, use in missing.items():
        with pytest.raises(
            errors.NativeMissing, match=f"^{what}: softcxl.pool was installed without its C core"
        ):
            use()
    for kind in (without.Queue, without.Caller):
        with pytest.raises(errors.NativeMissing, match="gcc and python3-dev"):
            kind(memory, 0, 4096, 1)


def test_who_connects_without_the_core_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything else: no server needs to be there."""
    monkeypatch.setattr(native, "CORE", False)
    expected = "^connecting to a pool: .*C compiler and Python's headers are needed.*softcxl lab core"
    with pytest.raises(errors.NativeMissing, match=expected):
        softcxl.connect("unix:/nobody")


def test_other_processors_are_refused(shared: mmap.mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(shared, "C", "C")
    memory = fallback.Memory(shared)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(errors.NativeMissing, match="a ring on a processor of aarch64, which may show others"):
        fallback.Ring(memory, 64, SIZE, True)
