"""Command sequences for two implementations, as bytes: no layout of ours has a part in them.

A step is (label, opcode, payload). The device is 256 MiB volatile, 256 MiB persistent, 128 KiB of labels.
"""

from __future__ import annotations

from struct import pack

MIB = 1 << 20
PERSISTENT = 256 * MIB
TOP = 512 * MIB
CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
PATROL_SCRUB = bytes.fromhex("96dad7d6fde8482ba73375774e06db8a")
SOFT_PPR = bytes.fromhex("892ba475fad8474e9d3e692c917568bb")
ROW_SPARING = bytes.fromhex("450ebf67b1354f97a498c2d57f279bed")
ECS = bytes.fromhex("e5b13f2213f24fd2b1cb0c0a0d7a2f1f")

Step = tuple[str, int, bytes]


def dpa_range(start: int, lines: int) -> bytes:
    return pack("<QQ", start, lines)


def firmware_part(action: int, slot: int, offset: int, data: bytes) -> bytes:
    """Transfer FW: action, slot, offset in units of 128 bytes, 120 reserved bytes, data."""
    return pack("<BBxxI", action, slot, offset // 128) + bytes(120) + data


def scrub_part(step: int, offset: int, data: bytes, version: int = 1) -> bytes:
    """Set Feature of patrol scrub: 0 the whole, 1 the first part, 2 another, 3 the last."""
    return PATROL_SCRUB + pack("<IHB9x", step, offset, version) + data


SCENARIOS: dict[str, list[Step]] = {
    "information": [
        ("identify", 0x4000, b""),
        ("identify with a payload", 0x4000, b"\0"),
        ("partition info", 0x4100, b""),
        ("partition info with a payload", 0x4100, bytes(4)),
        ("no such command", 0xC0DE, b""),
        ("a command of switches", 0x5100, b""),
    ],
    "timestamp": [
        ("never set", 0x0300, b""),
        ("set, short", 0x0301, bytes(7)),
        ("set, long", 0x0301, bytes(9)),
        ("get with a payload", 0x0300, b"\0"),
    ],
    "logs": [
        ("supported", 0x0400, b""),
        ("supported with a payload", 0x0400, b"\0"),
        ("first entry", 0x0401, CEL + pack("<II", 0, 4)),
        ("nothing of it", 0x0401, CEL + pack("<II", 0, 0)),
        ("beyond its end", 0x0401, CEL + pack("<II", 0x10000, 4)),
        ("across its end", 0x0401, CEL + pack("<II", 0, 0x10000)),
        ("wrapped around", 0x0401, CEL + pack("<II", 0xFFFFFFFC, 8)),
        ("no such log", 0x0401, bytes(16) + pack("<II", 0, 4)),
        ("short", 0x0401, CEL),
    ],
    "event records": [
        ("informational", 0x0100, b"\0"),
        ("fatal", 0x0100, b"\3"),
        ("no such log", 0x0100, b"\7"),
        ("no log named", 0x0100, b""),
        ("clear none", 0x0101, pack("<BBB3x", 0, 0, 0)),
        ("clear all", 0x0101, pack("<BBB3x", 0, 1, 0)),
        ("clear one that is not there", 0x0101, pack("<BBB3xH", 0, 0, 1, 7)),
        ("clear more than it names", 0x0101, pack("<BBB3xH", 0, 0, 2, 7)),
        ("clear in no such log", 0x0101, pack("<BBB3xH", 9, 0, 1, 7)),
        ("clear, short", 0x0101, b"\0"),
    ],
    "event interrupts": [
        ("get", 0x0102, b""),
        ("get with a payload", 0x0102, b"\0"),
        ("set, short", 0x0103, bytes(3)),
        ("all by MSI", 0x0103, b"\1\1\1\1"),
        ("set so", 0x0102, b""),
        ("all by firmware", 0x0103, b"\2\2\2\2"),
        ("a reserved mode", 0x0103, b"\3\1\1\1"),
        ("none", 0x0103, bytes(4)),
    ],
    "poison": [
        ("none", 0x4300, dpa_range(0, TOP // 64)),
        ("inject", 0x4301, pack("<Q", 0x1000)),
        ("inject again", 0x4301, pack("<Q", 0x1000)),
        ("inject off a line", 0x4301, pack("<Q", 0x1004)),
        ("inject beyond the end", 0x4301, pack("<Q", TOP)),
        ("inject, short", 0x4301, bytes(4)),
        ("inject at the last line", 0x4301, pack("<Q", TOP - 64)),
        ("list of the first line", 0x4300, dpa_range(0x1000, 1)),
        ("list beside it", 0x4300, dpa_range(0x1040, 1)),
        ("list of no lines", 0x4300, dpa_range(0x1000, 0)),
        ("list off a line", 0x4300, dpa_range(0x1004, 1)),
        ("list beyond the end", 0x4300, dpa_range(TOP, 1)),
        ("list across the end", 0x4300, dpa_range(TOP - 64, 2)),
        ("list of all", 0x4300, dpa_range(0, TOP // 64)),
        ("clear", 0x4302, pack("<Q", 0x1000) + bytes(64)),
        ("clear what has none", 0x4302, pack("<Q", 0x1000) + bytes(64)),
        ("clear off a line", 0x4302, pack("<Q", 0x1004) + bytes(64)),
        ("clear beyond the end", 0x4302, pack("<Q", TOP) + bytes(64)),
        ("clear, short", 0x4302, pack("<Q", 0x1000)),
        ("list after it", 0x4300, dpa_range(0, TOP // 64)),
        ("clear the last", 0x4302, pack("<Q", TOP - 64) + bytes(64)),
    ],
    "scan media": [
        ("capabilities", 0x4303, dpa_range(0, TOP // 64)),
        ("capabilities, beyond the end", 0x4303, dpa_range(TOP, 1)),
        ("capabilities, off a line", 0x4303, dpa_range(4, 1)),
        ("results before any scan", 0x4305, b""),
        ("scan beyond the end", 0x4304, dpa_range(TOP, 1) + b"\0"),
        ("scan, short", 0x4304, dpa_range(0, 1)),
    ],
    "labels": [
        ("fresh", 0x4102, pack("<II", 0, 16)),
        ("write", 0x4103, pack("<II", 0x100, 0) + b"softcxl!"),
        ("read it", 0x4102, pack("<II", 0x100, 8)),
        ("the last bytes", 0x4102, pack("<II", 128 * 1024 - 8, 8)),
        ("across the end", 0x4102, pack("<II", 128 * 1024 - 8, 16)),
        ("beyond the end", 0x4102, pack("<II", 128 * 1024, 8)),
        ("more than a payload", 0x4102, pack("<II", 0, 64 * 1024)),
        ("write across the end", 0x4103, pack("<II", 128 * 1024 - 4, 0) + bytes(8)),
        ("write, short", 0x4103, bytes(4)),
        ("read, short", 0x4102, bytes(4)),
        ("nothing", 0x4102, pack("<II", 0, 0)),
    ],
    "labels, written": [
        ("nothing", 0x4103, pack("<II", 0, 0)),
    ],
    "alerts": [
        ("get", 0x4201, b""),
        ("get with a payload", 0x4201, b"\0"),
        ("set, short", 0x4202, bytes(4)),
        ("life used warning", 0x4202, pack("<BBBBhHHH", 1, 1, 0x20, 0, 0, 0, 0, 0)),
        ("set so", 0x4201, b""),
        ("life used warning above critical", 0x4202, pack("<BBBBhHHH", 1, 1, 0x60, 0, 0, 0, 0, 0)),
        ("over before under temperature", 0x4202, pack("<BBBBhHHH", 6, 6, 0, 0, 5, 20, 0, 0)),
    ],
    "firmware": [
        ("info", 0x0200, b""),
        ("a whole image in the active slot", 0x0201, firmware_part(0, 1, 0, bytes(128))),
        ("into no such slot", 0x0201, firmware_part(0, 9, 0, bytes(128))),
        ("a part from nowhere", 0x0201, firmware_part(2, 2, 128, bytes(128))),
        ("an unknown action", 0x0201, firmware_part(9, 2, 0, bytes(128))),
        ("abort of nothing", 0x0201, firmware_part(4, 0, 0, b"")),
        ("activate an empty slot", 0x0202, bytes([0, 2])),
        ("activate no such slot", 0x0202, bytes([0, 9])),
        ("activate by no such action", 0x0202, bytes([7, 1])),
    ],
    "features": [
        ("supported", 0x0500, pack("<IHxx", 0x200, 0)),
        ("supported, too short a reply", 0x0500, pack("<IHxx", 4, 0)),
        ("supported, beyond the last", 0x0500, pack("<IHxx", 0x200, 0x1000)),
        ("no such feature", 0x0501, b"\x5a" * 16 + pack("<HHB", 0, 4, 0)),
        ("a feature without a name", 0x0501, bytes(16) + pack("<HHB", 0, 4, 0)),
        ("patrol scrub", 0x0501, PATROL_SCRUB + pack("<HHB", 0, 4, 0)),
        ("patrol scrub, no such selection", 0x0501, PATROL_SCRUB + pack("<HHB", 0, 4, 9)),
        ("patrol scrub, beyond its end", 0x0501, PATROL_SCRUB + pack("<HHB", 0x1000, 4, 0)),
        ("set no such feature", 0x0502, b"\x5a" * 16 + pack("<IHB9x", 0, 0, 1) + bytes(4)),
    ],
    "features, set": [
        ("a scrub each 24 hours", 0x0502, scrub_part(0, 0, b"\x18\1")),
        ("another version", 0x0502, scrub_part(0, 0, b"\x18\1", version=9)),
        ("nothing", 0x0502, scrub_part(0, 0, b"")),
        ("too much", 0x0502, scrub_part(0, 0, bytes(3))),
        ("beyond its end", 0x0502, scrub_part(0, 2, b"\1")),
        ("short", 0x0502, PATROL_SCRUB),
        ("the scrub now", 0x0501, PATROL_SCRUB + pack("<HHB", 0, 4, 0)),
        ("its last byte", 0x0501, PATROL_SCRUB + pack("<HHB", 3, 9, 0)),
        ("a part of nothing", 0x0502, scrub_part(2, 0, b"\x0c")),
        ("an end of nothing", 0x0502, scrub_part(3, 1, b"\0")),
        ("a first part", 0x0502, scrub_part(1, 0, b"\x0b")),
        ("get it meanwhile", 0x0501, PATROL_SCRUB + pack("<HHB", 0, 4, 0)),
        ("a first part of another", 0x0502, SOFT_PPR + pack("<IHB9x", 1, 0, 3) + b"\0"),
        ("a last part", 0x0502, scrub_part(3, 1, b"\0")),
        ("the scrub then", 0x0501, PATROL_SCRUB + pack("<HHB", 0, 4, 0)),
        ("no such step", 0x0502, scrub_part(6, 0, b"\x0c\1")),
    ],
    "repair": [
        ("soft PPR", 0x0501, SOFT_PPR + pack("<HHB", 0, 20, 0)),
        ("row sparing", 0x0501, ROW_SPARING + pack("<HHB", 0, 19, 0)),
        ("a row", 0x0600, pack("<BBBQ3x", 1, 0, 0, 0x1000)),
        ("a row beyond the end", 0x0600, pack("<BBBQ3x", 1, 0, 0, TOP)),
        ("a row, short", 0x0600, b"\1\0"),
        ("spare a row", 0x0600, b"\2\1" + bytes(14)),
        ("are there spare rows", 0x0600, b"\2\1\1" + bytes(13)),
        ("no such class", 0x0600, b"\x7f\0" + bytes(12)),
        ("no such subclass", 0x0600, b"\1\x7f" + bytes(12)),
        ("nothing", 0x0600, b""),
    ],
    "sanitize": [
        ("with a payload", 0x4400, b"\0"),
        ("media operations: discover", 0x4402, pack("<BB2xI", 0, 0, 0) + pack("<HH", 0, 8)),
        ("media operations: no such class", 0x4402, pack("<BB2xI", 9, 0, 0)),
        ("media operations: zero off a line", 0x4402, pack("<BB2xI", 1, 1, 1) + dpa_range(4, 64)),
        ("media operations: zero beyond the end", 0x4402, pack("<BB2xI", 1, 1, 1) + dpa_range(TOP, 64)),
        ("media operations: zero nothing", 0x4402, pack("<BB2xI", 1, 1, 0)),
        ("media operations: short", 0x4402, b"\1"),
    ],
    "security": [
        ("state", 0x4500, b""),
        ("state with a payload", 0x4500, b"\0"),
    ],
    "background": [
        ("abort with none under way", 0x0005, b""),
    ],
}
