"""What declared registers and records cost, as ratios to hand-written struct code in the same run.

Accesses: a guest's read or write of a device's mailbox, and a device's use of a field, against functions
that do the same to the same bytes with masks and positions typed in. Records: packing and unpacking, against
one struct call that packs a tuple, and against one that unpacks and stores the values on an object. Each
figure is the median of several rounds, in which both sides take turns, so that a noisy machine disturbs them
alike.

    python benchmarks/registers.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from softcxl.spec.command.memory import IdentifyMemoryDevice
from softcxl.spec.cxl.component import Ras
from softcxl.spec.cxl.device import Mailbox
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.wire import Record, RegisterFile, on_read, on_write

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 20_000
MAILBOX, HOOKED, RAS, PAYLOAD = 0x1000, 0x2000, 0x3000, 0x4000
WORD, LONG = struct.Struct("<I"), struct.Struct("<Q")


class Device:
    """Hooks that do nothing, in SoftCXL and by hand."""

    @on_write(Mailbox.control.doorbell)
    def ring(self, old: int, new: int) -> None:
        pass

    @on_read(Mailbox.status)
    def refresh(self) -> None:
        pass


class Plain:
    """What a hand-written device stores an unpacked record in."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values


def stored(floor: struct.Struct, data: bytes) -> Plain:
    return Plain(floor.unpack(data))


def seconds(work: Callable[[], object]) -> float:
    """Seconds a call."""
    calls = range(CALLS)
    start = time.perf_counter()
    for _ in calls:
        work()
    return (time.perf_counter() - start) / CALLS


def row(what: str, work: Callable[[], object], floor: Callable[[], object], rounds: int) -> dict[str, object]:
    work()
    floor()
    pairs = [(seconds(work), seconds(floor)) for _ in range(rounds)]
    return {
        "what": what,
        "ns": round(median(pair[0] for pair in pairs) * 1e9),
        "by hand, ns": round(median(pair[1] for pair in pairs) * 1e9),
        "ratio": round(median(pair[0] / pair[1] for pair in pairs), 1),
    }


def accesses(rounds: int) -> list[dict[str, object]]:
    file = RegisterFile(0x10000)
    mailbox = file.place(MAILBOX, Mailbox)
    file.place(HOOKED, Mailbox, hooks=Device())
    file.place(RAS, Ras)
    file.ram(PAYLOAD, 0x800)
    memory, device = bytearray(0x10000), Device()
    four, eight = b"\x06\0\0\0", b"\x00\x40\0\0\0\0\0\0"

    def read(offset: int, size: int) -> bytes:
        return bytes(memory[offset : offset + size])

    def read_hooked(offset: int, size: int) -> bytes:
        device.refresh()
        return bytes(memory[offset : offset + size])

    def write_control(offset: int, data: bytes) -> None:
        (raw,) = WORD.unpack(data)
        (old,) = WORD.unpack_from(memory, offset)
        WORD.pack_into(memory, offset, old & 0xFFFFFFF9 | raw & 0x6 | raw & 0x1)

    def write_hooked(offset: int, data: bytes) -> None:
        (raw,) = WORD.unpack(data)
        (old,) = WORD.unpack_from(memory, offset)
        new = old & 0xFFFFFFF9 | raw & 0x6 | raw & 0x1
        WORD.pack_into(memory, offset, new)
        device.ring(old & 1, new & 1)

    def write_command(offset: int, data: bytes) -> None:
        (raw,) = LONG.unpack(data)
        (old,) = LONG.unpack_from(memory, offset)
        LONG.pack_into(memory, offset, old & 0xFFFFFFF000000000 | raw & 0xFFFFFFFFF)

    def write_ras(offset: int, data: bytes) -> None:
        (raw,) = WORD.unpack(data)
        (old,) = WORD.unpack_from(memory, offset)
        WORD.pack_into(memory, offset, old & ~(raw & 0x1FFFF))

    def write_payload(offset: int, data: bytes) -> None:
        memory[offset : offset + len(data)] = data

    def doorbell() -> object:
        return WORD.unpack_from(memory, MAILBOX + 4)[0] & 1 != 0

    def clear_doorbell() -> None:
        WORD.pack_into(memory, MAILBOX + 4, WORD.unpack_from(memory, MAILBOX + 4)[0] & ~1)

    def clear_declared_doorbell() -> None:
        mailbox.control.doorbell = False

    control, status = MAILBOX + 4, HOOKED + 0x10
    cases: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("read 4 bytes", lambda: file.read(control, 4), lambda: read(control, 4)),
        ("read 8 bytes, read hook", lambda: file.read(status, 8), lambda: read_hooked(status, 8)),
        (
            "write 4 bytes, RW and RW1S",
            lambda: file.write(control, four),
            lambda: write_control(control, four),
        ),
        (
            "write 8 bytes, RW",
            lambda: file.write(MAILBOX + 8, eight),
            lambda: write_command(MAILBOX + 8, eight),
        ),
        ("write 4 bytes, RW1CS", lambda: file.write(RAS, four), lambda: write_ras(RAS, four)),
        (
            "write 4 bytes, write hook",
            lambda: file.write(HOOKED + 4, four),
            lambda: write_hooked(HOOKED + 4, four),
        ),
        ("write 8 bytes, memory", lambda: file.write(PAYLOAD, eight), lambda: write_payload(PAYLOAD, eight)),
        ("field read", lambda: mailbox.control.doorbell, doorbell),
        ("field written", clear_declared_doorbell, clear_doorbell),
    ]
    return [row(what, work, floor, rounds) for what, work, floor in cases]


def packing(rounds: int) -> list[dict[str, object]]:
    identify = IdentifyMemoryDevice(fw_revision="1.0", total_capacity=4, poison_list_maximum=256)
    identify_floor = struct.Struct("<16s4Q4HI3sHBBH")
    identify_values = (b"1.0", 4, 0, 0, 0, 0, 0, 0, 0, 0, (256).to_bytes(3, "little"), 0, 0, 0, 0)
    event = GeneralMediaEvent(channel=1, rank=2, device=3)
    event_floor = struct.Struct("<16sB3sHHQBBHB11xQBBBHBB3s16sB3sB41x")
    event_values = event_floor.unpack(event.pack())
    rows = []
    cases: list[tuple[Record, struct.Struct, tuple[Any, ...]]] = [
        (identify, identify_floor, identify_values),
        (event, event_floor, event_values),
    ]
    for record, floor, values in cases:
        cls, data = type(record), record.pack()
        assert floor.pack(*values) == data
        rows += [
            row(f"{cls.__name__}.pack", record.pack, partial(floor.pack, *values), rounds),
            row(f"{cls.__name__}.unpack", partial(cls.unpack, data), partial(stored, floor, data), rounds),
        ]
    return rows


def table(rows: list[dict[str, object]]) -> str:
    heads = list(rows[0])
    cells = [heads, *([str(one[head]) for head in heads] for one in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="declared registers and records against hand-written struct code"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the tables")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the median is taken")
    asked = parser.parse_args()
    results = accesses(asked.rounds), packing(asked.rounds)
    if asked.json:
        print(json.dumps([one for rows in results for one in rows], indent=1))
    else:
        print("\n\n".join(table(rows) for rows in results))


if __name__ == "__main__":
    main()
