"""Workers that cannot go on: it is logged, and whoever waits is told."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from softcxl.pool import rpc
from softcxl.pool.errors import Corrupt, NoServer, NoWorker
from softcxl.pool.protocol import Opcode
from softcxl.pool.session import Pool
from tests.pool.index import LONG, Index
from tests.pool.served import Served, wait_until

CELLS = 256
"""Where a queue's cells begin, each of 64 bytes, with its word first."""
WORDS = [b"\x7f" + bytes(7), b"\xff" * 8]
"""No state that there is; of a turn that is far away."""


def write_over_cells(client: rpc.Client, word: bytes) -> None:
    place, arena = client._place, client._table.pool.map(0)
    for at in range(place.at + CELLS, place.at + place.size - 63, 64):
        ticket = (at - place.at - CELLS) // 64
        arena[at : at + 8] = word[:3] + (ticket.to_bytes(5, "little") if word[-1] == 0 else word[3:])


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize("word", WORDS)
def test_a_queue_that_cannot_be_is_left_and_made_anew(
    served: Served, index: Index, client: rpc.Client, caplog: pytest.LogCaptureFixture, word: bytes
) -> None:
    """Who was waiting, with a note in there, is told; who comes is served by the next worker."""
    busy = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    waiting = [client.lookup.start(number) for number in (2, 3)]
    write_over_cells(client, word)
    index.go_on.set()
    assert busy.result() == 1
    for call in waiting:
        with pytest.raises(NoWorker, match=r"index.lookup: nobody serves it now"):
            call.result()
    wait_until(lambda: index.service.closed)
    assert any("service 'index'" in one and "this client leaves it" in one for one in errors(caplog))
    assert any("service 'index'" in one and "made anew" in one for one in errors(caplog))
    with pytest.raises(NoWorker):
        client.lookup(4)
    again = Index(served.clients[0])
    assert again.service is not index.service
    assert client.lookup(5) == b"5"
    assert index.calls == [1]


def test_nobody_waits_for_a_function_that_takes_long_when_the_queue_cannot_be(
    served: Served, client: rpc.Client, index: Index
) -> None:
    other = Index(served.client("two at once"), "two", workers=2)
    two = served.clients[1].client("two", timeout=LONG)
    busy = two.wait.start(1)
    assert other.began.acquire(timeout=LONG)
    write_over_cells(two, WORDS[0])
    with pytest.raises((NoWorker, Corrupt)):
        two.lookup(2)
    wait_until(lambda: "service:two" in served.server.regions.names and other.service._place is None)
    with pytest.raises(NoWorker):
        two.lookup(3)
    assert not busy.done()
    other.go_on.set()
    assert busy.result() == 1  # what had been begun is answered
    assert client.lookup(4) == b"4"


def test_a_queue_without_a_head_is_left_as_the_first_worker_begins(
    served: Served, index: Index, client: rpc.Client, caplog: pytest.LogCaptureFixture
) -> None:
    index.service.close()
    served.clients[0].map(0)[client._place.at : client._place.at + 16] = bytes(16)
    first = Index(served.clients[0])
    wait_until(lambda: first.service.closed and first.service._place is None)
    assert any("service 'index': its queue cannot be served" in one for one in errors(caplog))
    with pytest.raises(NoWorker):
        client.lookup(1)
    Index(served.clients[0])
    assert client.lookup(2) == b"2"


def failing(pool: Pool, monkeypatch: pytest.MonkeyPatch, fails: Any) -> None:
    """Have whoever asks for a client's table of calls get that error instead."""
    ask = pool.ask

    def asked(opcode: int, data: bytes) -> bytes:
        if opcode == Opcode.CALLS_OF:
            fails()
        return ask(opcode, data)

    monkeypatch.setattr(pool, "ask", asked)


