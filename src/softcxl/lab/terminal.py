"""Joining the user's terminal to the guest's second console."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import termios
import tty
from collections.abc import Callable, Iterator

ESCAPE = b"\x1d"
"""Ctrl-] leaves the shell, whatever the guest does."""

_END_OF_INPUT = b"\x04"
_TICK = 0.1
_AT_ONCE = 1 << 16


def join(
    console: socket.socket,
    stdin: int,
    stdout: int,
    done: Callable[[], bool],
    resized: Callable[[int, int], None],
) -> bool:
    """Copy bytes both ways until `done`, or until the user types Ctrl-]; False in the latter case.

    A `stdin` that is a terminal is in raw mode meanwhile; one that ends is an end of input (Ctrl-D) to the guest.
    `resized` is called with rows and columns when the terminal's size changes. What `done` raises is passed on.
    """
    size = window_size(stdout)
    # what is typed before the shell's prompt would be lost when it takes the terminal over
    prompted, reading = False, True
    with _raw(stdin):
        while not done():
            ready = _ready([console.fileno(), *([stdin] if prompted and reading else [])])
            if console.fileno() in ready:
                _write(stdout, console.recv(_AT_ONCE))
                prompted = True
            if stdin in ready:
                typed = os.read(stdin, _AT_ONCE)
                if ESCAPE in typed and os.isatty(stdin):
                    return False
                reading = bool(typed)
                console.sendall(typed)
            elif not reading and not ready:
                # again and again: one that comes between a command and the next prompt is lost
                console.sendall(_END_OF_INPUT)
            if (now := window_size(stdout)) != size:
                size = now
                resized(*size)
        # the shell has ended, and its last words may still be on the way
        while _ready([console.fileno()]):
            _write(stdout, console.recv(_AT_ONCE))
        return True


def _ready(sources: list[int]) -> list[int]:
    """Those of the descriptors that can be read, or have ended; none after a tick. select(2) knows only 1,024."""
    poll = select.poll()
    for one in sources:
        poll.register(one, select.POLLIN)
    return [one for one, _ in poll.poll(_TICK * 1000)]


def window_size(descriptor: int) -> tuple[int, int]:
    """Rows and columns of a terminal; 24 and 80 for anything else."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return 24, 80
    return (size.lines or 24, size.columns or 80)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
