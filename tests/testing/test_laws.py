"""The kit that holds declarations to the access laws finds what is wrong, and says where."""

from types import ModuleType
from typing import Any

import pytest

from softcxl.testing import laws
from softcxl.testing.laws import LAWS, check_block, check_register, declared
from softcxl.wire import (
    RO,
    RW,
    RW1C,
    RWL,
    RWO,
    RWS,
    Block,
    Record,
    Register,
    RegisterFile,
    Reset,
    at,
    bit,
    bits,
)


class Mixed(Register, width=32):
    a = bits(7, 0, RW)
    b = bits(11, 8, RW1C)
    c = bits(19, 12, RWO)
    d = bits(23, 20, RWL)
    e = bit(31, RWS)


class Pair(Block):
    first = at(0, Mixed)
    second = at(6, Mixed)


class Nothing(Block):
    """Has no registers."""


def test_what_is_right_passes():
    check_register(Mixed)
    check_block(Pair)
    check_block(Nothing)


@pytest.mark.parametrize("law", ["RW", "RW1C", "RWO", "RWL", "RWS"])
def test_another_law_than_the_declared_one_is_found(law):
    wrong = LAWS | {law: lambda old, data, once, locked: 1 - data}
    checks: list[tuple[Any, type]] = [(check_register, Mixed), (check_block, Pair)]
    for check, cls in checks:
        with pytest.raises(AssertionError, match=rf"takes a write of .*\n.*\({law}\)"):
            check(cls, laws=wrong)


@pytest.mark.parametrize("law", ["RWO", "RWL"])
def test_a_law_that_forgets_to_narrow_is_found(law):
    with pytest.raises(AssertionError, match=rf"\({law}\)"):
        check_register(Mixed, laws=LAWS | {law: LAWS["RW"]})


def test_a_reset_that_forgets_sticky_bits_is_found(monkeypatch):
    monkeypatch.setattr(laws, "STICKY", frozenset())
    with pytest.raises(AssertionError, match=r"has a (FLR|HOT) reset:\n.*Mixed\.e \(RWS\)"):
        check_register(Mixed)


class Careless(RegisterFile):
    """Gets one thing wrong at a time."""

    fault = ""

    def write(self, offset, data):
        if self.fault == "widens" and offset % 4:
            offset, data = offset - 1, self.peek(offset - 1, 1) + bytes(data)
        super().write(offset, data)
        if self.fault == "spills" and len(data) == 8:
            self.poke(offset + 8, b"\1")

    def read(self, offset, size):
        data = super().read(offset, size)
        return data[::-1] if self.fault == "swaps" and size == 2 else data

    def reset(self, kind=Reset.COLD, keep=()):
        locked = dict(self._locked)
        super().reset(kind, keep)
        if self.fault == "stays locked":
            self._locked = locked


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("", None),
        ("widens", r"\(RW1C\)|\(RWO\)"),
        ("spills", "nothing is placed there"),
        ("swaps", "reads .* holds"),
        ("stays locked", r"\(RWL\)"),
    ],
)
def test_a_file_that_misbehaves_is_found(monkeypatch, fault, message):
    monkeypatch.setattr(laws, "RegisterFile", Careless)
    monkeypatch.setattr(Careless, "fault", fault)
    if message is None:
        check_register(Mixed)
        return
    with pytest.raises(AssertionError, match=message):
        check_register(Mixed, rounds=4)


def test_declared_walks_modules_and_leaves_out_what_they_import():
    module = ModuleType("made")

    class Local(Register, width=8):
        a = bit(0, RO)

    class Form(Record):
        pass

    Local.__module__ = Form.__module__ = "made"
    module.__dict__.update({"Local": Local, "Form": Form, "Mixed": Mixed, "number": 5})
    assert list(declared(module)) == [Local]
    assert list(declared(module, Register, Record)) == [Local, Form]
    assert list(declared("softcxl.wire")) == []
    errors = ["WireError", "DeclarationError", "RangeError", "LayoutError", "ValueUnknown"]
    assert [one.__name__ for one in declared("softcxl.wire", ValueError)] == errors
