"""Clients' calls, and whoever writes over them."""

from __future__ import annotations

import threading

import pytest

from softcxl.pool import layout
from softcxl.pool.protocol import Opcode
from softcxl.pool.session import Pool
from tests.pool.served import LONG, Served, serving, wait_until

CELLS = 256
"""Where a queue's cells begin."""


@pytest.fixture
def events() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def served(tmp_path, events):
    with serving(tmp_path, event=lambda kind, subject, detail: events.append((kind, subject))) as one:
        yield one


def words(pool: Pool) -> range:
    """Where the words of the queue's cells are."""
    at = pool.header.queue_at + CELLS
    return range(at, at + layout.QUEUE_CELLS * layout.LINE, layout.LINE)


def noted(pool: Pool) -> int:
    """How many calls the server has not heard of yet."""
    return sum(pool.directory.load(at) & 0xFF == 2 for at in words(pool))


@pytest.mark.parametrize("how", ["no state", "far away", "closed"])
def test_a_queue_that_cannot_be_is_made_anew_and_what_was_noted_there_is_answered(
    served: Served, events: list[tuple[str, str]], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    pools = [served.client(f"client {number}") for number in range(3)]
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda pool=pool: made.append(pool.allocate("1MiB").size)) for pool in pools
    ]
    with served.server.lock:  # the server has taken one call, and gets no further
        for thread in threads:
            thread.start()
        wait_until(lambda: noted(pools[0]) == 2)
        arena = pools[0].map(0)
        for number, at in enumerate(words(pools[0])):
            if how != "closed":
                ticket = 1 << 30 if how == "far away" else number
                arena[at : at + 8] = (ticket << 24 | 0x7F).to_bytes(8, "little")
        if how == "closed":
            at = pools[0].header.queue_at + 208
            arena[at : at + 4] = (1).to_bytes(4, "little")
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert made == [1 << 20] * 3
    wait_until(lambda: ("damaged", "arena") in events)
    assert pools[1].allocate("1MiB").size == 1 << 20
    said = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(said) == 1
    assert "somebody has written over the queue of calls" in said[0]


def test_a_call_that_makes_the_server_fail_keeps_it_from_no_other(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    first, other = served.client("first"), served.client("other")
    trouble = [ValueError("for once")]

    def fails(slot: int) -> None:
        if trouble:
            raise trouble.pop()

    served.server.on_left(fails)
    first.ask(Opcode.GOODBYE, b"")
    assert other.allocate("1MiB").size == 1 << 20
    assert "is not answered; a bug of SoftCXL" in caplog.text
    wait_until(lambda: first.slot not in served.server.names)
