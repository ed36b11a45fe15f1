"""The access laws against their one-line forms, on registers made up by hypothesis."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.testing.laws import LAWS, STICKY, check_block, check_register
from softcxl.wire import Block, Law, Register, RegisterFile, at, bits
from softcxl.wire.law import LAWS as DECLARED
from softcxl.wire.law import Write

METACLASS: Any = type(Register)
BYTE = st.integers(0, 0xFF)


def made_of(*laws: tuple[Law, int], reset: int = 0) -> type[Register]:
    """A register of fields of the given laws and widths, from bit 0 up, filled up to whole bytes."""
    fields, position = {}, 0
    for number, (law, width) in enumerate(laws):
        fields[f"f{number}"] = bits(position + width - 1, position, law, reset=reset & ((1 << width) - 1))
        position += width
    made: type[Register] = METACLASS("Made", (Register,), fields, width=max(8, -(-position // 8) * 8))
    return made


def test_every_law_has_its_line():
    assert {law.name for law in DECLARED} == set(LAWS)
    assert {law.name for law in DECLARED if law.sticky} == STICKY
    assert [repr(law) for law in DECLARED] == [law.name for law in DECLARED]


@pytest.mark.parametrize("law", DECLARED, ids=repr)
@given(old=BYTE, first=BYTE, second=BYTE, locked=st.booleans())
def test_two_writes(law, old, first, second, locked):
    block: Any = type("One", (Block,), {"register": at(0, made_of((law, 8)))})
    file = RegisterFile(1)
    register = file.place(0, block).register
    register.assign(old)
    if locked:
        file.lock(register)
    expected = old
    for once, data in enumerate((first, second)):
        expected = sum(
            LAWS[law.name](expected >> n & 1, data >> n & 1, bool(once), locked) << n for n in range(8)
        )
        file.write(0, bytes([data]))
        assert file.read(0, 1)[0] == expected


FIELDS = st.lists(st.tuples(st.sampled_from(DECLARED), st.integers(1, 9)), max_size=12)


@given(fields=FIELDS, reset=st.integers(0, 0xFFF), seed=st.integers(0, 0xFFFF))
def test_any_register_at_any_access(fields, reset, seed):
    check_register(made_of(*fields, reset=reset), rounds=1, seed=seed)


@given(
    registers=st.lists(st.tuples(FIELDS, st.integers(0, 5)), min_size=1, max_size=5),
    seed=st.integers(0, 0xFFFF),
)
def test_any_block_at_any_access(registers, seed):
    placed, offset = {}, 0
    for number, (fields, gap) in enumerate(registers):
        register = made_of(*fields)
        placed[f"r{number}"] = at(offset + gap, register)
        offset += gap + register.__layout__.size
    check_block(type("Any", (Block,), placed), accesses=40, seed=seed)


def test_a_law_of_ones_own():
    toggle = Law("RW1T", Write.STORE, lockable=True, once=True)
    cls = made_of((toggle, 8))
    with pytest.raises(KeyError, match="no bitwise law is given for RW1T"):
        check_register(cls)
    check_register(cls, laws=LAWS | {"RW1T": lambda old, data, once, locked: old if once or locked else data})
