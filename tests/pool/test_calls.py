"""Calls to the server: who waits for an answer, for a cell, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from softcxl.pool import errors
from softcxl.pool.layout import HEADER
from softcxl.pool.protocol import Opcode
from tests.pool.served import LONG, Served, wait_until


def test_what_could_not_be_closed_in_time_is_closed_later(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(64)
        served.stop()
        pool._connection.patience = 0.2
        region.close()
        with pytest.raises(errors.NoServer):
            pool._calls.settle()
        served.start()
        wait_until(lambda: pool.slot in served.server.names and not served.server.regions.known)


def test_what_there_was_no_room_to_close_is_closed_later(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue of calls may be full, of others' that nobody answers; or all calls may be under way."""
    with served.connect() as pool:
        calls = pool._calls
        full, late = pool.allocate(64), pool.allocate(64)
        served.stop()
        pool._connection.patience = 0.2

        class Crowded:
            def __init__(self, caller: Any) -> None:
                self.caller = caller

            def start(self, *asked: Any) -> Any:
                raise errors.Full("others' calls are not answered")

            def cancel(self, call: Any) -> None:
                self.caller.cancel(call)

        caller = calls._callers.get()
        with monkeypatch.context() as patch:
            patch.setattr(calls, "_caller", lambda: Crowded(caller))
            with pytest.raises(errors.NoServer):
                full.close()
        crowded = calls._posted.pop()
        calls._posted.append((caller, *crowded[1:]))
        with monkeypatch.context() as patch:

            def none_left() -> Any:
                raise errors.NoServer("all calls are under way")

            patch.setattr(calls, "_caller", none_left)
            with pytest.raises(errors.NoServer):
                late.close()
        served.start()
        wait_until(lambda: pool.slot in served.server.names and not served.server.regions.known)


def test_threads_that_close_leave_calls_for_those_that_ask(served: Served) -> None:
    with served.connect() as pool:

        def run() -> None:
            for _ in range(50):
                for region in [pool.allocate(64) for _ in range(5)]:
                    region.close()

        threads = [threading.Thread(target=run) for _ in range(12)]  # more than a client has calls
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
            assert not thread.is_alive()
        assert pool.tell("regions")["regions"] == 0


def test_a_call_waits_for_the_next_server(served: Served) -> None:
    with served.connect() as pool:
        served.stop()
        made: list[object] = []
        threads = [threading.Thread(target=lambda: made.append(pool.allocate(64).read())) for _ in range(12)]
        for thread in threads:
            thread.start()
        served.start()
        for thread in threads:
            thread.join(LONG)
        assert made == [bytes(64)] * 12


def test_patience_ends(served: Served) -> None:
    with served.connect() as pool:
        region = pool.allocate(64)
        served.stop()
        pool._connection.patience = 0
        with pytest.raises(errors.NoServer, match="no pool answers at"):
            pool.allocate(64)
        region.write(0, b"x")
        served.start()
        wait_until(lambda: pool.slot in served.server.names)
        pool._connection.patience = LONG
        assert pool.allocate(64).read() == bytes(64)


class FullTable:
    """A client's calls, of which so many find no cell."""

    def __init__(self, caller: Any, times: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._caller, self.times, self._meanwhile = caller, times, meanwhile

    def start(self, *given: Any) -> Any:
        self.times -= 1
        if self.times >= 0:
            self._meanwhile()
            raise errors.Full
        return self._caller.start(*given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._caller, name)


def test_a_call_that_finds_no_cell_pauses_before_it_looks_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    with served.connect() as pool:
        callers = pool._calls._callers
        full = FullTable(callers.get(), 10)
        monkeypatch.setattr("softcxl.pool.calls.time.sleep", pauses.append)
        assert pool._calls._call(full, Opcode.LIST, bytes(8), 30.0)[0] == 0  # type: ignore[arg-type]
        monkeypatch.undo()
        callers.put(full._caller)
        assert len(pauses) == 10
        assert pauses == sorted(pauses)
        assert pauses[0] > 0


def test_a_table_that_stays_full_is_told(served: Served) -> None:
    with served.connect() as pool:
        callers = pool._calls._callers
        beats = lambda: pool.directory.add(HEADER["beat"], 1)  # noqa: E731  the server is there, however busy it is
        full = FullTable(callers.get(), float("inf"), beats)
        with pytest.raises(errors.NoServer, match="has not answered earlier calls"):
            pool._calls._call(full, Opcode.LIST, bytes(8), 1.5)  # type: ignore[arg-type]
        callers.put(full._caller)


def test_many_threads_have_calls_at_the_same_time(served: Served) -> None:
    """More threads than the table of calls has cells, one of which never waits for another's answer."""
    with served.connect() as pool:
        found: list[int] = []

        def work() -> None:
            regions = [pool.allocate(64) for _ in range(10)]
            found.extend(one.index for one in regions)

        threads = [threading.Thread(target=work) for _ in range(24)]
        served.server.lock.acquire()
        for thread in threads:
            thread.start()
        served.server.lock.release()
        for thread in threads:
            thread.join(LONG)
        assert len(found) == 24 * 10
