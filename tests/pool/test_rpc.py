"""Functions called through a pool: what comes back, what is refused, and who waits how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from softcxl.pool import layout, rpc, service
from softcxl.pool.errors import (
    BadCall,
    Closed,
    Corrupt,
    Empty,
    Full,
    NoRoom,
    Refused,
    RemoteError,
)
from softcxl.pool.table import CALLS, ROOM
from tests.pool.index import LONG, Index
from tests.pool.served import Served, wait_until

# -- calls ---------------------------------------------------------------------------------------------------------


def test_a_call_brings_the_result(client: rpc.Client) -> None:
    assert client.lookup(7) == b"7"
    assert client.lookup(key=8) == b"8"
    assert client.echo(b"") == b""
    assert client.echo(bytearray(b"abc")) == b"abc"
    assert client.join(["a", "b"]) == "a b"
    assert client.join(["a", "b"], by="-") == "a-b"
    assert client.functions()["join"] == "join(parts: list[str], *, by: str = ' ') -> str"


@pytest.mark.parametrize("size", [ROOM - 1, ROOM, ROOM + 1, 65536, 65537, 3 << 20])
def test_any_length_goes_and_comes(client: rpc.Client, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    for _ in range(3):
        assert client.echo(data[:size]) == data[:size]
    assert client.echo.start(data[:size]).result() == data[:size]
    assert client.many(size // 64) == list(range(size // 64))


def test_long_calls_leave_no_memory_behind(served: Served, client: rpc.Client) -> None:
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


def test_a_long_error_in_any_letters_comes_back(served: Served, client: rpc.Client) -> None:
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


def test_who_serves_without_a_pause_leaves_its_process_to_others(served: Served, index: Index) -> None:
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
    assert strange.value.type.endswith("index.Strange")
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


def test_a_service_says_what_cannot_be_one(served: Served, index: Index) -> None:
    pool = served.clients[0]
    with pytest.raises(ValueError, match="has a function lookup already"):

        @pool.service("index")
        def lookup(key: int) -> bytes:
            return b""

    with pytest.raises(TypeError, match="no type that a service could check"):

        @pool.service("index")
        def some(*keys: int) -> bytes:
            return b""

    with pytest.raises(Refused, match="workers=0: a service has 1 or more"):
        pool.service("none", workers=0)
    for name in ("", "x" * 64):
        with pytest.raises(Refused, match="is no name"):
            pool.service(name)
        with pytest.raises(Refused, match="is no name"):
            pool.client(name)


def test_a_function_that_comes_after_the_first_is_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service begins with its first function, and its clients may know the next one from who serves it already."""
    monkeypatch.setattr(service, "_COMING", LONG)
    serve = served.client("many").service("many")
    serve(len)
    caller = served.client("caller")
    client = caller.client("many", timeout=LONG)
    pending = client.second.start(7)
    assert pending._call is not None
    word_at = client._table.word_at(pending._call)
    wait_until(lambda: caller.directory.load(word_at) & 0xFF == 2)  # a worker has it

    @serve
    def second(key: int) -> int:
        return key + 1

    assert pending.result() == 8
    assert client.len([1, 2, 3]) == 3


def test_a_function_the_pool_does_not_take_is_not_served(served: Served) -> None:
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


def test_many_calls_at_once_come_each_to_its_own(served: Served, index: Index, client: rpc.Client) -> None:
    calls = [client.lookup.start(number) for number in range(CALLS)]
    with pytest.raises(Full, match=r"index.lookup: no room for one more call"):
        client.within(0).lookup.start(-1)
    assert [call.result() for call in reversed(calls)] == [
        b"%d" % number for number in reversed(range(CALLS))
    ]
    assert all(call.result() == call.result() for call in calls)

    got: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda number=number: got.update({number: client.lookup(number)}))
        for number in range(3 * CALLS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: b"%d" % number for number in range(3 * CALLS)}


def test_more_calls_are_started_than_there_are_cells(index: Index, client: rpc.Client) -> None:
    """Answers that nobody has asked for yet hold a cell each: who starts more calls first is not to wait for ever."""
    numbers = range(3 * CALLS + 1)
    assert client.join.start(["a", "b"]).result() == "a b"
    started = [client.lookup.start(number) for number in numbers]
    assert client.lookup(-1) == b"-1"  # also while they are kept
    assert [one.result() for one in started] == [b"%d" % number for number in numbers]

    async def awaited() -> list[bytes]:
        return list(await asyncio.gather(*(client.lookup.ask(number) for number in numbers)))

    assert asyncio.run(awaited()) == [b"%d" % number for number in numbers]


def test_a_loop_goes_on_while_its_call_waits_for_a_cell(index: Index, client: rpc.Client) -> None:
    held = [client.wait.start(number) for number in range(CALLS)]

    async def one_more() -> bytes:
        last = asyncio.create_task(client.lookup.ask(1000))
        await asyncio.sleep(0)  # it has tried
        given_up = asyncio.create_task(client.lookup.ask(1001))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        index.go_on.set()
        return bytes(await last)

    assert asyncio.run(one_more()) == b"1000"
    assert [one.result() for one in held] == list(range(CALLS))
    assert 1001 not in index.calls


def test_a_call_says_what_has_become_of_it(index: Index, client: rpc.Client) -> None:
    call = client.wait.start(1)
    assert repr(call) == "<call of <index.wait>, under way>"
    index.go_on.set()
    call.result()
    assert repr(call) == "<call of <index.wait>, answered>"
    failed = client.fail.start("known")
    with pytest.raises(KeyError):
        failed.result()
    assert repr(failed) == "<call of <index.fail>, KeyError('known', 7)>"


def test_many_clients_and_several_workers(served: Served) -> None:
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


def test_a_client_of_two_services_hears_from_each_what_it_asked_it(served: Served) -> None:
    """Its calls to both lie in one table, where each service's worker looks for the next one."""

    def tells(service_name: str) -> Callable[[int], str]:
        def who(number: int) -> str:
            return f"{service_name} {number}"

        return who

    names, caller = ("left", "right"), served.client("caller")
    for name in names:
        served.client(f"worker of {name}").service(name)(tells(name))
    asked = [caller.client(name, timeout=LONG) for name in names]
    for number in range(600):
        name, client = names[number % 2], asked[number % 2]
        assert client.who(number) == f"{name} {number}"
        assert client.who(number) == f"{name} {number}"
    pending = [asked[number % 2].who.start(number) for number in range(CALLS)]
    assert [call.result() for call in pending] == [f"{names[number % 2]} {number}" for number in range(CALLS)]


def test_each_service_has_a_mark_of_its_own(served: Served) -> None:
    def mark(name: str) -> int:
        with served.server.lock:
            region = served.server.directory.region(served.server.regions.names[f"service:{name}"])
        word: int = served.server.directory.memory.load(region.extent0 + layout.CHANNEL_AT)
        return word >> 48

    worker = served.client("worker")
    for name in ("a", "b", "c"):
        worker.service(name)(tagged)
    assert [mark(name) for name in ("a", "b", "c")] == [1, 2, 3]
    worker.service("c").close()
    served.stop()
    served.start()
    wait_until(lambda: "worker" in served.server.names.values())
    worker.service("d")(tagged)
    assert len({mark(name) for name in ("a", "b", "d")}) == 3


def tagged(number: int) -> int:
    return number


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
