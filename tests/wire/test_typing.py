"""Declarations are typed: mypy accepts right names and types, and rejects wrong ones."""

import sys

import pytest

api = pytest.importorskip("mypy.api")


@pytest.fixture(autouse=True)
def recursion_limit():
    """mypy raises it for the whole process, and other tests count on it."""
    before = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(before)


DECLARED = """
from enum import IntEnum
from uuid import UUID
from softcxl.wire import (RO, RW, Block, Record, Register, RegisterFile, at, bit, bits, counted, nested, on_read,
    on_write, reserved, tail, u8, u16, uuid, word)

class Media(IntEnum):
    READY = 1

class Status(Register, width=32):
    fatal = bit(0, RO, "reset to recover")
    media = bits(3, 2, RO, Media, "the media")
    depth = bits(15, 8, RW, "entries")

class Table(Block):
    status = at(0x00, Status)

class Point(Record, size=3):
    x: int = u8("in millimetres")
    media: Media = u8(Media)
    _reserved: None = reserved(1)

class Drawing(Record, size=24):
    ident: UUID = uuid()
    origin: Point = nested(Point)
    flags: Status = word(Status)
    count: int = u8()
    points: list[Point] = counted(Point, "count")
    rest: bytes = tail()

file = RegisterFile(0x100)
table = file.place(0, Table)
status = Status(3)
point = Point(x=1)
drawing = Drawing(points=[point])
"""

RIGHT = [
    "a: bool = status.fatal",
    "b: Media = status.media",
    "c: int = status.depth",
    "status.media = Media.READY",
    "table.status.depth = 5",
    "d: Status = table.status",
    "e: int = int(status) | 3",
    "f: Point = Point.unpack(b'')",
    "g: Point = Point(x=1, media=Media.READY)",
    "h: bytes = point.pack()",
    "i: UUID = drawing.ident",
    "j: Media = drawing.points[0].media",
    "k: bool = drawing.flags.fatal",
    "l: int = Table.status.depth.mask",
    "m: bytes = file.read(0, 4)",
    "n: Point = point.replace(x=2)",
    "o: Status = Status.make(depth=4)",
    """
class Device:
    @on_write(Table.status.depth)
    def deeper(self, old: int, new: int) -> None: ...
    @on_read(Table.status)
    def refresh(self) -> None: ...
file.place(0x10, Table, hooks=Device())
""",
]

WRONG = [
    ("status.fatall", "attr-defined"),
    ("status.fatall = True", "attr-defined"),
    ("status.fatal = 'yes'", "assignment"),
    ("status.media = 1", "assignment"),
    ("status.depth = None", "assignment"),
    ("p: str = status.depth", "assignment"),
    ("table.statuss.depth = 1", "attr-defined"),
    ("q: int = table.status.media.name", "assignment"),
    ("Table.status.deep", "attr-defined"),
    ("point.y", "attr-defined"),
    ("point.x = 'one'", "assignment"),
    ("Point(y=1)", "call-arg"),
    ("Point(x='one')", "arg-type"),
    ("Point(media=1)", "arg-type"),
    ("Point(1)", "call-arg"),
    ("Point(_reserved=None)", "call-arg"),
    ("Drawing(points=[1])", "list-item"),
    ("drawing.points[0].z", "attr-defined"),
    ("r: Drawing = Point.unpack(b'')", "assignment"),
    ("bits(1, 0, RW, int)", "type-var"),
    ("file.write(0, 5)", "arg-type"),
]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    cache = tmp_path_factory.mktemp("mypy")

    def run(lines: list[str]) -> str:
        source = cache / "snippet.py"
        source.write_text(DECLARED + "\n".join(lines) + "\n")
        output, errors, _ = api.run(
            [
                "--strict",
                "--no-error-summary",
                "--config-file=",
                f"--cache-dir={cache / 'cache'}",
                str(source),
            ]
        )
        assert not errors
        return str(output)

    return run


def test_what_is_right_is_accepted(check):
    assert check(RIGHT) == ""


def test_what_is_wrong_is_rejected(check):
    first = DECLARED.count("\n") + 1
    lines = check([line for line, _ in WRONG]).splitlines()
    found: dict[int, set[str]] = {}
    for line in lines:
        if ": error: " in line:
            found.setdefault(int(line.split(":")[1]) - first, set()).add(line.rsplit("[", 1)[1].rstrip("]"))
    told = {line: found.get(number, set()) for number, (line, _) in enumerate(WRONG)}
    assert {line: code in told[line] for line, code in WRONG} == {line: True for line, _ in WRONG}, told
