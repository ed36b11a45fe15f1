"""A door of lines: many clients, each with its own conversation."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.transport.control import MAX_REQUEST, Client, Connection, Door, NoServer, converse
from softcxl.transport.errors import DoorInUse


class Echo:
    """Answers a line with itself backwards; `slow` waits until it is let go, `bye` ends the connection."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.waiting = threading.Event()

    def answer(self, line: bytes, client: Client) -> tuple[bytes, bool]:
        if line == b"slow\n":
            self.waiting.set()
            self.let_go.wait()
        if line == b"bug\n":
            raise ZeroDivisionError
        return line.rstrip(b"\n")[::-1], line != b"bye\n"

    def refuse(self, reason: str) -> bytes:
        return f"no: {reason}".encode()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control"


@pytest.fixture
def door(echo: Echo, path: Path) -> Iterator[Door]:
    with Door(echo, path) as door:
        yield door
        echo.let_go.set()


def test_lines_go_in_and_come_out(door, path):
    assert converse(str(path), b"abc") == b"cba"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"one\ntwo\nbye\nmore\n")
        with client.makefile("rb") as lines:
            assert [lines.readline() for _ in range(3)] == [b"eno\n", b"owt\n", b"eyb\n"]
            assert lines.read() == b""  # `more` is not answered any more


def test_the_longest_line_and_one_more(door, path):
    longest = b"x" * (MAX_REQUEST - 1)
    assert converse(str(path), longest) == longest
    assert converse(str(path), longest + b"x") == f"no: a request has at most {MAX_REQUEST} bytes".encode()
    assert converse(str(path), b"ab") == b"ba"


def test_who_waits_keeps_nobody_waiting(door, echo, path):
    answers: list[bytes] = []
    slow = threading.Thread(target=lambda: answers.append(converse(str(path), b"slow")))
    slow.start()
    echo.waiting.wait()
    assert converse(str(path), b"quick") == b"kciuq"
    assert answers == []
    echo.let_go.set()
    slow.join()
    assert answers == [b"wols"]


def test_what_is_being_answered_is_answered_before_the_door_closes(door, echo, path):
    answers: list[bytes] = []
    slow = threading.Thread(target=lambda: answers.append(converse(str(path), b"slow")))
    slow.start()
    echo.waiting.wait()
    closing = threading.Thread(target=door.close)
    closing.start()
    echo.let_go.set()
    closing.join()
    slow.join()
    assert answers == [b"wols"]
    assert not path.exists()
    door.close()  # once more does no harm


def test_a_client_too_many_is_told_so(door, path):
    clients = []
    try:
        for number in range(128):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.connect(str(path))
            client.sendall(b"%d\n" % number)
            assert client.recv(16) == str(number).encode()[::-1] + b"\n"
        assert converse(str(path), b"one more") == b"no: 128 clients are here, no more can be"
        clients.pop().close()
        while converse(str(path), b"ab") != b"ba":  # until its going has been noticed
            pass
    finally:
        for client in clients:
            client.close()


def test_a_bug_of_the_server_costs_one_connection(door, path, caplog):
    with pytest.raises(NoServer, match="gone before it answered"):
        converse(str(path), b"bug")
    assert converse(str(path), b"ab") == b"ba"
    assert "a bug of the server" in caplog.text


def test_a_server_that_leaves_with_something_unread_has_gone(path):
    """Linux says of it that it reset the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def leave() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1, socket.MSG_PEEK)

        leaving = threading.Thread(target=leave)
        leaving.start()
        with pytest.raises(NoServer, match="the server has gone before it answered"):
            converse(str(path), b"abc")
        leaving.join()


def test_a_live_servers_path_is_not_taken(door, echo, path):
    with pytest.raises(DoorInUse, match="a live server listens there"), Door(echo, path):
        pass
    assert converse(str(path), b"ab") == b"ba"


def test_a_dead_servers_path_is_taken(echo, path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Door(echo, path):
        assert converse(str(path), b"ab") == b"ba"


def test_a_queue_that_is_full(path, monkeypatch):
    monkeypatch.setattr("softcxl.transport.control.client._CONNECT_SECONDS", 1)
    queued = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        while True:
            caller = socket.socket(socket.AF_UNIX)
            queued.append(caller)
            caller.setblocking(False)
            if caller.connect_ex(str(path)):
                break
        with pytest.raises(NoServer, match="the server there has taken no client for 1 s"):
            converse(str(path), b"ab")
        for caller in queued:
            caller.close()


class Waiter:
    """Answers when its client has gone, with nothing; notes when that was told."""

    def __init__(self) -> None:
        self.asked, self.saw, self.told = threading.Event(), threading.Event(), threading.Event()

    def answer(self, line: bytes, client: Client) -> tuple[bytes, bool]:
        client.leaving.append(self.told.set)
        assert not client.gone()
        self.asked.set()
        while not client.gone():
            pass
        self.saw.set()
        return b"", True

    def refuse(self, reason: str) -> bytes:
        return reason.encode()


def test_who_waits_for_something_hears_that_his_client_has_gone(path):
    waiter = Waiter()
    with Door(waiter, path):
        with Connection(str(path)) as client:

            def ask():
                with pytest.raises(NoServer):
                    client.converse(b"wait")

            thread = threading.Thread(target=ask)
            thread.start()
            assert waiter.asked.wait(60)
            assert not waiter.told.is_set()
            client.shut()
            thread.join()
        assert waiter.saw.wait(60)
        assert waiter.told.wait(60)


def test_who_waits_for_something_hears_that_the_door_closes(path):
    waiter = Waiter()
    with Door(waiter, path) as door, Connection(str(path)) as client:
        thread = threading.Thread(target=client.converse, args=(b"wait",))
        thread.start()
        assert waiter.asked.wait(60)
        door.close()
        thread.join()
    assert waiter.told.is_set()


def test_one_request_after_another_on_a_connection(door, path):
    with Connection(str(path)) as client:
        assert [client.converse(b"abc"), client.converse(b"xyz")] == [b"cba", b"zyx"]
