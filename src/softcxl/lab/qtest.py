"""Reading and writing guest physical memory from outside, as firmware would before the kernel runs, or as hardware
changes registers while it does.

Source: QEMU system/qtest.c, the text protocol.
"""

from __future__ import annotations

import socket
import threading

from softcxl.lab.errors import MonitorError


class Qtest:
    """One connection to QEMU's test socket. Blocking; nothing else reads the socket. From any thread."""

    def __init__(self, connection: socket.socket, timeout: float = 60.0) -> None:
        connection.settimeout(timeout)
        self._connection = connection
        self._buffer = b""
        self._asking = threading.Lock()

    def read16(self, address: int) -> int:
        """A 16-bit word at a guest physical address. Raises MonitorError."""
        return int(self._ask(f"readw {address:#x}"), 16)

    def write16(self, address: int, value: int) -> None:
        """Store a 16-bit word at a guest physical address. Raises MonitorError."""
        self._ask(f"writew {address:#x} {value & 0xFFFF:#x}")

    def read32(self, address: int) -> int:
        """A 32-bit word at a guest physical address. Raises MonitorError."""
        return int(self._ask(f"readl {address:#x}"), 16)

    def write32(self, address: int, value: int) -> None:
        """Store a 32-bit word at a guest physical address. Raises MonitorError."""
        self._ask(f"writel {address:#x} {value & 0xFFFFFFFF:#x}")

    def _ask(self, line: str) -> str:
        with self._asking:
            return self._answer(line)

    def _answer(self, line: str) -> str:
        try:
            self._connection.sendall(line.encode() + b"\n")
            while True:
                words = self._line().split()
                # "IRQ raise 4" and the like may come at any time
                if words[:1] == ["OK"]:
                    return words[1] if len(words) > 1 else "0"
                if words[:1] in (["FAIL"], ["ERR"]):
                    raise MonitorError(f"QEMU refused {line!r}: {' '.join(words[1:])}")
        except (ConnectionResetError, BrokenPipeError) as error:
            raise MonitorError(f"QEMU's test socket failed at {line!r}: QEMU hung up.") from error
        except OSError as error:
            raise MonitorError(f"QEMU's test socket failed at {line!r}: {error}.") from error

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            data = self._connection.recv(4096)
            if not data:
                raise ConnectionResetError
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace")
