"""Command interfaces that answer as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from softcxl.transport.mctp import Endpoint, Send

ECHO = 0xC000
"""Answers the payload it gets."""
FILL = 0xC001
"""Answers as many bytes as its payload says, in 4 bytes."""
TELL = 0xC002
"""Makes the endpoint send an Event Notification with the payload."""
FAIL = 0xC003
"""Raises."""
LATE = 0xC004
"""Answers its payload once the test lets it."""
BACKGROUND = 0xC005
"""Answers Background Command Started."""
LATE_FAIL = 0xC007
"""Raises, later."""
NEVER = 0xC006
"""Is never answered."""


@dataclass(frozen=True)
class Plain:
    code: int = 0
    payload: bytes = b""
    vendor_status: int = 0


@dataclass(frozen=True)
class Later(Plain):
    code: int = 6
    seconds: float = 0.0
    run: Callable[[], Plain] = Plain


@dataclass
class Echoing:
    """All interfaces that were opened, by the endpoint's name, and which of them were closed."""

    opened: list[Interface] = field(default_factory=list)
    closed: list[Interface] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(name, lambda send: self._open(name, send))

    def _open(self, name: str, send: Send) -> Interface:
        interface = Interface(name, send, self)
        with self.changed:
            self.opened.append(interface)
            self.changed.notify_all()
        return interface

    def wait_closed(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.closed) >= count, 300)


class Interface:
    payload_max = 1 << 20

    def __init__(self, name: str, send: Send, served: Echoing) -> None:
        self.name, self.send, self.served = name, send, served

    def execute(self, opcode: int, payload: bytes) -> Plain:
        if opcode == ECHO:
            return Plain(payload=payload)
        if opcode == FILL:
            size = int.from_bytes(payload, "little")
            return Plain(payload=(bytes(range(256)) * (size // 256 + 1))[:size])
        if opcode == TELL:
            self.send(0x0106, payload)
            return Plain()
        if opcode == LATE:
            return self._late(payload)
        if opcode == BACKGROUND:
            return Plain(code=1)
        if opcode == NEVER:
            return Later(seconds=float("inf"))
        if opcode == LATE_FAIL:
            return Later(run=self._fail)
        if opcode == FAIL:
            self._fail()
        return Plain(code=3, payload=self.name.encode(), vendor_status=0x1234)

    def _fail(self) -> Plain:
        raise RuntimeError("as asked for")

    def _late(self, payload: bytes) -> Plain:
        def run() -> Plain:
            return Plain(payload=payload) if self.served.released.is_set() else self._late(payload)

        return Later(seconds=0.001, run=run)

    def close(self) -> None:
        with self.served.changed:
            self.served.closed.append(self)
            self.served.changed.notify_all()
