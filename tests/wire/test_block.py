"""Blocks: registers at their offsets, and live views of them."""

import pytest

from softcxl.wire import RO, RW, Block, DeclarationError, Register, at, bit, bits


class Capabilities(Register, width=32):
    """What it can do."""

    size = bits(4, 0, RO, "2^n bytes", reset=11)


class Control(Register, width=32):
    """What it is told."""

    doorbell = bit(0, RW, "rings")


class Command(Register, width=64):
    """What it runs."""

    opcode = bits(15, 0, RW)
    length = bits(36, 16, RW)


class Mailbox(Block, spec="CXL 3.1 §8.2.8.4"):
    """A mailbox."""

    command = at(0x08, Command)
    capabilities = at(0x00, Capabilities)
    control = at(0x04, Control, "the doorbell")


def test_the_layout_is_in_order_of_offsets():
    layout = Mailbox.__layout__
    assert [(one.name, one.offset) for one in layout.registers] == [
        ("capabilities", 0),
        ("control", 4),
        ("command", 8),
    ]
    assert (layout.name, layout.spec, layout.doc, layout.size) == (
        "Mailbox",
        "CXL 3.1 §8.2.8.4",
        "A mailbox.",
        16,
    )


def test_a_block_is_a_live_view():
    data = bytearray(32)
    mailbox = Mailbox(data, 8)
    mailbox.command.opcode = 0x4000
    mailbox.command.length = 0x43
    mailbox.control.doorbell = True
    assert data == bytes(8) + bytes.fromhex("00000000 01000000 0040430000000000") + bytes(8)
    data[8] = 3
    assert mailbox.capabilities.size == 3
    assert mailbox.base == 8
    assert bytes(mailbox) == bytes(data[8:24])
    assert repr(mailbox) == "<Mailbox at 0x8>"


def test_a_blank_block_has_its_reset_values():
    assert bytes(Mailbox.blank()) == b"\x0b" + bytes(15)


def test_a_register_on_the_class_is_its_type_and_knows_its_place():
    assert issubclass(Mailbox.control, Control)
    assert (Mailbox.control.__layout__.block, Mailbox.control.__layout__.offset) == (Mailbox, 4)
    assert Control.__layout__.block is None
    assert isinstance(Mailbox.blank().control, Control)
    assert Mailbox.blank().control == Control(0)


@pytest.mark.parametrize("name", ["control", "contrl"])
def test_registers_are_not_replaced_by_accident(name):
    mailbox = Mailbox.blank()
    with pytest.raises(AttributeError, match=f"Mailbox.{name}: assign to a register's field"):
        setattr(mailbox, name, 1)
    mailbox.control.assign(1)
    assert mailbox.control.doorbell is True


def test_a_block_that_extends_another():
    class Bigger(Mailbox, size=0x20):
        status = at(0x10, Control)

    assert [one.name for one in Bigger.__layout__.registers] == [
        "capabilities",
        "control",
        "command",
        "status",
    ]
    assert (Bigger.__layout__.size, Mailbox.__layout__.size) == (0x20, 0x10)


def test_overlaps_sizes_and_names():
    with pytest.raises(DeclarationError, match=r"Bad\.b at 0x7 overlaps the register before it"):

        class Bad(Block):
            a = at(0, Command)
            b = at(7, Control)

    with pytest.raises(DeclarationError, match="Small: size 0x4 is less than its registers' 0x8"):

        class Small(Block, size=4):
            a = at(0, Command)

    with pytest.raises(DeclarationError, match="Control at -4: an offset is not negative"):
        at(-4, Control)


@pytest.mark.parametrize("name", ["base", "blank", "_hidden"])
def test_names_that_are_taken(name):
    with pytest.raises(DeclarationError, match=f"Bad.{name}"):
        type("Bad", (Block,), {name: at(0, Control)})
