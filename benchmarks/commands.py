"""What every mailbox command costs, doorbell to doorbell, against the least that Python can do.

Each command that a device handles is rung on a real `Type3` (register laws, lock, hook, checks, records) and on a floor
written by hand: a bytearray, a dictionary of opcodes and one `struct` call, without laws, lock or checks; where nothing
is written for a command, its floor sends back the bytes that the device answered. Both take turns in the same run;
figures are medians. Setting the command and payload up is not timed, since every driver does it its own way, and nor is
what makes the state that a command needs, or ends its work in the background. `code` is the return code it gets.

    python benchmarks/commands.py [--json] [--rounds N] [--commands N]
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.firmware import image
from softcxl.device.type3 import Type3
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import Driver

MIB = 1 << 20
CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
DEBUG = bytes.fromhex("5e1819d911a9400c811fd60719403d86")
STATE_DUMP = bytes.fromhex("b3fab4cf01b64332943e5e9962f23567")
SCRUB = bytes.fromhex("96dad7d6fde8482ba73375774e06db8a")
RING = b"\1\0\0\0"
BAR = 2
CONTROL, COMMAND, STATUS, PAYLOAD = 0x04, 0x08, 0x10, 0x20

SECRET = b"secret".ljust(32, b"\0")
USER = b"\1".ljust(32, b"\0")
DYNAMIC = 1024 * MIB


@dataclass(frozen=True)
class Timed:
    """A command with a payload, and what is done, untimed, before each of them."""

    opcode: int
    payload: bytes = b""
    before: Callable[[Type3], object] | None = None


def settled(device: Type3) -> None:
    device.cci.finish()


def prepared(*commands: tuple[int, bytes]) -> Callable[[Type3], None]:
    """Before a command: the background is idle, and these were sent."""

    def before(device: Type3) -> None:
        device.cci.finish()
        for opcode, payload in commands:
            device.cci.execute(opcode, payload)
            device.cci.finish()

    return before


def relocked(device: Type3) -> None:
    device.cci.execute(0x4501, USER + SECRET + SECRET)
    device.security.power_on()


def offered(device: Type3) -> None:
    """An extent is there to be taken, and no other."""
    device.cci.execute(0x4803, extents((DYNAMIC, 2 * MIB)))
    device.events.forget()
    device.dynamic.add(length=2 * MIB)


def given(device: Type3) -> None:
    offered(device)
    device.cci.execute(0x4802, extents((DYNAMIC, 2 * MIB)))


def extents(*ranges: tuple[int, int]) -> bytes:
    return struct.pack("<I4x", len(ranges)) + b"".join(struct.pack("<QQ8x", *one) for one in ranges)


TRANSFER_ALL = b"\0\2".ljust(128, b"\0") + image("bench 2")

COMMANDS: dict[str, Timed] = {
    "Request Abort Background Operation": Timed(0x0005),
    "Get Event Records, none": Timed(0x0100, b"\0"),
    "Get Event Records, 8": Timed(0x0100, b"\1"),
    "Clear Event Records, none": Timed(0x0101, b"\1".ljust(6, b"\0")),
    "Get Event Interrupt Policy": Timed(0x0102),
    "Set Event Interrupt Policy": Timed(0x0103, b"\1\1\1\1"),
    "Get FW Info": Timed(0x0200),
    "Transfer FW, 64 bytes": Timed(0x0201, TRANSFER_ALL, settled),
    "Activate FW, later": Timed(0x0202, b"\1\2", prepared((0x0201, TRANSFER_ALL))),
    "Get Timestamp": Timed(0x0300),
    "Set Timestamp": Timed(0x0301, struct.pack("<Q", 10**18)),
    "Get Supported Logs": Timed(0x0400),
    "Get Log, 64 bytes": Timed(0x0401, CEL + struct.pack("<II", 0, 64)),
    "Get Log Capabilities": Timed(0x0402, CEL),
    "Clear Log": Timed(0x0403, DEBUG),
    "Populate Log": Timed(0x0404, STATE_DUMP, settled),
    "Get Supported Features": Timed(0x0500, struct.pack("<IHxx", 4096, 0)),
    "Get Feature": Timed(0x0501, SCRUB + struct.pack("<HHB", 0, 4, 0)),
    "Set Feature": Timed(0x0502, SCRUB + struct.pack("<IHB9x", 0, 0, 1) + b"\x18\1"),
    "Perform Maintenance, a query": Timed(0x0600, struct.pack("<BBBQ3x", 1, 0, 1, 0), settled),
    "Identify Memory Device": Timed(0x4000),
    "Get Partition Info": Timed(0x4100),
    "Set Partition Info, later": Timed(0x4101, struct.pack("<QB", 1, 0)),
    "Get LSA, 256 bytes": Timed(0x4102, struct.pack("<II", 0, 256)),
    "Set LSA, 256 bytes": Timed(0x4103, bytes(8 + 256)),
    "Get Health Info": Timed(0x4200),
    "Set Alert Configuration": Timed(0x4202, struct.pack("<BBBxhhHH", 1, 1, 50, 0, 0, 0, 0)),
    "Set Shutdown State": Timed(0x4204, b"\1"),
    "Get Poison List, none": Timed(0x4300, struct.pack("<QQ", 0, 4 * MIB)),
    "Get Poison List, 8": Timed(0x4300, struct.pack("<QQ", 512 * MIB, MIB)),
    "Inject Poison, a bad line": Timed(0x4301, struct.pack("<Q", 512 * MIB)),
    "Clear Poison, a good line": Timed(0x4302, struct.pack("<Q", 0) + bytes(64)),
    "Get Scan Media Capabilities": Timed(0x4303, struct.pack("<QQ", 0, 1)),
    "Scan Media, its start": Timed(0x4304, struct.pack("<QQB", 0, 1, 0), settled),
    "Get Scan Media Results": Timed(0x4305, b"", prepared((0x4304, struct.pack("<QQB", 0, 1, 0)))),
    "Sanitize, its start": Timed(0x4400, b"", settled),
    "Media Operations, discovery": Timed(0x4402, struct.pack("<BB2xIHH", 0, 0, 0, 0, 9)),
    "Set Passphrase": Timed(0x4501, USER + SECRET + SECRET),
    "Disable Passphrase": Timed(0x4502, USER + SECRET, prepared((0x4501, USER + SECRET + SECRET))),
    "Unlock": Timed(0x4503, SECRET, relocked),
    "Passphrase Secure Erase": Timed(0x4505, USER + SECRET),
    "Get Dynamic Capacity Configuration": Timed(0x4800, b"\x08\0"),
    "Get Dynamic Capacity Extent List": Timed(0x4801, struct.pack("<II", 8, 0)),
    "Add Dynamic Capacity Response": Timed(0x4802, extents((DYNAMIC, 2 * MIB)), offered),
    "Release Dynamic Capacity": Timed(0x4803, extents((DYNAMIC, 2 * MIB)), given),
    "unsupported": Timed(0xFFFF),
}
"""With what each is sent; a command that is not here is sent with zeros."""


def every(device: Type3) -> dict[str, Timed]:
    """All of COMMANDS that `device` handles, and what else it does."""
    handlers = device.cci.handlers
    found = {name: one for name, one in COMMANDS.items() if one.opcode in handlers or one.opcode == 0xFFFF}
    named = {one.opcode for one in found.values()}
    for opcode, (declared, _) in handlers.items():
        if opcode not in named:
            size = declared.request.__layout__.size if declared.request else 0
            found[declared.name] = Timed(opcode, bytes(size), settled)
    return dict(sorted(found.items(), key=lambda item: item[1].opcode))


class Floor:
    """The same answers from a bytearray and struct calls."""

    def __init__(self, device: Type3, timed: Timed, answer: bytes) -> None:
        self.memory = bytearray(0x3000)
        self.labels = bytearray(4096)
        execute = device.cci.execute
        records = execute(0x0100, b"\1").payload[0x20:]
        self.records = [records[at : at + 128] for at in range(0, 8 * 128, 128)]
        poison = execute(0x4300, COMMANDS["Get Poison List, 8"].payload).payload[0x20:]
        self.poison = [struct.unpack_from("<QI", poison, at) for at in range(0, len(poison), 16)]
        self.log = execute(0x0401, COMMANDS["Get Log, 64 bytes"].payload).payload
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
        if timed.opcode in device.cci.handlers:
            self.handlers.setdefault(timed.opcode, lambda payload: answer)

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
    device = Type3(
        "mem0",
        volatile=512 * MIB,
        persistent=512 * MIB,
        partition_alignment=256 * MIB,
        label_storage=4096,
        dynamic=[DynamicRegion(length=256 * MIB)],
        clock=ManualClock(),
    )
    for number in range(8):
        device.record_event(EventLog.WARNING, GeneralMediaEvent())
        device.inject_poison(512 * MIB + 0x1000 * number)
    return device, Driver(device)


def ringing(
    port: Any, base: int, memory: Any, timed: Timed, count: int, before: Callable[[], object] | None
) -> float:
    """Seconds of one command: `count` of them rung, each set up anew, without the setting up."""
    payload = timed.payload
    command = struct.pack("<Q", len(payload) << 16 | timed.opcode)
    write, now, control, total = port.write, time.perf_counter_ns, base + CONTROL, 0
    for _ in range(count):
        if before is not None:
            before()
        memory[base + COMMAND : base + COMMAND + 8] = command
        memory[base + PAYLOAD : base + PAYLOAD + len(payload)] = payload
        start = now()
        write(BAR, control, RING)
        total += now() - start
    return total / count / 1e9


def measured(name: str, timed: Timed, rounds: int, count: int) -> dict[str, object]:
    """A row: one command on a device of its own."""
    device, driver = bench()
    before = None if timed.before is None else partial(timed.before, device)
    if before is not None:
        before()
        count = max(1, count // 10)
    code, answer = driver.send(timed.opcode, timed.payload)
    sample, _ = bench()
    floor = Floor(sample, timed, answer)
    sample.close()
    registers, pairs = device.device_registers.file.data, []
    for number in range(rounds + 1):
        pair = (
            ringing(device, driver.mailbox, registers, timed, count, before),
            ringing(floor, 0, floor.memory, timed, count, None),
        )
        if number:  # the first warms up
            pairs.append(pair)
    device.close()
    ours, theirs = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    return {
        "command": name,
        "code": f"{code:02X}h",
        "us": round(1e6 * ours, 1),
        "commands/s": round(1 / ours),
        "floor us": round(1e6 * theirs, 1),
        "ratio to floor": round(median(pair[0] / pair[1] for pair in pairs), 1),
    }


def measure(rounds: int, count: int) -> list[dict[str, object]]:
    device, _ = bench()
    commands = every(device)
    device.close()
    return [measured(name, timed, rounds, count) for name, timed in commands.items()]


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
    parser.add_argument("--commands", type=int, default=500, help="commands in a round")
    asked = parser.parse_args()
    rows = measure(asked.rounds, asked.commands)
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
