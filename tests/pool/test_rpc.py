"""Functions called through a pool: what comes back, what is refused, who waits how long, and what becomes of calls when
clients, workers or the server die."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from softcxl.pool import rpc, service
from softcxl.pool.errors import (
    BadCall,
    Closed,
    Corrupt,
    Empty,
    Full,
    Lost,
    NoRoom,
    NoServer,
    NoSuchName,
    NoWorker,
    Refused,
    RemoteError,
    Stale,
)
from softcxl.pool.protocol import CallsOf, Opcode
from softcxl.pool.session import Pool
from tests.pool.exchanging import Exchanging, peer, serving
from tests.pool.served import wait_until

LONG = 60.0


class Strange(Exception):
    """None that the other side would have."""


class Index:
    """A service of the tests, which can be held up."""

    def __init__(self, pool: Pool, name: str = "index", workers: int = 1) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.calls: list[int] = []
        self.given_up: list[bool] = []
        self.service = serve = pool.service(name, workers=workers)

        @serve
        def lookup(key: int) -> bytes:
            self.calls.append(key)
            return b"%d" % key

        @serve
        def echo(data: bytes) -> bytes:
            return data

        @serve
        def join(parts: list[str], *, by: str = " ") -> str:
            return by.join(parts)

        @serve
        def wait(key: int) -> int:
            self.calls.append(key)
            self.began.release()
            self.go_on.wait(LONG)
            self.given_up.append(service.abandoned())
            return key

        @serve
        def fail(how: str) -> None:
            raise {
                "known": KeyError(how, 7),
                "strange": Strange("odd"),
                "exit": SystemExit(3),
                "closed": Closed("not the worker's"),
                "empty": Empty("nothing in there"),
                "corrupt": Corrupt("what it read"),
            }[how]

        @serve
        def odd() -> object:
            return object()

        @serve
        def many(size: int) -> list[int]:
            return list(range(size))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Exchanging]:
    with serving(tmp_path) as one:
        yield one


@pytest.fixture
def index(served: Exchanging) -> Iterator[Index]:
    one = Index(served.client("worker"))
    yield one
    one.go_on.set()


@pytest.fixture
def client(served: Exchanging, index: Index) -> rpc.Client:
    return served.client("caller").client("index", timeout=LONG)


# -- calls ---------------------------------------------------------------------------------------------------------


def test_a_call_brings_the_result(client: rpc.Client) -> None:
    assert client.lookup(7) == b"7"
    assert client.lookup(key=8) == b"8"
    assert client.echo(b"") == b""
    assert client.echo(bytearray(b"abc")) == b"abc"
    assert client.join(["a", "b"]) == "a b"
    assert client.join(["a", "b"], by="-") == "a-b"
    assert client.functions()["join"] == "join(parts: list[str], *, by: str = ' ') -> str"


@pytest.mark.parametrize("size", [rpc.ROOM - 1, rpc.ROOM, rpc.ROOM + 1, 65536, 65537, 3 << 20])
def test_any_length_goes_and_comes(client: rpc.Client, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    for _ in range(3):
        assert client.echo(data[:size]) == data[:size]
    assert client.echo.start(data[:size]).result() == data[:size]
    assert client.many(size // 64) == list(range(size // 64))


def test_long_calls_leave_no_memory_behind(served: Exchanging, client: rpc.Client) -> None:
    client.echo(bytes(1 << 20))
    before = served.regions()
    for _ in range(20):
        client.echo(bytes(1 << 20))
    assert served.regions() <= before + 2


def test_bytes_longer_than_the_arena_are_told(client: rpc.Client) -> None:
    from softcxl.pool.errors import NoRoom

    with pytest.raises(NoRoom):
        client.echo(bytes(65 << 20))
    assert client.lookup(1) == b"1"


def test_a_long_error_in_any_letters_comes_back(served: Exchanging, client: rpc.Client) -> None:
    @served.clients[0].service("index")
    def complain(letter: str) -> None:
        raise ValueError(letter * 2000)

    for letter in ("a", "\N{GRINNING FACE}"):
        with pytest.raises(ValueError, match=f"^{letter * 150}"):
            client.complain(letter)
    assert client.lookup(1) == b"1"


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("closed", Closed, "not the worker's"),
        ("empty", Empty, "nothing in there"),
        ("corrupt", Corrupt, "what it read"),
    ],
)
def test_a_function_s_error_is_not_taken_for_the_worker_s_own(
    client: rpc.Client, how: str, kind: type[Exception], said: str
) -> None:
    for _ in range(3):
        with pytest.raises(kind, match=said):
            client.fail(how)
    assert client.lookup(7) == b"7"


def test_who_serves_without_a_pause_leaves_its_process_to_others(served: Exchanging, index: Index) -> None:
    client = served.client("caller").client("index", timeout=LONG)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            client.echo(b"again")

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for one in askers:
        one.start()
    try:
        assert index.service.functions()  # this thread has its turn, and so has one that begins
        turn = threading.Event()
        threading.Thread(target=turn.set).start()
        assert turn.wait(LONG)
    finally:
        over.set()
        for one in askers:
            one.join(LONG)


def test_errors_come_back_and_the_worker_stays(client: rpc.Client) -> None:
    with pytest.raises(KeyError) as known:
        client.fail("known")
    assert known.value.args == ("known", 7)
    assert "in fail" in known.value.__notes__[0]
    with pytest.raises(RemoteError, match="Strange: odd") as strange:
        client.fail("strange")
    assert strange.value.type.endswith("test_rpc.Strange")
    assert "Traceback" in strange.value.trace
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        client.fail("exit")
    with pytest.raises(TypeError, match="a result of type object cannot be sent"):
        client.odd()
    with pytest.raises(TypeError, match="arguments cannot be sent"):
        client.lookup(object())
    assert client.lookup(1) == b"1"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: client.nothing(1), "'index' has no such function; it has lookup, echo"),
        (lambda client: client.lookup("seven"), r"lookup\(key: int\) -> bytes: Expected `int`, got `str`"),
        (lambda client: client.lookup(), r"lookup\(key: int\)"),
        (lambda client: client.lookup(1, 2), r"lookup\(key: int\)"),
        (lambda client: client.lookup(b"7"), r"lookup\(key: int\)"),
        (lambda client: client.lookup(base=2), "missing a required argument"),
        (lambda client: client.echo("x" * 100_000), r"echo\(data: bytes\).*Expected `bytes`"),
    ],
)
def test_what_the_service_does_not_take_it_refuses(
    client: rpc.Client, call: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(BadCall, match=said) as caught:
        call(client)
    assert isinstance(caught.value, TypeError)
    assert client.lookup(1) == b"1"


def test_a_service_says_what_cannot_be_one(served: Exchanging, index: Index) -> None:
    pool = served.clients[0]
    with pytest.raises(ValueError, match="has a function lookup already"):

        @pool.service("index")
        def lookup(key: int) -> bytes:
            return b""

    with pytest.raises(TypeError, match="no type that a service could check"):

        @pool.service("index")
        def some(*keys: int) -> bytes:
            return b""

    with pytest.raises(ValueError, match="not 0"):
        pool.service("none", workers=0)
    for name in ("", "x" * 64):
        with pytest.raises(Refused, match="is no name"):
            pool.service(name)
        with pytest.raises(Refused, match="is no name"):
            pool.client(name)


def test_a_function_the_pool_does_not_take_is_not_served(served: Exchanging) -> None:
    """There is room for 240 functions of a service that may be run again (docs/reference, the pool's layout)."""
    serve = served.client("many").service("many")

    def made(number: int) -> Callable[[], int]:
        def same() -> int:
            return number

        same.__name__ = f"same{number}"
        return same

    for number in range(240):
        serve(idempotent=True)(made(number))
    client = served.client("caller").client("many", timeout=LONG)
    with pytest.raises(NoRoom, match="240"):
        serve(idempotent=True)(made(240))
    with pytest.raises(BadCall, match="no such function"):
        client.same240()
    serve(made(240))
    assert (client.same239(), client.same240()) == (239, 240)


def test_many_calls_at_once_come_each_to_its_own(
    served: Exchanging, index: Index, client: rpc.Client
) -> None:
    calls = [client.lookup.start(number) for number in range(rpc.CALLS)]
    with pytest.raises(Full, match=r"index.lookup: no room for one more call"):
        client.within(0).lookup.start(-1)
    assert [call.result() for call in reversed(calls)] == [
        b"%d" % number for number in reversed(range(rpc.CALLS))
    ]
    assert all(call.result() == call.result() for call in calls)

    got: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda number=number: got.update({number: client.lookup(number)}))
        for number in range(3 * rpc.CALLS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: b"%d" % number for number in range(3 * rpc.CALLS)}