def test_an_error_that_nobody_foresaw_ends_the_last_worker_and_its_part(
    served: Served,
    index: Index,
    client: rpc.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> None:
        raise MemoryError("no more")

    failing(served.clients[0], monkeypatch, fails)
    with pytest.raises(NoWorker, match=r"index.lookup: nobody serves it now"):
        client.lookup(1)
    wait_until(lambda: index.service.closed)
    said = errors(caplog)
    assert any(
        "service 'index': its last worker here has failed" in one and "MemoryError" in one for one in said
    )
    monkeypatch.undo()
    Index(served.clients[0])
    assert client.lookup(2) == b"2"
    assert index.calls == []


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_what_a_worker_has_taken_as_it_fails_another_has(
    served: Served, client: rpc.Client, index: Index, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    taken, others = threading.Event(), threading.Event()

    def fails() -> None:
        if not taken.is_set():
            taken.set()
            others.wait(LONG)
            raise MemoryError("no more")

    first = served.client("first")
    one = Index(first, "some", workers=2 if where == "here" else 1)
    failing(first, monkeypatch, fails)
    caller = served.clients[1].client("some", timeout=LONG)
    pending = caller.lookup.start(1)
    assert taken.wait(LONG)
    other = one if where == "here" else Index(served.client("second"), "some")
    others.set()
    assert pending.result() == b"1"
    assert other.calls == [1]
    wait_until(lambda: one.service.closed == (where == "elsewhere"))


def without_server(served: Served) -> tuple[Pool, Index, rpc.Client]:
    """A worker that waits for no server, its service, and who has called it; there is no server."""
    worker = served.client("worker")
    index = Index(worker)
    client = served.client("caller").client("index", timeout=LONG)
    assert client.lookup(1) == b"1"
    served.stop()
    worker._connection.patience = 0
    return worker, index, client


def test_a_part_is_left_when_there_is_a_server_to_be_told(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, index, client = without_server(served)
    pending = client.wait.start(2)
    assert index.began.acquire(timeout=LONG)
    waiting = client.lookup.start(3)
    write_over_cells(client, WORDS[0])
    index.go_on.set()
    assert pending.result() == 2
    wait_until(lambda: index.service.closed)
    served.start()
    worker._connection.patience = LONG
    with pytest.raises(NoWorker):
        waiting.result()


def test_a_close_that_no_server_has_heard_of_can_be_said_again(served: Served) -> None:
    worker, index, client = without_server(served)
    with pytest.raises(NoServer):
        index.service.close()
    served.start()
    worker._connection.patience = LONG
    waiting = client.lookup.start(2)
    index.service.close()
    with pytest.raises(NoWorker):
        waiting.result()


def test_who_serves_again_while_the_last_function_runs_stays_a_worker(
    served: Served, index: Index, client: rpc.Client
) -> None:
    busy = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    closing = threading.Thread(target=index.service.close)
    closing.start()
    wait_until(lambda: index.service.closed)
    again = Index(served.clients[0])
    assert client.lookup(2) == b"2"
    index.go_on.set()
    closing.join()
    assert busy.result() == 1
    assert client.lookup(3) == b"3"
    assert again.calls == [2, 3]


def test_one_that_never_served_in_between_takes_no_part_away(
    served: Served, index: Index, client: rpc.Client
) -> None:
    """The first one leaves later, when its function has come to its end: and not what the third one has by then."""
    pool = served.clients[0]
    leaving = threading.Event()

    @index.service
    def stop() -> None:
        index.service.close()
        leaving.set()
        index.go_on.wait(LONG)

    busy = client.stop.start()
    assert leaving.wait(LONG)
    unused = pool.service("index")
    assert unused is not index.service
    unused.close()
    again = Index(pool)
    assert client.lookup(2) == b"2"
    later = next(one for one in threading.enumerate() if one.name == "index closes")
    index.go_on.set()
    later.join(LONG)
    assert busy.result() is None
    assert client.lookup(3) == b"3"
    assert again.calls == [2, 3]


@pytest.mark.parametrize("refused", [["index 1"], ["index 1", "index closes"]])
def test_a_service_for_which_there_are_no_threads_is_not_served(
    served: Served, monkeypatch: pytest.MonkeyPatch, refused: list[str]
) -> None:
    pool, start, begun = served.client("worker"), threading.Thread.start, []

    def starts(thread: threading.Thread) -> None:
        if thread.name in refused:
            raise RuntimeError("can't start new thread")
        begun.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Index(pool, workers=3)
    assert "index 0" in begun
    monkeypatch.undo()
    wait_until(lambda: "service:index" not in served.server.regions.names)
    Index(pool)
    assert served.client("caller").client("index", timeout=LONG).lookup(1) == b"1"


def test_an_exception_whose_traceback_cannot_be_told_is_told_without(
    served: Served, index: Index, client: rpc.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untold(_: BaseException) -> list[str]:
        raise RecursionError

    monkeypatch.setattr("traceback.format_exception", untold)
    with pytest.raises(KeyError) as told:
        client.fail("known")
    assert told.value.args == ("known", 7)
    monkeypatch.undo()
    assert client.lookup(1) == b"1"
