"""Register files: software's accesses under the laws, narrowing, resets, and the bytes below."""

import mmap

import pytest

from softcxl.wire import (
    RO,
    ROS,
    RW,
    RW1C,
    RW1CS,
    RW1S,
    RWL,
    RWLS,
    RWO,
    RWOS,
    RWS,
    Block,
    DeclarationError,
    HwInit,
    RangeError,
    Register,
    RegisterFile,
    Reset,
    RsvdP,
    RsvdZ,
    at,
    bits,
)


class Every(Register, width=64):
    """A nibble of each law."""

    ro = bits(3, 0, RO, reset=0x5)
    rw = bits(7, 4, RW, reset=0x5)
    w1c = bits(11, 8, RW1C, reset=0x5)
    w1s = bits(15, 12, RW1S, reset=0x5)
    once = bits(19, 16, RWO, reset=0x5)
    lockable = bits(23, 20, RWL, reset=0x5)
    strap = bits(27, 24, HwInit, reset=0x5)
    kept = bits(31, 28, RsvdP, reset=0x5)
    zero = bits(35, 32, RsvdZ)
    sticky = bits(39, 36, RWS, reset=0x5)
    sticky_ro = bits(43, 40, ROS, reset=0x5)
    sticky_w1c = bits(47, 44, RW1CS, reset=0x5)
    sticky_once = bits(51, 48, RWOS, reset=0x5)
    sticky_lockable = bits(55, 52, RWLS, reset=0x5)


class Word(Register, width=32):
    low = bits(15, 0, RW)
    high = bits(31, 16, RO)


class Table(Block):
    every = at(0x00, Every)
    first = at(0x08, Word)
    second = at(0x0C, Word)
    far = at(0x18, Word)


RESET = 0x0055555055555555


@pytest.fixture(params=["own", "mmap", "memoryview", "bytearray"])
def file(request):
    buffers = {
        "own": lambda: None,
        "mmap": lambda: mmap.mmap(-1, 4096),
        "memoryview": lambda: memoryview(bytearray(0x100)),
        "bytearray": lambda: bytearray(0x100),
    }
    return RegisterFile(0x100, buffers[request.param]())


@pytest.fixture
def table(file):
    return file.place(0x40, Table)


def value(file):
    return int.from_bytes(file.peek(0x40, 8), "little")


# -- laws ------------------------------------------------------------------------------------------


def test_ones_written_to_every_law(file, table):
    file.write(0x40, b"\xff" * 8)
    assert value(file) == 0x00FF05F055FFF0F5


def test_zeros_written_to_every_law(file, table):
    file.write(0x40, bytes(8))
    assert value(file) == 0x0000550055005505 | 0x0  # ro, w1c, w1s, strap, kept, sticky ro and w1c stay


def test_a_write_reaches_only_its_bytes(file, table):
    file.write(0x42, b"\xff\xff")
    assert value(file) == RESET | 0x00FF0000
    file.write(0x3F, b"\xff\0")
    assert value(file) == (RESET | 0x00FF0000) & ~0xF0
    assert file.peek(0x3F, 1) == b"\0"


def test_a_write_over_several_registers_and_a_gap(file, table):
    file.write(0x4A, b"\xff" * 0x10)
    assert file.peek(0x48, 0x18) == bytes.fromhex("00000000 ffff0000 00000000 00000000 ffff0000 00000000")


def test_a_half_of_a_wide_register(file, table):
    file.write(0x44, b"\xff\xff\xff\xff")
    assert value(file) == 0x00FF05F055555555
    file.write(0x40, b"\0\0\0\0")
    assert value(file) == 0x00FF05F055005505


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8, 16, 31])
def test_reads_return_what_is_there(file, table, size):
    expected = (RESET.to_bytes(8, "little") + bytes(0x18))[:size]
    assert file.read(0x40, size) == expected
    assert isinstance(file.read(0x40, size), bytes)
    assert file.peek(0x40, size) == expected


def test_where_nothing_is_placed_reads_as_zero(file, table):
    file.write(0x10, b"\xff" * 8)
    assert file.read(0x10, 8) == bytes(8)


