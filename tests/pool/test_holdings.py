"""What is open here, and what another server hears of it."""

from __future__ import annotations

import pytest

from softcxl.pool import errors
from softcxl.pool.protocol import Opcode
from tests.pool.served import Served, wait_until


def test_what_is_closed_is_so_before_what_anybody_asks_later(served: Served) -> None:
    with served.connect() as pool, served.connect() as other:
        for _ in range(20):
            for region in pool.allocate_many(64, 70):
                region.close()
            assert other.tell("regions")["regions"] == 0


def test_what_is_closed_while_no_server_is_there_the_next_one_closes(served: Served) -> None:
    with served.connect() as pool:
        stays, *go = pool.allocate_many(64, 4)
        served.stop()
        for region in go:
            region.close()  # waits for nobody
            assert region.closed
        served.start()
        wait_until(lambda: set(served.server.regions.known) == {stays.index})
        assert pool.tell("regions")["regions"] == 1


def test_what_is_open_twice_and_closed_once_stays_over_the_servers_end(served: Served) -> None:
    with served.connect() as pool, served.connect("other") as other:
        one = pool.allocate(64)
        twice = pool.referred(one.index, one.generation)
        theirs = [other.referred(one.index, one.generation) for _ in range(2)]
        views = [one.view(), one.view()]
        one.write(0, b"data")
        served.stop()
        twice.close()
        theirs.pop().close()
        del views[1:]
        served.start()
        wait_until(lambda: pool.views_of(one.index, one.generation) == 1)
        wait_until(lambda: not pool._connection.away() and not other._connection.away())
        assert one.read(0, 4) == b"data"
        one.close()
        assert pool.tell("regions")["regions"] == 1
        assert theirs[0].read(0, 4) == bytes(views[0][:4]) == b"data"
        theirs[0].close()
        views.clear()
        wait_until(lambda: other.tell("regions")["regions"] == 0)


def test_a_server_that_did_not_hear_all_is_told_all_once_more(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served.connect("owner") as owner, served.connect() as pool:
        theirs = owner.allocate(64)
        region = pool.referred(theirs.index, theirs.generation)
        served.stop()
        link, asked = pool._connection.link, []

        def ask(opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
            asked.append(opcode)
            if len(asked) == 1:
                raise errors.NoServer("it was too slow")
            return type(link).ask(link, opcode, data, timeout)

        monkeypatch.setattr(link, "ask", ask)
        served.start()
        wait_until(lambda: asked.count(Opcode.HOLD) > 2)
        wait_until(lambda: not pool._connection.away())
        owner.allocate(64)  # it is back, too
        theirs.close()
        owner.tell("regions")
        assert region.read(0, 4) == bytes(4)
