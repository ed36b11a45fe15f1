"""What a whole mailbox command costs, doorbell to doorbell, against the least that Python can do.

Each command is rung on a real `Type3` (register laws, lock, hook, checks, records) and on a floor written by hand:
a bytearray, a dictionary of opcodes and one `struct` call, without laws, lock or checks. Both take turns in the same
run; figures are medians. Setting the command and payload up is not timed, since every driver does it its own way.

    python benchmarks/commands.py [--json] [--rounds N] [--commands N]
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import Driver

MIB = 1 << 20
CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
RING = b"\1\0\0\0"
BAR = 2
CONTROL, COMMAND, STATUS, PAYLOAD = 0x04, 0x08, 0x10, 0x20

COMMANDS: dict[str, tuple[int, bytes]] = {
    "Get Timestamp": (0x0300, b""),
    "Identify Memory Device": (0x4000, b""),
    "Get Health Info": (0x4200, b""),
    "Get Log, 64 bytes": (0x0401, CEL + struct.pack("<II", 0, 64)),
    "Get Event Records, none": (0x0100, b"\0"),
    "Get Event Records, 8": (0x0100, b"\1"),
    "Get Poison List, none": (0x4300, struct.pack("<QQ", 0, 4 * MIB)),
    "Get Poison List, 8": (0x4300, struct.pack("<QQ", 256 * MIB, MIB)),
    "Get LSA, 256 bytes": (0x4102, struct.pack("<II", 0, 256)),
    "Set LSA, 256 bytes": (0x4103, bytes(8 + 256)),
    "unsupported": (0xFFFF, b""),
}


class Floor:
    """The same answers from a bytearray and struct calls."""

    def __init__(self, answers: dict[tuple[int, bytes], bytes]) -> None:
        self.memory = bytearray(0x3000)
        self.labels = bytearray(4096)
        self.records = [answers[0x0100, b"\1"][0x20:][at : at + 128] for at in range(0, 8 * 128, 128)]
        poison = answers[0x4300, COMMANDS["Get Poison List, 8"][1]][0x20:]
        self.poison = [struct.unpack_from("<QI", poison, at) for at in range(0, len(poison), 16)]
        self.log = answers[0x0401, COMMANDS["Get Log, 64 bytes"][1]]
        self.handlers: dict[int, Callable[[bytes], bytes]] = {
            0x0300: lambda payload: struct.pack("<Q", 0),
            0x4000: lambda payload: struct.pack(
                "<16sQQQQHHHHI3sHBBH",
                b"floor", 2, 1, 1, 0, 15, 15, 15, 15, 4096, b"\0\4\0", 0, 1, 0, 0,
            ),
            0x4200: lambda payload: struct.pack("<BBBBhIII", 0, 0, 0, 0, 25, 0, 0, 0),
            0x0401: self._get_log,
            0x0100: self._get_events,
            0x4300: self._get_poison,
            0x4102: self._get_labels,
            0x4103: self._set_labels,
        }  # fmt: skip

    def _get_log(self, payload: bytes) -> bytes:
        _, offset, length = struct.unpack("<16sII", payload)
        return self.log[offset : offset + length]

    def _get_events(self, payload: bytes) -> bytes:
        records = self.records if payload[0] else []
        return struct.pack("<BxHQQH10x", 0, 0, 0, 0, len(records)) + b"".join(records)

    def _get_poison(self, payload: bytes) -> bytes:
        start, length = struct.unpack("<QQ", payload)
        found = [one for one in self.poison if start <= one[0] < start + 64 * length]
        body = b"".join([struct.pack("<QI4x", *one) for one in found])
        return struct.pack("<BxQH20x", 0, 0, len(found)) + body

    def _get_labels(self, payload: bytes) -> bytes:
        offset, length = struct.unpack("<II", payload)
        return bytes(self.labels[offset : offset + length])

    def _set_labels(self, payload: bytes) -> bytes:
        (offset,) = struct.unpack_from("<I", payload)
        self.labels[offset : offset + len(payload) - 8] = payload[8:]
        return b""

    def write(self, region: int, offset: int, data: bytes) -> None:
        memory = self.memory
        if offset != CONTROL:
            memory[offset : offset + len(data)] = data
            return
        (command,) = struct.unpack_from("<Q", memory, COMMAND)
        opcode, length = command & 0xFFFF, command >> 16 & 0xFFFFF
        handler = self.handlers.get(opcode)
        reply = handler(bytes(memory[PAYLOAD : PAYLOAD + length])) if handler else b""
        memory[PAYLOAD : PAYLOAD + len(reply)] = reply
        struct.pack_into("<QQ", memory, COMMAND, len(reply) << 16 | opcode, 0 if handler else 3 << 32)
        memory[CONTROL : CONTROL + 4] = b"\0\0\0\0"


def bench() -> tuple[Type3, Driver]:
    device = Type3("mem0", volatile=256 * MIB, persistent=256 * MIB, label_storage=4096, clock=ManualClock())
    for number in range(8):
        device.record_event(EventLog.WARNING, GeneralMediaEvent())
        device.inject_poison(256 * MIB + 0x1000 * number)
    return device, Driver(device)


def ringing(port: Any, base: int, memory: Any, opcode: int, payload: bytes, count: int) -> float:
    """Seconds of one command: `count` of them rung, each set up anew, without the setting up."""
    command = struct.pack("<Q", len(payload) << 16 | opcode)
    write, now, control, total = port.write, time.perf_counter_ns, base + CONTROL, 0
    for _ in range(count):
        memory[base + COMMAND : base + COMMAND + 8] = command
        memory[base + PAYLOAD : base + PAYLOAD + len(payload)] = payload
        start = now()
        write(BAR, control, RING)
        total += now() - start
    return total / count / 1e9


def measure(rounds: int, count: int) -> list[dict[str, object]]:
    device, driver = bench()
    floor = Floor(
        {(opcode, payload): driver.send(opcode, payload)[1] for opcode, payload in COMMANDS.values()}
    )
    registers = device.device_registers.file.data
    rows: list[dict[str, object]] = []
    for name, (opcode, payload) in COMMANDS.items():
        pairs = []
        for number in range(rounds + 1):
            pair = (
                ringing(device, driver.mailbox, registers, opcode, payload, count),
                ringing(floor, 0, floor.memory, opcode, payload, count),
            )
            if number:  # the first warms up
                pairs.append(pair)
        ours, theirs = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        rows.append(
            {
                "command": name,
                "us": round(1e6 * ours, 1),
                "commands/s": round(1 / ours),
                "floor us": round(1e6 * theirs, 1),
                "ratio to floor": round(median(pair[0] / pair[1] for pair in pairs), 1),
            }
        )
    device.close()
    return rows


def table(rows: list[dict[str, object]]) -> str:
    heads = list(rows[0])
    cells = [heads, *([str(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="mailbox commands, doorbell to doorbell, against a floor")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the median is taken")
    parser.add_argument("--commands", type=int, default=2000, help="commands in a round")
    asked = parser.parse_args()
    rows = measure(asked.rounds, asked.commands)
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
