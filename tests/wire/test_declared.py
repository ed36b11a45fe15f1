"""Every register, block and record that the standards' tables declare keeps the laws of its declaration."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.testing.laws import check_block, check_register, declared
from softcxl.testing.strategies import records
from softcxl.wire import Block, Record, Register, describe

REGISTERS = list(declared("softcxl.spec", Register))
BLOCKS = list(declared("softcxl.spec", Block))
RECORDS = list(declared("softcxl.spec", Record))


def names(cls: type) -> str:
    return f"{cls.__module__.removeprefix('softcxl.spec.')}.{cls.__name__}"


@pytest.mark.parametrize("cls", REGISTERS, ids=names)
def test_registers_keep_their_laws(cls):
    check_register(cls, rounds=1)


@pytest.mark.parametrize("cls", BLOCKS, ids=names)
def test_blocks_keep_their_laws(cls):
    check_block(cls, accesses=150)


@pytest.mark.parametrize("cls", RECORDS, ids=names)
@settings(max_examples=15)
@given(data=st.data())
def test_records_unpack_what_they_pack(cls, data):
    record = data.draw(records(cls))
    packed = record.pack()
    layout = cls.__layout__
    assert len(packed) >= layout.size
    assert layout.fixed_size in (None, len(packed))
    assert cls.unpack(packed) == record


@pytest.mark.parametrize("cls", [*REGISTERS, *BLOCKS, *RECORDS], ids=names)
def test_declarations_name_their_clause_and_say_what_they_are(cls):
    assert cls.__layout__.spec, f"{names(cls)} has no spec="
    assert cls.__layout__.doc, f"{names(cls)} has no docstring"
    assert describe(cls).startswith(f"**{cls.__name__}** ({cls.__layout__.spec})")
