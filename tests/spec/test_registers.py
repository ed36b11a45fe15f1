"""Registers and blocks against Linux and QEMU: where they are, which bits their fields take, what resets leave."""

from __future__ import annotations

import pytest

from softcxl.spec.command.base import CommandEffects
from softcxl.spec.cxl.component import RasUncorrectableStatus
from softcxl.spec.cxl.device import Mailbox
from softcxl.spec.cxl.hdm import DECODER_COUNTS
from softcxl.spec.pci.extended import CorrectableErrorStatus, UncorrectableErrorStatus
from softcxl.wire import Block, Register, RegisterFile
from tests.spec.vectors import (
    Mask,
    Place,
    bridge,
    commands,
    cpmu,
    cxl,
    events,
    fm,
    link,
    mctp,
    pci,
    repair_payloads,
)

PLACES = pci.PLACES + bridge.PLACES + cxl.PLACES + link.PLACES + cpmu.PLACES


def _label(value: object) -> str | None:
    return value.name if isinstance(value, Place | Mask) else None


@pytest.mark.parametrize("place", PLACES, ids=_label)
def test_place(place: Place) -> None:
    layout = place.register.__layout__
    assert (layout.offset, layout.width) == (place.offset, place.width)


MASKS = (
    pci.MASKS
    + bridge.MASKS
    + cxl.MASKS
    + link.MASKS
    + events.MASKS
    + repair_payloads.MASKS
    + cpmu.MASKS
    + fm.MASKS
    + mctp.MASKS
)


@pytest.mark.parametrize("mask", MASKS, ids=_label)
def test_mask(mask: Mask) -> None:
    assert mask.field.mask == mask.mask


@pytest.mark.parametrize(
    ("name", "block", "size"), pci.SIZES + bridge.SIZES + cxl.SIZES + link.SIZES + cpmu.SIZES
)
def test_size(name: str, block: type[Block], size: int) -> None:
    assert block.__layout__.size == size


WRITES = pci.WRITES + bridge.WRITES + cxl.WRITES + link.WRITES + cpmu.WRITES


@pytest.mark.parametrize(("name", "register", "writable", "reset"), WRITES)
def test_what_software_can_store(
    name: str, register: type[Register], writable: int | None, reset: int
) -> None:
    assert register.__layout__.reset == reset
    if writable is not None:
        assert register.__layout__.rw == writable


@pytest.mark.parametrize(("name", "block", "header"), pci.HEADERS + bridge.HEADERS)
def test_capability_header(name: str, block: type[Block], header: int) -> None:
    size = 2 if header < 0x100 else 4
    assert int.from_bytes(bytes(block.blank())[:size], "little") == header


@pytest.mark.parametrize(("name", "block", "header1", "header2"), cxl.DVSEC_HEADERS)
def test_dvsec_header(name: str, block: type[Block], header1: int, header2: int) -> None:
    data = bytes(block.blank())
    assert data[:4] == bytes.fromhex("23000100")
    assert int.from_bytes(data[4:8], "little") == header1
    assert int.from_bytes(data[8:10], "little") == header2
    assert block.__layout__.size == header1 >> 20


@pytest.mark.parametrize(("name", "register", "value"), cxl.VALUES)
def test_value(name: str, register: Register, value: int) -> None:
    assert int(register) == value


@pytest.mark.parametrize(
    ("name", "member", "value"),
    cxl.NUMBERS + link.NUMBERS + cpmu.NUMBERS + events.NUMBERS + fm.NUMBERS + mctp.NUMBERS,
)
def test_number(name: str, member: int, value: int) -> None:
    assert member == value


def test_status_bits_clear_by_writing_one_and_live_through_a_hot_reset() -> None:
    """RW1CS, the law of every error status (PCIe 6.0 §7.8.4.2, CXL 3.1 §8.2.4.17.1)."""
    for register, bits in (
        (UncorrectableErrorStatus, 0xFFFF_F030),
        (CorrectableErrorStatus, 0xF1C1),
        (RasUncorrectableStatus, 0x1CFFF),
    ):
        assert (register.__layout__.w1c, register.__layout__.sticky) == (bits, bits)


def test_the_doorbell_can_only_be_set() -> None:
    """It is read-only while it is set (CXL 3.1 §8.2.8.4.4), so a zero over it does nothing."""
    file = RegisterFile(0x20)
    mailbox = file.place(0, Mailbox)
    file.write(4, b"\x07\0\0\0")
    file.write(4, b"\x00\0\0\0")
    assert int(mailbox.control) == 0x1


def test_decoder_counts() -> None:
    """Linux cxl_hdm_decoder_count: 1, then 2 a step to 16, then 4 a step to 32."""
    expected = [1, *(value * 2 for value in range(1, 9)), *((value - 4) * 4 for value in range(9, 13))]
    assert list(DECODER_COUNTS) == expected


def test_effects() -> None:
    """Linux and libcxlmi number the effects; QEMU's numbers from bit 7 on are one higher."""
    for name, position in commands.EFFECT_BITS.items():
        assert int(CommandEffects.make(**{name: True})) == 1 << position
