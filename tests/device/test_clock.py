"""Clocks: calls come in order, once, and not after they were cancelled."""

import threading

from softcxl.device.clock import ManualClock, SystemClock


def test_manual_clock_calls_in_order():
    clock = ManualClock(5.0)
    seen: list[object] = []
    clock.call_later(2, lambda: seen.append(("late", clock.now())))
    clock.call_later(1, lambda: seen.append(("first", clock.now())))
    clock.call_later(1, lambda: seen.append(("second", clock.now())))
    clock.call_later(1, lambda: seen.append("never")).cancel()
    clock.advance(0.5)
    assert seen == []
    clock.advance(1)
    assert seen == [("first", 6.0), ("second", 6.0)]
    clock.advance(10)
    assert seen[2:] == [("late", 7.0)]
    assert clock.now() == 16.5


def test_manual_clock_calls_that_call_again():
    clock, seen = ManualClock(), []

    def again():
        seen.append(clock.now())
        clock.call_later(1, again)

    again()
    clock.advance(3.5)
    assert seen == [0, 1, 2, 3]
    clock.close()
    clock.advance(10)
    assert seen == [0, 1, 2, 3]


def _fail():
    raise ZeroDivisionError("inside")


def test_system_clock_calls_from_its_own_thread():
    clock, done = SystemClock(), threading.Event()
    seen: list[object] = []

    def call():
        seen.append(threading.current_thread())
        done.set()

    clock.call_later(3600, lambda: seen.append("too early"))
    clock.call_later(0, _fail)  # is logged, and the clock goes on
    clock.call_later(-1, lambda: seen.append("cancelled")).cancel()
    clock.call_later(0, call)
    assert done.wait(300)
    clock.close()
    (thread,) = seen
    assert isinstance(thread, threading.Thread)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
    clock.call_later(0, lambda: seen.append("after close"))
    clock.close()
    assert len(seen) == 1


def test_system_clock_closed_by_its_own_call():
    clock, done = SystemClock(), threading.Event()

    def call():
        clock.close()
        done.set()

    clock.call_later(0, call)
    assert done.wait(300)
    clock.close()


def test_time_passes():
    clock = SystemClock()
    assert clock.now() <= clock.now()
