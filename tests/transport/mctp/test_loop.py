"""The loop that doors wait in."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from types import SimpleNamespace

import pytest

from softcxl.transport.mctp import loop as module
from softcxl.transport.mctp.loop import Loop


@pytest.fixture
def loop():
    loop = Loop("under test")
    loop.start()
    yield loop
    assert loop.stop(300)
    assert loop.ended


def test_posted_calls_come_in_order_on_its_thread(loop) -> None:
    came: queue.Queue[tuple[int, str]] = queue.Queue()
    for n in range(1000):
        loop.post(lambda n=n: came.put((n, threading.current_thread().name)))
    assert [came.get(timeout=300) for _ in range(1000)] == [(n, "under test") for n in range(1000)]


def test_timers_come_in_the_order_of_their_times(loop, monkeypatch) -> None:
    came: queue.Queue[str] = queue.Queue()
    now = time.monotonic()

    def set_them() -> None:
        with monkeypatch.context() as patch:  # all at the same time, however long that takes
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
            loop.later(0.02, lambda: came.put("late"))
            never = loop.later(0.001, lambda: came.put("never"))
            loop.later(0.0, lambda: came.put("at once"))
            loop.later(0.01, lambda: came.put("soon"))
        never.cancel()
        assert never.call is None

    loop.post(set_them)
    assert [came.get(timeout=300) for _ in range(3)] == ["at once", "soon", "late"]


def test_what_is_posted_comes_before_what_is_read_later() -> None:
    """The kernel may report them in the other order, as here, where the pipe was ready first."""
    loop, came = Loop("under test"), queue.Queue[str]()
    reads, writes = os.pipe()

    def read(events: int) -> None:
        loop.forget(reads)
        came.put("read")

    loop.watch(reads, select.EPOLLIN, read)
    os.write(writes, b"x")
    loop.post(lambda: came.put("posted"))
    loop.start()
    assert [came.get(timeout=300) for _ in range(2)] == ["posted", "read"]
    assert loop.stop(300)
    os.close(reads)
    os.close(writes)


def test_a_call_that_fails_is_logged_and_the_next_one_comes(loop, caplog) -> None:
    came = threading.Event()

    def fail() -> None:
        raise RuntimeError("as asked for")

    with caplog.at_level(logging.ERROR):
        loop.post(fail)
        loop.post(lambda: loop.later(0, fail) and None)
        loop.post(lambda: loop.later(0.001, came.set) and None)
        assert came.wait(300)
    assert len(caplog.records) == 2


def test_what_is_posted_after_the_end_never_comes() -> None:
    loop = Loop("ended")
    assert loop.stop(0)
    loop.post(lambda: pytest.fail("it came"))
    assert loop.ended
    assert loop.stop(0)


def test_it_can_be_stopped_from_its_own_thread() -> None:
    loop = Loop("of its own accord")
    done = threading.Event()
    loop.start()

    def stop() -> None:
        assert loop.stop(0)
        done.set()

    loop.post(stop)
    assert done.wait(300)
    assert loop.stop(300)
