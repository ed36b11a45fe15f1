"""Records: every item kind against bytes written by hand; errors for bytes and values that do not fit."""

from enum import IntEnum
from functools import partial
from uuid import UUID

import pytest

from softcxl.wire import (
    RO,
    RW,
    DeclarationError,
    LayoutError,
    RangeError,
    Record,
    Register,
    ValueUnknown,
    WireError,
    ascii,  # noqa: A004
    bit,
    bits,
    counted,
    i8,
    i16,
    i32,
    nested,
    raw,
    reserved,
    tail,
    u8,
    u16,
    u24,
    u32,
    u64,
    uuid,
    word,
)


class Colour(IntEnum):
    RED = 0
    GREEN = 1
    BLUE = 0x10


class Side(IntEnum):
    LEFT = 1
    RIGHT = 2


class Flags(Register, width=16):
    ready = bit(0, RO)
    depth = bits(7, 4, RW)
    colour = bits(15, 8, RW, Colour)


class Odd(Register, width=24):
    low = bits(7, 0, RW)
    high = bits(23, 16, RW)


class Numbers(Record, size=0x1D, spec="none"):
    """Every integer."""

    a: int = u8("one byte")
    b: int = u16()
    c: int = u24()
    d: int = u32()
    e: int = u64()
    f: int = i8()
    g: int = i16()
    h: int = i32(default=-1)
    i: int = u32(default=7)


NUMBERS = bytes.fromhex("01 0302 060504 0a090807 1211100f0e0d0c0b ff feff fdffffff 08070605")


def test_integers_are_little_endian_and_in_order():
    record = Numbers(
        a=1, b=0x203, c=0x40506, d=0x708090A, e=0x0B0C0D0E0F101112, f=-1, g=-2, h=-3, i=0x05060708
    )
    assert record.pack() == NUMBERS
    assert Numbers.unpack(NUMBERS) == record


def test_defaults_are_zero_or_those_declared():
    assert Numbers().pack() == bytes(21) + b"\xff\xff\xff\xff" + b"\x07\0\0\0"


class Text(Record, size=4 + 16 + 16 + 3 + 2):
    """Items that are not numbers."""

    name: str = ascii(4)
    rfc: UUID = uuid()
    mixed: UUID = uuid(little=True)
    blob: bytes = raw(3)
    _reserved: None = reserved(2)


IDENT = UUID("00112233-4455-6677-8899-aabbccddeeff")
TEXT = bytes.fromhex("61620000 00112233445566778899aabbccddeeff 33221100554477668899aabbccddeeff 010200 0000")


def test_text_identifiers_bytes_and_reserved_space():
    record = Text(name="ab", rfc=IDENT, mixed=IDENT, blob=b"\1\2")
    assert record.pack() == TEXT
    assert Text.unpack(TEXT) == Text(name="ab", rfc=IDENT, mixed=IDENT, blob=b"\1\2\0")


def test_reserved_bytes_are_ignored_and_are_no_argument():
    assert Text.unpack(TEXT[:-2] + b"\xaa\xbb").pack() == TEXT
    with pytest.raises(TypeError):
        Text(_reserved=b"\0\0")  # type: ignore[call-arg]


def test_text_ends_at_the_first_nul():
    assert Text.unpack(b"a\0zz" + TEXT[4:]).name == "a"
    assert Text.unpack(b"full" + TEXT[4:]).name == "full"


class Painted(Record, size=5):
    """Items with types of their own."""

    colour: Colour = u8(Colour, "what it looks like")
    side: Side = u16(Side)
    flags: Flags = word(Flags)


def test_enums_and_words():
    record = Painted(colour=Colour.BLUE, side=Side.RIGHT, flags=Flags.make(ready=True, depth=5))
    assert record.pack() == bytes.fromhex("10 0200 5100")
    back = Painted.unpack(bytes.fromhex("10 0100 5110"))
    assert back.colour is Colour.BLUE
    assert back.side is Side.LEFT
    assert (back.flags.ready, back.flags.depth, back.flags.colour) == (True, 5, Colour.BLUE)
    back.flags.depth = 0xF
    assert back.pack() == bytes.fromhex("10 0100 f110")


def test_an_enum_without_zero_has_no_default():
    with pytest.raises(TypeError, match="side"):
        Painted()
    assert Painted(side=Side.LEFT).colour is Colour.RED


def test_a_word_is_a_copy_and_takes_numbers():
    flags = Flags(0x11)
    record = Painted(side=Side.LEFT, flags=flags)
    flags.depth = 9
    assert record.flags == 0x11
    number = Painted(side=Side.LEFT, flags=0x0100)  # type: ignore[arg-type]
    assert number.flags.colour is Colour.GREEN


