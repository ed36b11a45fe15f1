"""Which machines may not share memory with others: by their processor, and by how many of it there may be."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from softcxl.pool import native, processor
from softcxl.pool.errors import Refused


def madt(*entries: bytes) -> bytes:
    """ACPI 6.5, 5.2.12: a header of 36 bytes, an address, flags, and entries of a kind and a length."""
    body = struct.pack("<II", 0xFEE00000, 1) + b"".join(entries)
    return struct.pack("<4sI28x", b"APIC", 36 + len(body)) + body


def local(number: int, *, enabled: bool = True) -> bytes:
    return struct.pack("<BBBBI", 0, 8, number, number, enabled)


def local_x2(number: int) -> bytes:
    return struct.pack("<BBHIII", 9, 16, 0, number, 1, number)


IO = struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC00000, 0)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "emulated", lambda: True)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("entries", [(local(0), IO), (IO, local_x2(0))])
def test_one_processor_and_no_room_for_another(tmp_path: Path, entries: tuple[bytes, ...]) -> None:
    table = tmp_path / "APIC"
    table.write_bytes(madt(*entries))
    with pytest.raises(Refused, match="-smp 1,maxcpus=2"):
        processor.check(table)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(
    "table",
    [
        madt(local(0), IO, local(1, enabled=False)),
        madt(local_x2(0), local_x2(1)),
        b"",
        madt(IO),
        madt(local(0))[:40],
        madt(b"\0\0", local(0)),
    ],
    ids=["a second may come", "two", "empty", "none", "cut off", "an entry without a length"],
)
def test_what_is_no_reason_to_refuse(tmp_path: Path, table: bytes) -> None:
    path = tmp_path / "APIC"
    path.write_bytes(table)
    processor.check(path)


@pytest.mark.usefixtures("emulated")
def test_a_table_that_may_not_be_read(tmp_path: Path) -> None:
    processor.check(tmp_path / "APIC")


def test_a_processor_that_is_none_of_qemus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "emulated", lambda: False)
    table = tmp_path / "APIC"
    table.write_bytes(madt(local(0)))
    processor.check(table)
