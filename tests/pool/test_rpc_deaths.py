"""Services that come and go, and what becomes of calls when clients, workers or the server die."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from softcxl.pool import rpc, service
from softcxl.pool.errors import (
    BadCall,
    Closed,
    Corrupt,
    Lost,
    NoServer,
    NoSuchName,
    NoWorker,
    Stale,
)
from softcxl.pool.protocol import CallsOf, Opcode
from softcxl.pool.session import Pool
from softcxl.pool.table import CALLS, Table
from tests.pool.index import LONG, Index
from tests.pool.peers import peer
from tests.pool.served import Served, serving, wait_until

# -- services that come and go -------------------------------------------------------------------------------------


def test_nobody_serves_it(served: Served) -> None:
    with pytest.raises(NoWorker, match="no service 'index'"):
        served.client().client("index")


def test_calls_fail_when_the_last_worker_goes_and_work_when_one_comes(served: Served, index: Index) -> None:
    client = served.client("caller").client("index", timeout=LONG)
    busy = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    waiting = client.lookup.start(2)
    closing = threading.Thread(target=index.service.close)
    closing.start()
    wait_until(lambda: index.service._stopping)  # it takes no more calls
    index.go_on.set()
    closing.join()
    assert busy.result() == 1
    with pytest.raises(NoWorker, match=r"index.lookup: nobody serves it now"):
        waiting.result()
    with pytest.raises(NoWorker, match=r"index.lookup: nobody serves it now"):
        client.lookup(3)
    with pytest.raises(NoWorker):
        served.client().client("index")
    again = Index(served.client("next worker"))
    assert client.lookup(4) == b"4"
    assert again.calls == [4]
    long = client.wait.start(5)
    assert again.began.acquire(timeout=LONG)
    with pytest.raises(TimeoutError, match="has not come to its end"):
        again.service.close(timeout=0)
    assert not long.done()
    again.go_on.set()


def test_a_service_goes_with_its_last_user(served: Served, index: Index, client: rpc.Client) -> None:
    assert client.lookup(1) == b"1"
    client.close()
    index.service.close()
    index.service.close()
    with served.server.lock:
        names = set(served.server.regions.names)
    assert not any(name.startswith("service:") for name in names)


@pytest.mark.parametrize("what", ["service", "pool"])
def test_a_service_can_be_closed_by_a_function_of_its_own(served: Served, what: str) -> None:
    worker = served.client("worker")
    serve = worker.service("mortal")
    threads = serve._threads

    @serve
    def end(key: int) -> int:
        (serve if what == "service" else worker).close()
        return key

    client = served.client("caller").client("mortal", timeout=LONG)
    if what == "service":
        assert client.end(7) == 7
    else:
        with pytest.raises((Lost, NoWorker)):  # who has left answers nobody
            client.end(7)
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    with pytest.raises(NoWorker):
        client.end(8)


def test_a_closed_client_calls_nobody(served: Served, index: Index, client: rpc.Client) -> None:
    lookup, other = client.lookup, client.within(1.0)
    going = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    client.close()
    client.close()
    for call in (lookup, lookup.start, other.lookup, client.echo):
        with pytest.raises(Closed, match="this client of the service was closed"):
            call(2)
    index.go_on.set()
    assert going.result() == 1
    assert index.calls == [1]


def test_calls_of_who_calls_nobody_are_nowhere(served: Served, index: Index) -> None:
    pool = served.clients[0]
    with pytest.raises(NoSuchName, match="client 40 calls no services"):
        pool.ask(Opcode.CALLS_OF, CallsOf(slot=40).pack())


def test_notes_that_lie_do_a_worker_no_harm(served: Served, index: Index, client: rpc.Client) -> None:
    from softcxl.pool.native import Queue

    pool = served.clients[1]
    place = client._place
    queue = Queue(pool.directory, place.at, place.size, pool.slot)
    for note in (b"", b"x" * 16, bytes(16), (63).to_bytes(4, "little") + bytes(12), b"\xff" * 16):
        queue.put(note)
    wrong = Table(pool, served.clients[1]._exchange._buffers).place
    at = wrong.at + 128
    assert client.lookup(1) == b"1"
    # A request that says that it is in a buffer, and where there is none
    for spot in (b"", bytes(32), b"\xff" * 32, (1).to_bytes(8, "little") + bytes(24)):
        call = client._caller.start(spot, client.lookup._number | 16 << 24)
        with pytest.raises(BadCall, match="the arguments are not there"):
            client.lookup._read(client._caller.result(call, LONG))
    assert pool.directory.load(at) & 0xFF == 0
    assert client.lookup(2) == b"2"


def test_answers_that_lie_are_corrupt(client: rpc.Client) -> None:
    for answer in ((b"x", 0x40000007), (b"\xc1", 0x40000001), (b"x", 0x40000002)):
        with pytest.raises(Corrupt):
            client.lookup._read(answer)


def test_an_ended_connection_calls_nobody(served: Served, index: Index) -> None:
    pool = served.client("caller")
    client = pool.client("index", timeout=LONG)
    assert client.lookup(1) == b"1"
    pool.close()
    for call in (client.lookup, client.lookup.start):
        with pytest.raises(Stale):
            call(3)
    taken = served.client("taken for dead")
    client = taken.client("index", timeout=LONG)
    served.server.left(taken.slot)
    with pytest.raises(Stale):
        client.lookup(4)
    other = served.client("other")
    client = other.client("index", timeout=LONG)
    producer = other.ring("orders").producer()
    other.forked()  # what the child of a fork does
    with pytest.raises(Stale):
        client.lookup(5)
    with pytest.raises(Stale):
        producer.send(b"")
    assert index.calls == [1]


def test_the_child_of_a_fork_gives_up_none_of_its_parents_calls(served: Served, index: Index) -> None:
    pool = served.client("caller")
    client = pool.client("index", timeout=LONG)
    pending = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    pool._exchange.forked()  # what the child of a fork does
    pending.cancel()
    index.go_on.set()
    index.service.close()
    assert index.given_up == [False]


@pytest.mark.parametrize("how", ["called", "started"])
@pytest.mark.parametrize("end", ["was closed", "taken this client for dead"])
def test_who_waits_for_a_call_when_its_connection_ends_is_told(
    served: Served, index: Index, end: str, how: str
) -> None:
    pool = served.client("caller")
    client = pool.client("index")
    told: list[Exception] = []

    def wait() -> None:
        try:
            client.wait(1) if how == "called" else client.wait.start(1).result()
        except Exception as error:  # noqa: BLE001  whatever it is
            told.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert index.began.acquire(timeout=LONG)
    pool.close() if end == "was closed" else served.server.left(pool.slot)
    waiting.join(LONG)
    index.go_on.set()
    assert [type(error) for error in told] == [Stale]
    assert end in str(told[0])


def test_the_child_of_a_fork_gets_none_of_its_parents_answers(served: Served, index: Index) -> None:
    pool = served.client("caller")
    client = pool.client("index", timeout=LONG)
    answered, begun = client.lookup.start(1), client.wait.start(2)
    wait_until(lambda: pool.directory.load(client._table.word_at(answered._call or (0, 0))) & 0xFF == 3)
    assert index.began.acquire(timeout=LONG)
    child = os.fork()
    if not child:
        told = 0
        for pending in (answered, begun):
            try:
                pending.result(LONG)
            except Stale as error:
                told += "the process that forked" in str(error)
            except BaseException:  # noqa: BLE001  what the child of a fork must not do is go on with the tests
                os._exit(2)
        os._exit(0 if told == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    index.go_on.set()
    assert answered.result() == b"1"
    assert begun.result() is not None


# -- deaths --------------------------------------------------------------------------------------------------------


def runs(pool: Pool) -> Any:
    """Where workers count how often each call was run."""
    return pool.allocate(8 * 4096, name="runs")


def test_a_call_whose_worker_was_killed_is_lost_and_not_run_again(served: Served) -> None:
    pool = served.client()
    runs(pool)
    with peer("work", served.address) as one, peer("work", served.address) as two:
        assert one.hears() == two.hears() == "serving"
        client = pool.client("work", timeout=LONG)
        first, second = client.hang.start(1), client.hang.start(2)
        assert one.hears() == two.hears() == "began"
        waiting = client.count.start(3)
        one.kill()
        wait_until(lambda: first.done() or second.done())
        dead, other = (first, second) if first.done() else (second, first)
        with pytest.raises(Lost, match=r"work.hang: the worker that had taken the call died"):
            dead.result()
        assert not other.done()
        assert not waiting.done()
        two.kill()
        with pytest.raises(Lost):
            other.result()
        with pytest.raises(NoWorker):
            waiting.result()
        with pytest.raises(NoWorker):
            client.count(4)
        with peer("work", served.address) as three:
            assert three.hears() == "serving"
            assert client.count(5) == 10


def test_a_call_that_may_be_run_twice_is_asked_of_another_worker(served: Served) -> None:
    pool = served.client()
    counts = runs(pool)
    with peer("work", served.address) as one:
        assert one.hears() == "serving"
        client = pool.client("work", timeout=LONG)
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(client.hang_once(1)))
        thread.start()
        assert one.hears() == "began"
        with peer("work", served.address) as two:
            assert two.hears() == "serving"
            one.kill()
            thread.join()
            assert answers == [1]
            assert counts.load(8) == 2


def test_a_call_that_is_given_up_while_it_is_asked_again_leaves_no_cell_taken(
    served: Served, index: Index, client: rpc.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, load = client._caller, client._table.pool.directory.load

    class Died:
        """The worker that has taken the first call dies, and another thread gives it up as it is asked again."""

        def result(self, call: tuple[int, int], timeout: float | None) -> bytes:
            raise Lost

        def start(self, *request: Any) -> tuple[int, int]:
            assert pending.cancel()
            return caller.start(*request)

        def cancel(self, call: tuple[int, int]) -> bool:
            return caller.cancel(call)

    pending = client.lookup.start(1)
    monkeypatch.setattr(client, "_may_repeat", lambda _: True)
    monkeypatch.setattr(client, "_caller", Died())
    with pytest.raises(CancelledError):
        pending.result()
    wait_until(lambda: not any(load(client._table.word_at((cell, 0))) & 0xFF for cell in range(CALLS)))


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_long_answer_that_went_with_its_worker(served: Served, idempotent: bool) -> None:
    workers = [served.client("first"), served.client("second")]

    def serve(pool: Pool) -> service.Service:
        one = pool.service("long")

        @one(idempotent=idempotent)
        def long(size: int) -> bytes:
            return bytes(size)

        return one

    first = serve(workers[0])
    client = served.client("caller").client("long", timeout=LONG)
    pending = client.long.start(100_000)
    assert pending._call is not None
    word_at, load = client._table.word_at(pending._call), workers[1].directory.load
    wait_until(lambda: load(word_at) & 0xFF == 3)
    serve(workers[1])
    first._stopping = True
    served.server.left(workers[0].slot)  # it is killed once it has answered, and before that is read
    if idempotent:
        assert pending.result() == bytes(100_000)
    else:
        with pytest.raises(Lost, match="before its answer was read"):
            pending.result()


@pytest.mark.parametrize("stops", [True, False])
def test_a_call_that_came_while_no_server_was_there(served: Served, stops: bool) -> None:
    worker = served.client("worker")
    first = Index(worker)
    client = served.client("caller").client("index", timeout=LONG)
    served.stop()
    worker._connection.patience = 0
    pending = client.lookup.start(1)
    word_at, load = client._place.at + 256, worker.directory.load
    wait_until(lambda: load(word_at) & 0xFF == 3)  # the worker has the note, and does not know whose it is
    if stops:
        with pytest.raises(NoServer):
            first.service.close()
    served.start()
    worker._connection.patience = LONG
    other = Index(served.client("other")) if stops else first
    assert pending.result() == b"1"
    assert other.calls == [1]


@pytest.mark.parametrize("gone", ["server", "client"])
def test_who_serves_can_close_whatever_has_gone(served: Served, gone: str) -> None:
    worker = served.connect("worker")
    region = worker.allocate("4KiB")
    one = Index(worker).service
    if gone == "server":
        served.stop()
        worker._connection.patience = 0
    else:
        served.server.left(worker.slot)
    worker.close()
    assert one.closed
    with pytest.raises((Closed, Stale)):
        region.read(0, 1)
    if gone == "server":
        served.start()


def test_a_client_that_is_killed_in_the_middle_stops_nobody(served: Served, index: Index) -> None:
    worker = served.clients[0]

    @worker.service("work")
    def hang(number: int) -> int:
        index.began.release()
        index.go_on.wait(LONG)
        return number

    client = served.client().client("work", timeout=LONG)
    with peer("call_and_hang", served.address):
        assert index.began.acquire(timeout=LONG)
        clients = len(served.server.names)
    wait_until(lambda: len(served.server.names) < clients)
    index.go_on.set()
    assert client.hang(2) == 2
    # Whoever has the slot next finds its cells free
    with peer("call_and_hang", served.address):
        assert index.began.acquire(timeout=LONG)
        assert index.began.acquire(timeout=LONG)
    assert client.hang(3) == 3


def test_clients_and_workers_are_killed_under_load(served: Served) -> None:
    """Every call is answered, or raises; none is run twice, none that was answered has not been run."""
    pool = served.client()
    counts = runs(pool)
    told: dict[int, str] = {}
    stop = threading.Event()

    def call(client: rpc.Client, first: int) -> None:
        for number in range(first, first + 1000):
            if stop.is_set():
                return
            try:
                told[number] = "right" if client.count(number) == 2 * number else "wrong"
            except Lost:
                told[number] = "lost"
            except NoWorker:
                told[number] = "refused"

    with peer("work", served.address) as steady:
        assert steady.hears() == "serving"
        client = pool.client("work", timeout=LONG)
        others = [threading.Thread(target=call, args=(client, 2000 + 1000 * at)) for at in range(2)]
        for thread in others:
            thread.start()
        for _ in range(4):
            with peer("work", served.address) as worker, peer("call", served.address) as caller:
                assert worker.hears() == "serving"
                assert caller.hears() == "calling"
        stop.set()
        for thread in others:
            thread.join()
        wrong = [number for number, what in told.items() if what == "wrong"]
        assert not wrong
        for number, what in told.items():
            run = counts.load(8 * number)
            assert run in {"right": (1,), "refused": (0,), "lost": (0, 1)}[what], (number, what)
        assert client.count(4095) == 8190


def test_calls_go_on_over_the_servers_end(served: Served, index: Index) -> None:
    client = served.client("caller").client("index", timeout=LONG)
    assert client.lookup(1) == b"1"
    busy = client.wait.start(2)
    assert index.began.acquire(timeout=LONG)
    waiting = client.lookup.start(3)
    served.stop()
    index.go_on.set()
    assert busy.result() == 2
    assert waiting.result() == b"3"
    assert client.lookup(4) == b"4"
    served.start()
    assert client.lookup(5) == b"5"
    assert client.echo(bytes(1 << 20)) == bytes(1 << 20)
    assert served.client("new").client("index", timeout=LONG).lookup(6) == b"6"
    assert index.calls == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("bytes_there", [b"\0", b"\xff", b"\x5a\x01"])
def test_a_client_that_writes_over_channels_stops_no_server(tmp_path: Path, bytes_there: bytes) -> None:
    """Head, queue and table of calls: whoever has them is told, others and the server go on."""
    with serving(tmp_path) as served:
        worker, vandal, other = served.client("worker"), served.client("vandal"), served.client("other")
        index = Index(worker)
        client = vandal.client("index", timeout=LONG)
        assert client.lookup(1) == b"1"
        queue = vandal.queue("work", cells=4)
        queue.put(b"left")
        producer = vandal.ring("orders").producer()
        producer.send(b"left")
        for at in (client._place.at, client._table.place.at, queue.place.at, producer.place.at):
            vandal.map(0)[at - 2048 : at + 512] = (bytes_there * 2560)[:2560]
        served.server.left(vandal.slot)
        index.go_on.set()
        served.server.left(worker.slot)
        with served.server.lock:
            served.server.channels.tick()
        with other.ring("new").producer() as mine, other.ring("new").consumer() as its:
            mine.send(b"works")
            assert its.receive(LONG) == b"works"
        served.stop()
        served.start()
        assert other.queue("more").cells == 256
        served.clients = [other]
