"""The thread that reads what a guest says."""

from __future__ import annotations

import queue
import socket

from softcxl.lab.pump import Pump


def test_everything_is_read_and_the_end_is_told_once() -> None:
    here, there = socket.socketpair()
    other_here, other_there = socket.socketpair()
    heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
    pump = Pump("test")
    pump.add(here, lambda data: heard.put(("one", data)))
    pump.add(other_here, lambda data: heard.put(("two", data)))
    pump.start()
    there.send(b"hello")
    assert heard.get() == ("one", b"hello")
    there.close()
    assert heard.get() == ("one", b"")
    # the others go on
    other_there.send(b"still")
    assert heard.get() == ("two", b"still")
    pump.close()
    assert heard.empty()
    # and sources stay the caller's
    other_there.send(b"more")
    assert other_here.recv(10) == b"more"
    for end in (here, other_here, other_there):
        end.close()


def test_close_without_start() -> None:
    Pump("test").close()


def test_a_reset_connection_is_an_end() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    far = socket.create_connection(listener.getsockname())
    near, _ = listener.accept()
    heard: queue.Queue[bytes] = queue.Queue()
    pump = Pump("test")
    pump.add(near, heard.put)
    pump.start()
    # SO_LINGER of zero makes closing a reset
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    assert heard.get() == b""
    pump.close()
    near.close()
    listener.close()