def test_many_clients_and_several_workers(served: Exchanging) -> None:
    workers = [Index(served.client(f"worker {number}"), workers=2) for number in range(2)]
    clients = [served.client(f"client {number}").client("index", timeout=LONG) for number in range(5)]
    wrong: list[object] = []

    def work(client: rpc.Client, first: int) -> None:
        wrong.extend(
            number for number in range(first, first + 200) if client.lookup(number) != b"%d" % number
        )

    threads = [threading.Thread(target=work, args=(client, 1000 * at)) for at, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    done = sorted(workers[0].calls + workers[1].calls)
    assert done == sorted(1000 * at + number for at in range(5) for number in range(200))


def test_a_call_can_be_awaited(index: Index, client: rpc.Client) -> None:
    async def both() -> list[bytes]:
        return list(await asyncio.gather(client.lookup.ask(1), client.lookup.ask(2)))

    assert asyncio.run(both()) == [b"1", b"2"]

    async def given_up() -> None:
        task = asyncio.create_task(client.wait.ask(3))
        await asyncio.to_thread(index.began.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(given_up())
    index.go_on.set()
    assert client.lookup(4) == b"4"
    assert index.given_up == [True]


# -- waiting and giving up -----------------------------------------------------------------------------------------


def test_a_call_that_nobody_waits_for_is_not_run(index: Index, client: rpc.Client) -> None:
    busy = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    with pytest.raises(Empty, match=r"index.lookup: no answer in time"):
        client.within(0).lookup(2)
    late = client.within(0.001).lookup.start(3)
    with pytest.raises(Empty):
        late.result()
    dropped = client.lookup.start(4)
    assert dropped.cancel()
    assert not dropped.cancel()
    with pytest.raises(CancelledError):
        dropped.result()
    client.lookup.start(5)  # nobody has it: it is given up
    with pytest.raises(Empty):
        busy.result(timeout=0)  # it goes on
    assert not busy.done()
    index.go_on.set()
    assert busy.result() == 1
    assert busy.done()
    assert client.lookup(6) == b"6"
    assert index.calls == [1, 6]
    assert index.given_up == [False]


def test_who_waits_hears_that_another_thread_gave_it_up(index: Index, client: rpc.Client) -> None:
    call = client.wait.start(1)
    heard: list[BaseException] = []

    def wait() -> None:
        try:
            call.result()
        except CancelledError as error:
            heard.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert index.began.acquire(timeout=LONG)
    assert call.cancel()
    thread.join()
    assert len(heard) == 1


def test_given_up_while_it_runs_with_a_buffer(index: Index, client: rpc.Client) -> None:
    """The buffer of a call that is given up is not used again while its worker may read it."""
    big = bytes(1 << 20)
    busy = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    pending = client.echo.start(big)
    pending.cancel()
    index.go_on.set()
    assert busy.result() == 1
    assert client.echo(b"\1" * (1 << 20)) == b"\1" * (1 << 20)


def test_abandoned_is_for_functions_of_services() -> None:
    with pytest.raises(RuntimeError, match="no call of a service"):
        service.abandoned()


# -- services that come and go -------------------------------------------------------------------------------------


def test_nobody_serves_it(served: Exchanging) -> None:
    with pytest.raises(NoWorker, match="no service 'index'"):
        served.client().client("index")


def test_calls_fail_when_the_last_worker_goes_and_work_when_one_comes(
    served: Exchanging, index: Index
) -> None:
    client = served.client("caller").client("index", timeout=LONG)
    busy = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    waiting = client.lookup.start(2)
    closing = threading.Thread(target=index.service.close)
    closing.start()
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


def test_a_service_goes_with_its_last_user(served: Exchanging, index: Index, client: rpc.Client) -> None:
    assert client.lookup(1) == b"1"
    client.close()
    index.service.close()
    index.service.close()
    with served.server.lock:
        names = set(served.server.regions.names)
    assert not any(name.startswith("service:") for name in names)


def test_a_closed_client_calls_nobody(served: Exchanging, index: Index, client: rpc.Client) -> None:
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


def test_calls_of_who_calls_nobody_are_nowhere(served: Exchanging, index: Index) -> None:
    pool = served.clients[0]
    with pytest.raises(NoSuchName, match="client 40 calls no services"):
        pool.ask(Opcode.CALLS_OF, CallsOf(slot=40).pack())


def test_notes_that_lie_do_a_worker_no_harm(served: Exchanging, index: Index, client: rpc.Client) -> None:
    from softcxl.pool.native import Queue

    pool = served.clients[1]
    place = client._place
    queue = Queue(pool.directory, place.at, place.size, pool.slot)
    for note in (b"", b"x" * 16, bytes(16), (63).to_bytes(4, "little") + bytes(12), b"\xff" * 16):
        queue.put(note)
    wrong = rpc.Table(pool, served.clients[1]._exchange._buffers).place
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


def test_an_ended_connection_calls_nobody(served: Exchanging, index: Index) -> None:
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


def test_the_child_of_a_fork_gives_up_none_of_its_parents_calls(served: Exchanging, index: Index) -> None:
    pool = served.client("caller")
    client = pool.client("index", timeout=LONG)
    pending = client.wait.start(1)
    assert index.began.acquire(timeout=LONG)
    pool._exchange.forked()  # what the child of a fork does
    pending.cancel()
    index.go_on.set()
    index.service.close()
    assert index.given_up == [False]


# -- deaths --------------------------------------------------------------------------------------------------------


def runs(pool: Pool) -> Any:
    """Where workers count how often each call was run."""
    return pool.allocate(8 * 4096, name="runs")


def test_a_call_whose_worker_was_killed_is_lost_and_not_run_again(served: Exchanging) -> None:
    pool = served.client()
    runs(pool)
    with peer("work", served) as one, peer("work", served) as two:
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
        with peer("work", served) as three:
            assert three.hears() == "serving"
            assert client.count(5) == 10


def test_a_call_that_may_be_run_twice_is_asked_of_another_worker(served: Exchanging) -> None:
    pool = served.client()
    counts = runs(pool)
    with peer("work", served) as one:
        assert one.hears() == "serving"
        client = pool.client("work", timeout=LONG)
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(client.hang_once(1)))
        thread.start()
        assert one.hears() == "began"
        with peer("work", served) as two:
            assert two.hears() == "serving"
            one.kill()
            thread.join()
            assert answers == [1]
            assert counts.load(8) == 2


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_long_answer_that_went_with_its_worker(served: Exchanging, idempotent: bool) -> None:
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
def test_a_call_that_came_while_no_server_was_there(served: Exchanging, stops: bool) -> None:
    worker = served.connect("worker", patience=0)
    served.clients.append(worker)
    first = Index(worker)
    client = served.client("caller").client("index", timeout=LONG)
    served.stop()
    pending = client.lookup.start(1)
    word_at, load = client._place.at + 256, worker.directory.load
    wait_until(lambda: load(word_at) & 0xFF == 3)  # the worker has the note, and does not know whose it is
    if stops:
        with pytest.raises(NoServer):
            first.service.close()
    served.start()
    other = Index(served.client("other")) if stops else first
    assert pending.result() == b"1"
    assert other.calls == [1]


@pytest.mark.parametrize("gone", ["server", "client"])
def test_who_serves_can_close_whatever_has_gone(served: Exchanging, gone: str) -> None:
    worker = served.connect("worker", patience=0)
    region = worker.allocate("4KiB")
    one = Index(worker).service
    if gone == "server":
        served.stop()
    else:
        served.server.left(worker.slot)
    worker.close()
    assert one.closed
    with pytest.raises((Closed, Stale)):
        region.read(0, 1)
    if gone == "server":
        served.start()


def test_a_client_that_is_killed_in_the_middle_stops_nobody(served: Exchanging, index: Index) -> None:
    worker = served.clients[0]

    @worker.service("work")
    def hang(number: int) -> int:
        index.began.release()
        index.go_on.wait(LONG)
        return number

    client = served.client().client("work", timeout=LONG)
    with peer("call_and_hang", served):
        assert index.began.acquire(timeout=LONG)
        clients = len(served.server.names)
    wait_until(lambda: len(served.server.names) < clients)
    index.go_on.set()
    assert client.hang(2) == 2
    # Whoever has the slot next finds its cells free
    with peer("call_and_hang", served):
        assert index.began.acquire(timeout=LONG)
        assert index.began.acquire(timeout=LONG)
    assert client.hang(3) == 3


def test_clients_and_workers_are_killed_under_load(served: Exchanging) -> None:
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

    with peer("work", served) as steady:
        assert steady.hears() == "serving"
        client = pool.client("work", timeout=LONG)
        others = [threading.Thread(target=call, args=(client, 2000 + 1000 * at)) for at in range(2)]
        for thread in others:
            thread.start()
        for _ in range(4):
            with peer("work", served) as worker, peer("call", served) as caller:
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


def test_calls_go_on_over_the_servers_end(served: Exchanging, index: Index) -> None:
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