def test_words_of_odd_width_and_default():
    class Wide(Record, size=4):
        a: Odd = word(Odd, default=0x010002)
        b: int = u8()

    assert Wide(b=9).pack() == bytes.fromhex("020001 09")
    assert Wide.unpack(bytes.fromhex("aa00bb 01")).a.high == 0xBB
    record = Wide()
    record.a = 1 << 24  # type: ignore[assignment]
    with pytest.raises(RangeError, match=r"Wide\.a: 0x1000000 does not fit 24 bits"):
        record.pack()


class Point(Record, size=3):
    x: int = u8()
    y: int = u16()


class Line(Record, size=8):
    start: Point = nested(Point, "where it starts")
    end: Point = nested(Point)
    colour: Colour = u16(Colour)


class Drawing(Record, size=9):
    line: Line = nested(Line)
    last: int = u8()


def test_nested_records_at_any_depth():
    drawing = Drawing(line=Line(start=Point(x=1, y=2), end=Point(x=3, y=0x405), colour=Colour.GREEN), last=9)
    data = bytes.fromhex("01 0200 03 0504 0100 09")
    assert drawing.pack() == data
    assert Drawing.unpack(data) == drawing
    assert Drawing().line.end.y == 0


def test_nested_errors_name_the_path():
    drawing = Drawing()
    drawing.line.end.y = 0x10000
    with pytest.raises(RangeError, match=r"Point\.y: 65536 does not fit 16 bits \(0 to 0xffff\)"):
        drawing.pack()
    with pytest.raises(
        LayoutError, match=r"Drawing\.line\.colour: 0x7 is none of 0x0 RED, 0x1 GREEN, 0x10 BLUE"
    ):
        Drawing.unpack(bytes.fromhex("01 0200 03 0504 0700 09"))


def test_defaults_are_not_shared():
    class Holder(Record, size=3):
        point: Point = nested(Point, default=Point(x=7))

    first, second = Holder(), Holder()
    first.point.x = 1
    assert (second.point.x, Holder().pack()) == (7, bytes.fromhex("07 0000"))


class Listing(Record, size=3):
    """Points, then numbers, then whatever follows."""

    kind: int = u8()
    count: int = u16("how many points")
    points: list[Point] = counted(Point, "count")
    rest: bytes = tail("anything")


def test_counted_and_tail():
    listing = Listing(kind=5, points=[Point(x=1, y=2), Point(x=3, y=4)], rest=b"xyz")
    data = bytes.fromhex("05 0200 01 0200 03 0400") + b"xyz"
    assert listing.pack() == data
    assert Listing.unpack(data) == listing
    assert listing.count == 2
    assert Listing(kind=5).pack() == bytes.fromhex("05 0000")


def test_the_count_follows_the_list():
    listing = Listing()
    listing.points.append(Point(x=9))
    assert listing.pack() == bytes.fromhex("00 0100 09 0000")


def test_lists_of_integers():
    class Ports(Record, size=2):
        count: int = u8()
        low: list[int] = counted(u16, "count")
        flag: int = u8()
        rest: list[int] = tail(u24)

    ports = Ports(low=[1, 0x203], flag=4, rest=[0x050607])
    data = bytes.fromhex("02 0100 0302 04 070605")
    assert ports.pack() == data
    assert Ports.unpack(data) == ports
    with pytest.raises(LayoutError, match=r"Ports\.rest: 4 bytes are no whole number of 3-byte items"):
        Ports.unpack(data + b"\0")


def test_lists_of_signed_numbers_and_of_enum_members():
    class Mixed(Record, size=1):
        count: int = u8()
        deltas: list[int] = counted(i16, "count")
        colours: list[Colour] = tail(partial(u8, Colour))

    mixed = Mixed(deltas=[-1, 2], colours=[Colour.BLUE, Colour.RED])
    data = bytes.fromhex("02 ffff 0200 10 00")
    assert mixed.pack() == data
    back = Mixed.unpack(data)
    assert back == mixed
    assert back.colours[0] is Colour.BLUE
    with pytest.raises(LayoutError, match=r"Mixed\.colours: 0x5 is none of"):
        Mixed.unpack(data + b"\5")
    with pytest.raises(RangeError, match=r"Mixed\.deltas: 32768 does not fit 16 bits \(-32768 to 0x7fff\)"):
        Mixed(deltas=[32768]).pack()