# -- edges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 1), (-4, 4), (0x100, 1), (0xFD, 4), (0, 0x101), (-1, 0), (0x101, 0)]
)
def test_accesses_outside(file, offset, size):
    with pytest.raises(RangeError, match=f"write of {size} bytes at {offset:#x} lies outside 0x100 bytes"):
        file.write(offset, bytes(size))
    for access in (file.read, file.peek):
        with pytest.raises(RangeError, match=f"of {size} bytes at {offset:#x} lies outside 0x100 bytes"):
            access(offset, size)
    with pytest.raises(RangeError, match="poke of"):
        file.poke(offset, bytes(size))


def test_a_read_of_a_negative_size(file):
    with pytest.raises(RangeError):
        file.read(4, -1)
    with pytest.raises(RangeError):
        file.peek(4, -1)


def test_a_write_of_nothing(file, table):
    file.write(0x44, b"")
    file.write(0x100, b"")
    assert value(file) == RESET
    file.write(0x42, b"\xff")
    assert value(file) == RESET | 0xFF0000  # the empty write did not spend the RWO field's one write


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_are_written(file, table, kind):
    file.write(0x48, kind(b"\1\2\3\4"))
    file.write(0x58, kind(b"\5\6\7"))
    assert file.peek(0x48, 4) == b"\1\2\0\0"
    assert file.peek(0x58, 4) == b"\5\6\0\0"


def test_hostile_accesses_leave_a_bounded_memory():
    file = RegisterFile(0x10000)
    file.ram(0, 0x10000)
    for offset in range(0x3000):
        file.write(offset, b"\1")
    for offset in range(100):
        file.write(offset, bytes(0x8000))
    kept = sum(one.rw.bit_length() for one in file._plans.values()) // 8
    assert len(file._plans) <= 8192
    assert kept <= 8192 * 64


def test_poke_meets_no_law(file, table):
    file.poke(0x40, b"\0\1")
    assert value(file) == RESET & ~0xFFFF | 0x0100
    file.poke(0x10, b"\xaa")
    assert file.read(0x10, 1) == b"\xaa"


# -- memory ----------------------------------------------------------------------------------------


def test_ram_is_read_back(file, table):
    file.ram(0x80, 0x10)
    file.write(0x7E, bytes(range(1, 7)))
    assert file.read(0x7E, 6) == bytes.fromhex("0000 03040506")
    file.write(0x8E, b"\xff" * 4)
    assert file.read(0x8E, 4) == b"\xff\xff\0\0"
    file.reset(Reset.COLD)
    assert file.read(0x80, 2) == b"\3\4"


def test_ram_beside_registers_in_one_access(file, table):
    file.ram(0x50, 8)
    file.write(0x4C, b"\xff" * 12)
    assert file.read(0x4C, 12) == b"\xff\xff\0\0" + b"\xff" * 8


def test_places_do_not_overlap(file, table):
    file.ram(0x80, 0x10)
    with pytest.raises(DeclarationError, match="Table at 0x4c overlaps Word at 0x4c"):
        file.place(0x4C, Table)
    with pytest.raises(DeclarationError, match="Table at 0x3c overlaps Every at 0x40"):
        file.place(0x3C, Table)
    with pytest.raises(DeclarationError, match="Table at 0x7c overlaps memory at 0x80"):
        file.place(0x7C, Table)
    with pytest.raises(DeclarationError, match="memory at 0x46 overlaps Every at 0x40"):
        file.ram(0x46, 1)
    with pytest.raises(DeclarationError, match="memory at 0x8f overlaps memory at 0x80"):
        file.ram(0x8F, 4)
    with pytest.raises(DeclarationError, match=r"Table at 0xf0 \+ 0x1c does not fit 0x100 bytes"):
        file.place(0xF0, Table)
    with pytest.raises(DeclarationError, match="does not fit"):
        file.ram(0xFF, 2)
    with pytest.raises(DeclarationError, match="0 bytes of memory"):
        file.ram(0, 0)
    assert value(file) == RESET  # none of these left half a block behind
    file.write(0x3C, b"\xff" * 4)
    assert file.read(0x3C, 4) == bytes(4)


def test_buffers_that_cannot_hold_a_file():
    for buffer in (bytearray(15), b"\0" * 16, memoryview(bytearray(64))[::2]):
        with pytest.raises(DeclarationError, match="0x10"):
            RegisterFile(16, buffer)
    words = memoryview(bytearray(16)).cast("I")
    RegisterFile(16, words).poke(0, b"\1\2")
    assert words[0] == 0x0201


