"""What clients ask of a server, as bytes, and how it answers."""

from __future__ import annotations

from softcxl.pool.protocol import (
    PROTOCOL,
    Allocate,
    AllocateMany,
    Hello,
    Located,
    Named,
)
from tests.fm.pool.memories import Client


def asking(size: int = 4096, request: int = 0, **changes: object) -> Allocate:
    asked = Allocate(
        size=size, request=request, copies=1, policy=0, separate=0, mode=2, flags=0, source=0, lease=0,
        reserved0=b"", name=b"",
    )  # fmt: skip
    return asked.replace(**changes)


def ask(client: Client, opcode: int, data: bytes = b"") -> tuple[int, str]:
    status, answer = client.server.execute(client.slot, opcode, data)
    return status, answer.decode(errors="replace") if status else ""


def of(made: Located, name: str = "") -> bytes:
    return Named(index=made.index, generation=made.generation, name=name.encode()).pack()


def by_name(name: str) -> bytes:
    return Named(index=0, generation=0, name=name.encode()).pack()


def many(count: int, **changes: object) -> bytes:
    return AllocateMany(count=count, each=asking(**changes).pack()).pack()  # type: ignore[arg-type]


def hello(**changes: object) -> Hello:
    said = Hello(protocol=PROTOCOL, pid=1, slot=0, epoch=0, token=b"", lease=0, name=b"me", host=b"")
    return said.replace(**changes)