def test_lists_of_records_that_vary():
    class Chapter(Record, size=1):
        length: int = u8()
        letters: list[int] = counted(u8, "length")

    class Book(Record, size=2):
        count: int = u8()
        chapters: list[Chapter] = counted(Chapter, "count")
        foreword: Chapter = nested(Chapter)
        appendix: list[Chapter] = tail(Chapter)

    data = bytes.fromhex("02 01aa 00 02bbcc 01dd 00")
    book = Book.unpack(data)
    assert [one.letters for one in book.chapters] == [[0xAA], []]
    assert book.foreword.letters == [0xBB, 0xCC]
    assert [one.letters for one in book.appendix] == [[0xDD], []]
    assert book.pack() == data
    with pytest.raises(LayoutError, match="Book: 1 bytes given, at least 2 needed"):
        Book.unpack(b"\0")
    with pytest.raises(
        LayoutError, match=r"Chapter\.letters: 2 items of 1 bytes do not fit the 1 bytes left"
    ):
        Book.unpack(bytes.fromhex("01 02 aa"))


def test_a_hostile_count_is_refused_before_anything_is_built():
    class Big(Record, size=4):
        count: int = u32()
        points: list[Point] = counted(Point, "count")

    with pytest.raises(
        LayoutError, match=r"Big\.points: 4294967295 items of 3 bytes do not fit the 3 bytes left"
    ):
        Big.unpack(b"\xff\xff\xff\xff\0\0\0")


def test_lists_under_one_count_agree():
    class Pairs(Record, size=1):
        count: int = u8()
        left: list[int] = counted(u8, "count")
        right: list[int] = counted(u8, "count")

    assert Pairs(left=[1, 2], right=[3, 4]).pack() == bytes.fromhex("02 0102 0304")
    with pytest.raises(RangeError, match=r"Pairs\.count: counts lists of different lengths, 2, 1"):
        Pairs(left=[1, 2], right=[3]).pack()


def test_a_list_too_long_for_its_count():
    class Few(Record, size=1):
        count: int = u8()
        items: list[int] = counted(u8, "count")

    with pytest.raises(RangeError, match=r"Few\.count: 256 does not fit 8 bits"):
        Few(items=[0] * 256).pack()


def test_names_of_the_methods_own_variables_are_free():
    """`offset`, `data` and the like are what the standards call their items."""

    class Log(Record, size=18):
        offset: int = u32()
        data: bytes = raw(2)
        text: str = ascii(2)
        cls: int = u8()
        len: int = u8()
        fit: int = u8()
        small: int = u24()
        count: int = u8()
        many: object = counted(u8, "count")
        struct: int = u8()
        value: int = u8()
        size: int = u8()

    data = bytes.fromhex("01000000 0203 6162 04 05 06 070809 02 aabb 0f 10 11")
    log = Log.unpack(data)
    assert (log.offset, log.data, log.text) == (1, b"\2\3", "ab")
    assert log.many == [0xAA, 0xBB]
    assert (log.struct, log.value, log.size) == (0x0F, 0x10, 0x11)
    assert log.pack() == data
    assert Log.parse(b"zz" + data, 2)[1] == 2 + len(data)


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NUMBERS[:-1], "Numbers: 28 bytes given, at least 29 needed"),
        (b"", "Numbers: 0 bytes given, at least 29 needed"),
        (NUMBERS + b"\0", "Numbers: 30 bytes given, exactly 29 needed"),
    ],
)
def test_wrong_sizes(data, message):
    with pytest.raises(LayoutError) as caught:
        Numbers.unpack(data)
    assert str(caught.value) == message
    assert isinstance(caught.value, WireError)
    assert not isinstance(caught.value, ValueUnknown)
    assert isinstance(caught.value, ValueError)


def test_unpack_from_tolerates_what_follows():
    assert Numbers.unpack_from(b"??" + NUMBERS + b"!!", 2) == Numbers.unpack(NUMBERS)
    record, end = Numbers.parse(NUMBERS + b"!!")
    assert (record.a, end) == (1, 29)
    with pytest.raises(LayoutError, match="Numbers: 28 bytes given, at least 29 needed"):
        Numbers.unpack_from(NUMBERS, 1)
    with pytest.raises(LayoutError, match="Numbers: 0 bytes given"):
        Numbers.unpack_from(NUMBERS, 1000)
    with pytest.raises(LayoutError, match="offset -29 is before the first byte"):
        Numbers.unpack_from(NUMBERS, -29)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_unpack(kind):
    assert Listing.unpack(kind(bytes.fromhex("05 0100 01 0200") + b"xyz")).rest == b"xyz"
    assert Text.unpack(kind(TEXT)).blob == b"\1\2\0"


def test_a_record_that_extends_another():
    class More(Point, size=4):
        z: int = u8()

    class Open(Point, size=3):
        rest: bytes = tail()

    assert More(x=1, y=2, z=3).pack() == bytes.fromhex("01 0200 03")
    assert Open.unpack(bytes.fromhex("01 0200 aabb")).rest == b"\xaa\xbb"
    assert Point.unpack(b"\1\2\0") == Point(x=1, y=2)


