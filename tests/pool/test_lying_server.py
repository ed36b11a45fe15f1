"""A server that lies hurts nobody: what it cannot have said is an error."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from softcxl.pool import errors
from softcxl.pool.layout import HEADER, Plan
from softcxl.pool.link import Place
from softcxl.pool.mapping import check
from softcxl.pool.protocol import Head
from softcxl.pool.session import connect
from tests.fm.pool.memories import PLAN, arena
from tests.pool.answers import welcome
from tests.pool.served import LONG, Served


class Liar:
    """Answers one hello with what it is told to."""

    def __init__(self, path: Path, welcome: bytes, files: list[int]) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._run, args=(welcome, files))
        self._thread.start()

    def _run(self, welcome: bytes, files: list[int]) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(2000)
            socket.send_fds(connection, [welcome], files)

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(LONG)
        self._socket.close()


def answer(
    slot: int = 1, sources: tuple[tuple[int, int, int], ...] = (), status: int = 0, protocol: int = 1
) -> bytes:
    return Head(what=status, number=0).pack() + welcome(sources, slot=slot, protocol=protocol)


def made(**fields: int) -> int:
    """An arena whose header says that."""
    fd = arena()
    plan = PLAN
    header = {
        "magic": 0x4C4F4F504C584353, "size": plan.size, "identity": 1, "epoch": 1, "regions": plan.regions,
        "sources_at": plan.sources_at, "slots_at": plan.slots_at, "regions_at": plan.regions_at,
        "calls_at": plan.calls_at, "calls_stride": 8320, "queue_at": plan.queue_at, "queue_size": 262400,
        "heap_at": plan.heap_at,
    } | {name: value for name, value in fields.items() if name not in ("slots", "version")}  # fmt: skip
    for name, value in header.items():
        os.pwrite(fd, struct.pack("<Q", value), HEADER[name])
    for name, value in (
        ("version", fields.get("version", 2)),
        ("ready", 1),
        ("slots", fields.get("slots", 16)),
    ):
        os.pwrite(fd, struct.pack("<I", value), HEADER[name])
    return fd


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, errors.Foreign),  # no queue is there
        ({"magic": 5}, errors.Foreign),
        ({"version": 1}, errors.Foreign),
        ({"version": 3}, errors.Foreign),
        ({"size": 1 << 62}, errors.Corrupt),
        ({"slots": 0xFFFFFFFF}, errors.Corrupt),
        ({"slots": 1}, errors.Corrupt),
        ({"regions": 1 << 60}, errors.Corrupt),
        ({"slots_at": (1 << 64) - 64}, errors.Corrupt),
        ({"slots_at": 0}, errors.Corrupt),
        ({"regions_at": 1 << 50}, errors.Corrupt),
        ({"regions_at": 8200}, errors.Corrupt),
        ({"calls_at": 1 << 40}, errors.Corrupt),
        ({"calls_stride": 1 << 62}, errors.Corrupt),
        ({"queue_at": 1 << 63}, errors.Corrupt),
        ({"queue_size": 1 << 63}, errors.Corrupt),
        ({"heap_at": 1 << 63}, errors.Corrupt),
    ],
)
def test_a_header_that_cannot_be_is_told(
    tmp_path: Path, fields: dict[str, int], kind: type[errors.PoolError]
) -> None:
    fd = made(**fields)
    with Liar(tmp_path / "liar", answer(), [fd]), pytest.raises(kind):
        connect(f"unix:{tmp_path / 'liar'}")
    os.close(fd)


def test_a_welcome_that_cannot_be_is_told(tmp_path: Path) -> None:
    short, empty, whole = os.memfd_create("short"), os.memfd_create("empty"), arena()
    os.truncate(short, 8192)
    cases: list[tuple[bytes, list[int], type[errors.PoolError], str]] = [
        (b"", [], errors.NoServer, "hung up"),
        (b"abc", [], errors.Foreign, "what answers is no pool"),
        (b"\0" * 12, [], errors.Foreign, "what answers is no pool"),
        (Head(what=8, number=0).pack() + b"other times", [], errors.Foreign, "other times"),
        (Head(what=999, number=0).pack() + b"\xff", [], errors.ServerFailed, "."),
        (answer(protocol=7), [whole], errors.Foreign, "protocol 7"),
        (answer(), [], errors.Foreign, "0 sources were told of, 0 files came"),
        (answer(), [whole, whole], errors.Foreign, "0 sources were told of, 2 files came"),
        (answer(), [empty], errors.Corrupt, "the arena has 0 bytes"),
        (answer(), [short], errors.Foreign, "it begins with 0x0"),
        (
            answer(sources=((1, 0, 65536),)),
            [whole, short],
            errors.Corrupt,
            "source 1 has 65536 .* cut short",
        ),
        (answer(sources=((1, 4096, 8192),)), [whole, short], errors.Corrupt, "cut short"),
        (answer(sources=((1, 100, 50),)), [whole, short], errors.Corrupt, "within a page"),
        (answer(sources=((1, 0, 0),)), [whole, short], errors.Corrupt, "source 1 has 0 bytes"),
        (
            answer(sources=((0, 0, 64),)),
            [whole, short],
            errors.Corrupt,
            "a source 0, which there is already",
        ),
        (answer(sources=((255, 0, 64),)), [whole, short], errors.Corrupt, "a source 255"),
    ]
    for number, (message, files, kind, said) in enumerate(cases):
        path = tmp_path / f"liar{number}"
        with Liar(path, message, files), pytest.raises(kind, match=said):
            connect(f"unix:{path}")
    for fd in (short, empty, whole):
        os.close(fd)


def test_a_slot_that_cannot_be_is_told() -> None:
    fd = made()
    data = os.pread(fd, Plan(slots=16, regions=256, heap=4 << 20).size, 0)
    assert check(memoryview(data), Place(slot=15)).slots == 16
    for slot in (0, 16, 0xFFFFFFFF):
        with pytest.raises(errors.Corrupt, match="there are 1 to 15"):
            check(memoryview(data), Place(slot=slot))
    with pytest.raises(errors.Foreign, match="its header alone"):
        check(memoryview(data)[:100], Place(slot=1))
    with pytest.raises(errors.Corrupt, match="cut short"):
        check(memoryview(data)[:8192], Place(slot=1))
    os.close(fd)


@pytest.mark.parametrize(
    "answer", [b"", b"\0" * 23, struct.pack("<QQQ", 1 << 40, 1, 64), struct.pack("<QQQ", 0, 9, 1 << 50)]
)
def test_an_answer_that_cannot_be_is_told(
    served: Served, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    with served.connect() as pool:
        monkeypatch.setattr(pool._calls, "ask_twice", lambda opcode, data: answer)
        with pytest.raises((errors.Corrupt, errors.Stale)):
            pool.allocate(64)
