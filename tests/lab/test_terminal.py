"""A user's terminal joined to a console that is a socket here."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import struct
import termios
import threading
from collections.abc import Iterator

import pytest

from softcxl.lab import terminal


@pytest.fixture
def console() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_input_waits_for_the_prompt_and_its_end_is_told(console: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = console
    read, write = os.pipe()
    shown, show = os.pipe()
    os.write(write, b"ls\n")
    os.close(write)
    heard = bytearray()
    ended = threading.Event()

    def shell() -> None:
        guest.send(b"# ")
        while b"\x04" not in heard:
            heard.extend(guest.recv(100))
        guest.send(b"exit")
        ended.set()

    thread = threading.Thread(target=shell)
    thread.start()
    assert terminal.join(ours, read, show, ended.is_set, lambda rows, columns: None)
    thread.join()
    assert heard.startswith(b"ls\n\x04")
    assert os.read(shown, 100) == b"# exit"
    for descriptor in (read, shown, show):
        os.close(descriptor)


def test_terminal_is_raw_meanwhile_and_as_before_after(console: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = console
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    local_flags: list[int] = []
    sizes: list[tuple[int, int]] = []

    def shell() -> None:
        guest.send(b"# ")
        os.read(master, 100)
        local_flags.append(termios.tcgetattr(slave)[3])
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
        os.write(master, b"\x03")
        assert guest.recv(100) == b"\x03"
        os.write(master, terminal.ESCAPE)

    thread = threading.Thread(target=shell)
    thread.start()
    resized = lambda rows, columns: sizes.append((rows, columns))  # noqa: E731
    assert not terminal.join(ours, slave, slave, lambda: False, resized)
    thread.join()
    assert not local_flags[0] & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert termios.tcgetattr(slave) == before
    assert sizes == [(50, 132)]
    os.close(master)
    os.close(slave)


def test_what_befalls_the_guest_is_passed_on(console: tuple[socket.socket, socket.socket]) -> None:
    read, write = os.pipe()

    def done() -> bool:
        raise RuntimeError("the guest is gone")

    with pytest.raises(RuntimeError, match="the guest is gone"):
        terminal.join(console[0], read, write, done, lambda rows, columns: None)
    os.close(read)
    os.close(write)


def test_size_of_what_is_no_terminal() -> None:
    read, write = os.pipe()
    assert terminal.window_size(read) == (24, 80)
    os.close(read)
    os.close(write)