def test_a_record_of_nothing():
    class Empty(Record, size=0):
        pass

    assert Empty().pack() == b""
    assert Empty.unpack(b"") == Empty()
    with pytest.raises(LayoutError, match="Empty: 1 bytes given, exactly 0 needed"):
        Empty.unpack(b"\0")


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Numbers(a=256), "Numbers.a: 256 does not fit 8 bits (0 to 0xff)"),
        (Numbers(b=-1), "Numbers.b: -1 does not fit 16 bits (0 to 0xffff)"),
        (Numbers(c=1 << 24), "Numbers.c: 16777216 does not fit 24 bits (0 to 0xffffff)"),
        (Numbers(c=-1), "Numbers.c: -1 does not fit 24 bits (0 to 0xffffff)"),
        (Numbers(f=128), "Numbers.f: 128 does not fit 8 bits (-128 to 0x7f)"),
        (Numbers(d="x"), "Numbers.d: 'x' is no integer"),  # type: ignore[arg-type]
        (Text(name="12345"), "Text.name: 5 characters do not fit 4 bytes"),
        (Text(name="é"), "Text.name: 'é' is not ASCII"),
        (Text(blob=b"1234"), "Text.blob: 4 bytes do not fit 3"),
    ],
)
def test_values_that_do_not_fit(record, message):
    with pytest.raises(RangeError) as caught:
        record.pack()
    assert str(caught.value) == message


def test_bytes_that_mean_nothing():
    with pytest.raises(ValueUnknown) as caught:
        Painted.unpack(bytes.fromhex("00 0300 0000"))
    assert str(caught.value) == "Painted.side: 0x3 is none of 0x1 LEFT, 0x2 RIGHT"
    with pytest.raises(ValueUnknown, match=r"Text\.name: b'\\xff\\x00\\x00\\x00' is not ASCII text"):
        Text.unpack(b"\xff\0\0\0" + TEXT[4:])


def test_equality_copies_and_repr():
    listing = Listing(kind=1, points=[Point(x=1)], rest=b"z")
    other = listing.replace(kind=2)
    other.points[0].x = 9
    assert listing.points[0].x == 1
    assert listing != other
    assert listing == Listing(kind=1, points=[Point(x=1)], rest=b"z")
    assert Point() != object()
    assert repr(listing) == "Listing(kind=1, count=1, points=[Point(x=1, y=0)], rest=b'z')"
    with pytest.raises(TypeError):
        hash(listing)


# -- declarations ----------------------------------------------------------------------------------


def test_sizes_are_checked_at_import():
    with pytest.raises(DeclarationError, match="Wrong: the items add up to 0x3 bytes, not 0x4"):

        class Wrong(Record, size=4):
            a: int = u8()
            b: int = u16()


def test_what_cannot_be_declared():
    with pytest.raises(DeclarationError, match=r"A\.rest: a tail is the last item"):

        class A(Record):
            rest: bytes = tail()
            more: int = u8()

    with pytest.raises(DeclarationError, match=r"B\.items: its count 'count' is no earlier integer item"):

        class B(Record):
            items: list[int] = counted(u8, "count")
            count: int = u8()

    with pytest.raises(DeclarationError, match=r"C\.pack: that name is taken by Record itself"):

        class C(Record):
            pack: int = u8()  # type: ignore[assignment]

    with pytest.raises(DeclarationError, match=r"D\._hidden: only reserved items begin with an underscore"):

        class D(Record):
            _hidden: int = u8()

    with pytest.raises(DeclarationError, match=r"E\.bare: needs a type"):

        class E(Record):
            typed: int = u8()
            bare = u8()

    with pytest.raises(DeclarationError, match="a list holds records or integers"):

        class F(Record):
            rest: list[str] = tail(partial(ascii, 4))

    with pytest.raises(DeclarationError, match="takes an IntEnum"):

        class G(Record):
            bad: int = u8(Flags)

    class Nothing(Record):
        rest: bytes = tail()

    with pytest.raises(DeclarationError, match=r"H\.items: a list of items that may take no byte"):

        class H(Record):
            items: list[Nothing] = tail(Nothing)

    with pytest.raises(DeclarationError, match=r"I\.x: declared twice"):

        class I(Point):  # noqa: E742
            x: int = u8()

    class Large(IntEnum):
        MUCH = 0x100

    with pytest.raises(DeclarationError, match=r"Large\.MUCH = 0x100 does not fit 1 bytes"):
        u8(Large)


def test_the_layout_tells_what_was_declared():
    layout = Numbers.__layout__
    assert (layout.name, layout.spec, layout.size, layout.fixed_size) == ("Numbers", "none", 29, 29)
    assert layout.doc == "Every integer."
    assert layout.fields[0].doc == "one byte"
    assert "def pack(self):" in layout.source
    assert (Listing.__layout__.size, Listing.__layout__.fixed_size) == (3, None)