def test_the_bytes_are_shared():
    shared = mmap.mmap(-1, 0x1000)
    table = RegisterFile(0x100, shared).place(0x10, Table)
    table.first.low = 0xABCD
    assert shared[0x18:0x1A] == b"\xcd\xab"


# -- narrowing -------------------------------------------------------------------------------------


def test_once_takes_one_write_of_its_byte(file, table):
    file.write(0x42, b"\0")
    assert table.every.once == 0
    file.write(0x42, b"\xff")
    assert table.every.once == 0
    assert table.every.sticky_once == 5  # its byte was not written
    file.write(0x46, b"\xff")
    assert table.every.sticky_once == 0xF
    file.write(0x46, b"\0")
    assert table.every.sticky_once == 0xF


def test_the_device_still_sets_what_software_no_longer_can(file, table):
    file.write(0x42, b"\0")
    table.every.once = 9
    assert table.every.once == 9


def test_locked_fields_take_no_write(file, table):
    file.lock(table.every)
    file.write(0x40, b"\xff" * 8)
    assert (table.every.lockable, table.every.sticky_lockable, table.every.rw) == (5, 5, 0xF)
    file.unlock(table.every)
    file.write(0x40, b"\xff" * 8)
    assert (table.every.lockable, table.every.sticky_lockable) == (0xF, 0xF)
    assert table.every.once == 0xF


def test_unlocking_does_not_give_a_once_field_back(file, table):
    file.write(0x42, b"\0")
    file.lock(table)
    file.unlock(table)
    file.write(0x42, b"\xff")
    assert (table.every.once, table.every.lockable) == (0, 0xF)


def test_a_lock_is_for_its_own_register(file, table):
    other = file.place(0x80, Table)
    file.lock(other)
    file.write(0x40, b"\xff" * 8)
    file.write(0x80, b"\xff" * 8)
    assert (table.every.lockable, other.every.lockable) == (0xF, 5)
    file.lock(table.far)  # has no RWL field: nothing happens
    file.write(0x58, b"\1")
    assert table.far.low == 1


def test_what_is_not_placed_here_cannot_be_locked(file, table):
    with pytest.raises(RangeError, match="Every is not placed in this register file"):
        file.lock(Every())
    with pytest.raises(RangeError, match="Table is not placed"):
        file.unlock(RegisterFile(0x100).place(0x40, Table))


# -- resets ----------------------------------------------------------------------------------------

# Each nibble of `Every` as the device leaves it before the reset: all ones.
ONES = 0x00FFFFFFFFFFFFFF


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        (Reset.COLD, RESET),
        (Reset.HOT, 0x00FFFFF055555555),
        (Reset.FLR, 0x00FFFFF055555555),
    ],
)
def test_a_reset_returns_what_is_not_sticky(file, table, kind, after):
    table.every.assign(ONES)
    file.reset(kind)
    assert value(file) == after


def test_sealed_values_are_what_resets_return_to(file, table):
    table.every.strap = 0xA
    table.first.high = 0x1234
    file.seal()
    file.write(0x40, b"\xff" * 12)
    assert table.every.strap == 0xA
    table.every.strap = 0
    file.reset()
    assert (table.every.strap, table.first.high, table.first.low, table.every.rw) == (0xA, 0x1234, 0, 5)


@pytest.mark.parametrize(("kind", "again"), [(Reset.COLD, True), (Reset.HOT, False), (Reset.FLR, False)])
def test_a_reset_gives_once_and_locked_fields_back(file, table, kind, again):
    file.write(0x40, bytes(8))
    file.lock(table)
    file.reset(kind)
    file.write(0x40, b"\xff" * 8)
    assert (table.every.once, table.every.lockable) == (0xF, 0xF)
    # Sticky fields kept their zeros, and so did what narrows them.
    sticky = 0xF if again else 0
    assert (table.every.sticky_once, table.every.sticky_lockable) == (sticky, sticky)


def test_a_default_reset_is_cold(file, table):
    table.every.assign(ONES)
    file.reset()
    assert value(file) == RESET
