"""The host's end of the guest's agent (inside/agent): asks for commands, takes their output apart.

Three virtio-serial ports: lines both ways on `control`, a command's two output streams on `out` and `err`. Around a
command's bytes in a stream stand TOKEN< and TOKEN>, where TOKEN is random, so any bytes can be output, and what
background processes of earlier commands still say is not taken for this command's.
"""

from __future__ import annotations

import secrets
import socket
import threading
from dataclasses import dataclass, field

from softcxl.lab.errors import LabError

LONGEST_INPUT = 64 << 20


class Stream:
    """One output stream of one command."""

    def __init__(self, token: str) -> None:
        self._begin = f"{token}<".encode()
        self._end = f"{token}>".encode()
        self._pending = bytearray()
        self._begun = False
        self.ended = False
        self.chunks: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take bytes from the port; what is certainly output goes to `chunks`."""
        if self.ended:
            return
        self._pending += data
        if not self._begun:
            at = self._pending.find(self._begin)
            if at < 0:
                del self._pending[: -len(self._begin)]
                return
            del self._pending[: at + len(self._begin)]
            self._begun = True
        at = self._pending.find(self._end)
        sure = at if at >= 0 else len(self._pending) - self._marker_begun()
        if sure:
            self.chunks.append(bytes(self._pending[:sure]))
            del self._pending[:sure]
        if at >= 0:
            self.ended = True
            self._pending.clear()

    def _marker_begun(self) -> int:
        """How many of the last bytes may be the first ones of the end's marker; all others are output."""
        for length in range(min(len(self._end) - 1, len(self._pending)), 0, -1):
            if self._pending.endswith(self._end[:length]):
                return length
        return 0

    def take(self) -> bytes:
        """What has come since the last `take`."""
        chunks, self.chunks = self.chunks, []
        return b"".join(chunks)


@dataclass
class Task:
    """A command under way in the guest."""

    token: str
    boot: str
    status: int | None = None
    out: Stream = field(init=False)
    err: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.out, self.err = Stream(self.token), Stream(self.token)

    @property
    def done(self) -> bool:
        """The status is known and both streams are complete."""
        return self.status is not None and self.out.ended and self.err.ended


class Agent:
    """Speaks with the agent over the host ends of its three ports. One task at a time."""

    def __init__(self, control: socket.socket, changed: threading.Condition) -> None:
        """`changed` is notified when the agent says something."""
        self._control = control
        self._changed = changed
        self._buffer = bytearray()
        self._task: Task | None = None
        self.boot = ""
        """The guest's boot id, empty until its agent has reported; changes when the guest restarts."""
        self.release = ""
        """The running kernel's release (`uname -r`)."""

    def feed_control(self, data: bytes) -> None:
        """Take bytes from the control port."""
        with self._changed:
            self._buffer += data
            while (end := self._buffer.find(b"\n")) >= 0:
                words = bytes(self._buffer[:end]).decode(errors="replace").split()
                del self._buffer[: end + 1]
                self._hear(words)
            self._changed.notify_all()

    def feed_out(self, data: bytes) -> None:
        """Take bytes from the port of standard output."""
        with self._changed:
            if self._task is not None:
                self._task.out.feed(data)
                self._changed.notify_all()

    def feed_err(self, data: bytes) -> None:
        """Take bytes from the port of standard error."""
        with self._changed:
            if self._task is not None:
                self._task.err.feed(data)
                self._changed.notify_all()

    def forget(self) -> None:
        """The guest restarts: until its new agent reports, there is none."""
        with self._changed:
            self.boot = ""
            self._changed.notify_all()

    def run(self, command: str, given: bytes = b"") -> Task:
        """Ask for `command` with `given` as its standard input.

        Raises:
            LabError: the command is empty or holds a NUL, or the input is over 64 MiB.
            OSError: QEMU is gone.
        """
        encoded = command.encode(errors="surrogateescape")
        if not encoded or b"\0" in encoded:
            raise LabError("A command for a guest is neither empty nor does it hold NUL characters.")
        if max(len(given), len(encoded)) > LONGEST_INPUT:
            raise LabError(
                f"A guest command's input is {len(given)} bytes; at most {LONGEST_INPUT} are possible."
            )
        task = self._begin()
        head = f"run {task.token} {task.boot} {len(encoded)} {len(given)}\n"
        self._control.sendall(head.encode() + encoded + given)
        return task

    def shell(self, rows: int, columns: int, terminal: str) -> Task:
        """Ask for an interactive shell on the guest's second console."""
        task = self._begin()
        # the words end up in a shell's `set --`: nothing but a terminal's name may pass
        safe = "".join(letter for letter in terminal if letter.isalnum() or letter in "+-._") or "dumb"
        self._control.sendall(f"shell {task.token} {task.boot} {rows} {columns} {safe}\n".encode())
        return task

    def resize(self, rows: int, columns: int) -> None:
        """Tell the shell's terminal its size."""
        self._control.sendall(f"resize {rows} {columns}\n".encode())

    def kill(self, task: Task, signal: str = "KILL") -> None:
        """Send a signal to the task's process group."""
        self._control.sendall(f"kill {task.token} {signal}\n".encode())

    def _begin(self) -> Task:
        with self._changed:
            self._task = Task(secrets.token_hex(8), self.boot)
            return self._task

    def _hear(self, words: list[str]) -> None:
        match words:
            case ["ready", boot, release]:
                self.boot, self.release = boot, release
            case ["done", token, status] if (
                self._task is not None and token == self._task.token and status.isdigit()
            ):
                self._task.status = int(status)
