"""Records against bytes laid out as the structures of Linux, QEMU, libcxlmi and ndctl."""

from __future__ import annotations

import enum
from typing import Any
from uuid import UUID

import pytest

from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.registry import COMMANDS, NAMES
from softcxl.wire import Record, Register, WireError
from tests.spec.vectors import (
    Payload,
    commands,
    compliance,
    events,
    fm,
    fm_payloads,
    generic_payloads,
    mctp,
    memory_payloads,
    repair_payloads,
    tables,
)

PAYLOADS = (
    generic_payloads.PAYLOADS
    + memory_payloads.PAYLOADS
    + repair_payloads.PAYLOADS
    + events.PAYLOADS
    + tables.PAYLOADS
    + compliance.PAYLOADS
    + fm_payloads.PAYLOADS
    + mctp.PAYLOADS
)


def _value(record: Any, path: str) -> Any:
    for step in path.split("."):
        record = record[int(step)] if step.isdigit() else getattr(record, step)
    return int(record) if isinstance(record, Register) else record


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_payload(payload: Payload) -> None:
    record = payload.record.unpack(payload.data)
    assert {path: _value(record, path) for path in payload.fields} == payload.fields
    assert record.pack() == payload.data


def test_every_field_of_every_record_is_checked() -> None:
    checked: dict[type[Record], set[str]] = {}
    for payload in PAYLOADS:
        checked.setdefault(payload.record, set()).update(path.split(".")[0] for path in payload.fields)
    for record, names in checked.items():
        assert names == {item.name for item in record.__layout__.fields if item.kind != "reserved"}, record


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.name)
def test_a_short_payload_is_refused(payload: Payload) -> None:
    if payload.record.__layout__.size:
        with pytest.raises(WireError):
            payload.record.unpack(payload.data[: payload.record.__layout__.size - 1])


@pytest.mark.parametrize(("name", "identifier", "memory"), events.UUIDS + fm.UUIDS)
def test_uuid(name: str, identifier: UUID, memory: str) -> None:
    assert identifier.bytes.hex() == memory


@pytest.mark.parametrize(
    ("name", "kind", "members"), events.ENUMS + tables.ENUMS + compliance.ENUMS + fm.ENUMS
)
def test_numbers_in_order(name: str, kind: type[enum.IntEnum], members: list[str]) -> None:
    assert [member.name for member in kind] == members
    assert [member.value for member in kind] == list(range(len(members)))


@pytest.mark.parametrize("name", commands.OPCODES)
def test_opcode(name: str) -> None:
    opcode, command = commands.OPCODES[name]
    assert command.opcode == opcode
    assert COMMANDS[opcode] is command


@pytest.mark.parametrize("opcode", commands.REQUEST_SIZES)
def test_request_size(opcode: int) -> None:
    request = COMMANDS[opcode].request
    assert (request.__layout__.fixed_size if request else 0) == commands.REQUEST_SIZES[opcode]


@pytest.mark.parametrize("opcode", commands.EFFECTS)
def test_effects(opcode: int) -> None:
    effects = COMMANDS[opcode].effects
    assert {
        field.name for field in effects.__layout__.fields if getattr(effects, field.name)
    } == commands.EFFECTS[opcode]


def test_return_codes() -> None:
    assert [int(code) for code in commands.RETURN_CODES.values()] == list(range(0x21))
    assert list(ReturnCode) == list(commands.RETURN_CODES.values())


def test_every_declared_command_has_the_standards_name() -> None:
    assert {opcode: command.name for opcode, command in COMMANDS.items()} == {
        opcode: NAMES[opcode] for opcode in COMMANDS
    }
    assert all(command.opcode == opcode for opcode, command in COMMANDS.items())


def test_background() -> None:
    assert COMMANDS[0x4400].background
    assert not COMMANDS[0x4000].background
    assert repr(COMMANDS[0x4000]) == "<Identify Memory Device 4000h>"
