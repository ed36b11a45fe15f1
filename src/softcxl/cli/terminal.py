"""A guest's shell in this terminal."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType

from softcxl.lab.guest import Guest

_END_OF_INPUT = b"\x04"
_CHUNK = 65536


def interact(guest: Guest) -> int:
    """Run an interactive shell in the guest on this process's terminal; returns the shell's exit status.

    Where standard input is no terminal its bytes are typed, and its end ends the shell.
    """
    columns, rows = shutil.get_terminal_size()
    task = guest.agent.shell(rows, columns, os.environ.get("TERM", "dumb"))
    port = guest.terminal
    listening: list[socket.socket | int] = [port, sys.stdin.fileno()]
    with _raw(sys.stdin.fileno()), _resizing(guest):
        while not task.done and not guest.wait_gone(0):
            ready, _, _ = select.select(listening, [], [], 0.2)
            if port in ready:
                _show(port)
            if sys.stdin.fileno() in ready:
                typed = os.read(sys.stdin.fileno(), _CHUNK)
                port.sendall(typed or _END_OF_INPUT)
                if not typed:
                    listening.remove(sys.stdin.fileno())
        while select.select([port], [], [], 0.1)[0] and _show(port):
            pass
    return task.status if task.status is not None else 1


def _show(port: socket.socket) -> int:
    data = port.recv(_CHUNK)
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    return len(data)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on, Ctrl-C too, until this ends."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizing(guest: Guest) -> Iterator[None]:
    """The guest's terminal follows the size of this one."""

    def resize(number: int, frame: FrameType | None) -> None:
        columns, rows = shutil.get_terminal_size()
        guest.agent.resize(rows, columns)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
