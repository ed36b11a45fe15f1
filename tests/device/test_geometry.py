"""Where lines rest: every address has one place, and every place one address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.device.geometry import Geometry, Place, Scope

GIB = 1 << 30


def test_by_hand():
    """256 MiB: 2 channels x 2 sub-channels x 2 ranks x 8 bank groups x 4 banks x rows of 4 KiB."""
    geometry = Geometry.of(256 << 20)
    assert (geometry.row_lines, geometry.rows) == (64, 256)
    assert geometry.place(0) == Place()
    assert geometry.place(64) == Place(channel=1)
    assert geometry.place(128 + 63) == Place(sub_channel=1)
    assert geometry.place(256) == Place(column=16)
    assert geometry.place(16 << 10) == Place(bank_group=1)
    assert geometry.place(128 << 10) == Place(bank=1)
    assert geometry.place(512 << 10) == Place(rank=1)
    assert geometry.place(1 << 20) == Place(row=1)
    assert geometry.place((256 << 20) - 64) == Place(1, 1, 7, 3, 255, 1008, 1)


@pytest.mark.parametrize("capacity", [256 << 20, 3 * GIB, 1 << 40, 1 << 47, 1 << 52])
def test_there_and_back(capacity):
    geometry = Geometry.of(capacity)

    @given(st.integers(0, capacity // 64 - 1))
    def check(line):
        place = geometry.place(64 * line)
        assert geometry.dpa(place) == 64 * line
        assert geometry.holds(place)
        # what an event record's fields can tell
        assert max(place.channel, place.rank, place.bank_group, place.bank) < 256
        assert place.row < 1 << 24
        assert place.column < 1 << 16

    check()


def test_what_is_not_there():
    geometry = Geometry.of(768 << 20)
    for wrong in (
        {"channel": 2},
        {"rank": 2},
        {"bank_group": 8},
        {"bank": 4},
        {"row": 768},
        {"column": 1024},
        {"sub_channel": 2},
    ):
        assert not geometry.holds(Place(**wrong)), wrong


def test_scopes_hold_one_another():
    geometry = Geometry.of(256 << 20)
    one, other = geometry.place(0x123400), geometry.place(0x123500)  # the next line of the row
    assert one.within(Scope.CACHELINE) != other.within(Scope.CACHELINE)
    assert [one.within(scope) == other.within(scope) for scope in (Scope.ROW, Scope.BANK, Scope.RANK)] == [
        True
    ] * 3
