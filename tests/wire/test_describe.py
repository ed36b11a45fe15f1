"""Declarations as Markdown, values as JSON: compared with text written by hand."""

import json
from enum import IntEnum
from uuid import UUID

import pytest

from softcxl.wire import (
    RO,
    RW,
    Block,
    Record,
    Register,
    ascii,  # noqa: A004
    at,
    bit,
    bits,
    counted,
    describe,
    nested,
    raw,
    reserved,
    tail,
    to_plain,
    u8,
    u16,
    uuid,
    word,
)


class Media(IntEnum):
    NOT_READY = 0
    READY = 1


class Status(Register, width=32, spec="CXL 3.1 §8.2.8.5.1"):
    """Whether it
    can be used.

    More about it.
    """

    fatal = bit(0, RO, "yes | no")
    media = bits(3, 2, RO, Media, "the media")
    depth = bits(31, 16, RW, reset=0xABC)


class Table(Block, spec="CXL 3.1 §8.2.8"):
    """Two of them."""

    status = at(0x00, Status)
    other = at(0x10, Status, "the second")


class Point(Record, size=2):
    """A point."""

    x: int = u8("in millimetres")
    media: Media = u8(Media, "of paper")


class Drawing(Record, spec="none"):
    """A drawing."""

    name: str = ascii(4, "what it is called")
    _reserved: None = reserved(2)
    flags: Status = word(Status)
    origin: Point = nested(Point)
    count: int = u16()
    points: list[Point] = counted(Point, "count", "all of them")
    rest: bytes = tail()


def test_a_register_as_a_table():
    assert describe(Status) == (
        "**Status** (CXL 3.1 §8.2.8.5.1)\n"
        "\n"
        "Whether it can be used.\n"
        "\n"
        "| Bits | Field | Access | Reset | Meaning |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| 31:16 | `depth` | RW | ABCh |  |\n"
        "| 3:2 | `media` | RO | 0h | the media: 0h not_ready; 1h ready |\n"
        "| 0 | `fatal` | RO | 0h | yes \\| no |\n"
    )


def test_a_block_as_a_table():
    assert describe(Table).splitlines()[4:] == [
        "| Offset | Register | Width | Meaning |",
        "| --- | --- | --- | --- |",
        "| 00h | `status` (Status) | 32 | Whether it can be used. |",
        "| 10h | `other` (Status) | 32 | the second |",
    ]


def test_a_record_as_a_table():
    assert describe(Drawing).splitlines() == [
        "**Drawing** (none)",
        "",
        "A drawing.",
        "",
        "| Offset | Item | Size | Meaning |",
        "| --- | --- | --- | --- |",
        "| 00h | `name` | 4 | what it is called |",
        "| 04h | reserved | 2 |  |",
        "| 06h | `flags` (Status) | 4 |  |",
        "| 0Ah | `origin` (Point) | 2 |  |",
        "| 0Ch | `count` | 2 |  |",
        "| 0Eh | `points` (Point) | varies | all of them |",
        "| … | `rest` | varies |  |",
    ]
    assert describe(Point).splitlines()[-1] == "| 01h | `media` | 1 | of paper: 0h not_ready; 1h ready |"


def test_plain_values_are_ready_for_json():
    drawing = Drawing(
        name="ab", flags=Status.make(fatal=True, media=Media.READY), points=[Point(x=3)], rest=b"\1\2"
    )
    plain = {
        "name": "ab",
        "flags": {"fatal": True, "media": "ready", "depth": 0xABC},
        "origin": {"x": 0, "media": "not_ready"},
        "count": 1,
        "points": [{"x": 3, "media": "not_ready"}],
        "rest": "0102",
    }
    assert to_plain(drawing) == plain
    assert json.loads(json.dumps(to_plain(drawing))) == plain
    table = to_plain(Table.blank())
    assert table == {
        name: {"fatal": False, "media": "not_ready", "depth": 0xABC} for name in ("status", "other")
    }


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Media.READY, "ready"),
        (b"\xab", "ab"),
        (memoryview(b"\xab"), "ab"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ((1, "x", None), [1, "x", None]),
        (True, True),
        (Status(0xC), {"fatal": False, "media": 3, "depth": 0}),
    ],
)
def test_plain_values_of_each_kind(value, plain):
    assert to_plain(value) == plain


def test_uuids_and_bytes_in_records():
    class Tag(Record, size=18):
        ident: UUID = uuid()
        blob: bytes = raw(2)

    assert to_plain(Tag(ident=UUID(int=2), blob=b"\1\2")) == {
        "ident": "00000000-0000-0000-0000-000000000002",
        "blob": "0102",
    }
