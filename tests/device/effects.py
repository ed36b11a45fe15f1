"""What software can see of a device, sorted by the kinds of change that the Command Effects Log tells of.

Everything is asked for in commands, and the bytes in memory are looked at. What is only pending, such as the next
partitions or the firmware slot that is staged, is nobody's configuration yet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GENERAL_MEDIA_EVENT, EventHeader, GeneralMediaEvent
from softcxl.testing.driver import Driver

MIB: Final = 1 << 20
UNIT: Final = 256 * MIB
DYNAMIC: Final = 4 * UNIT
"""Where dynamic capacity begins."""

WRITTEN: Final = (0x1000, 2 * UNIT + 0x1000, DYNAMIC + 0x1000)
"""Where there are bytes: in volatile, persistent, dynamic capacity."""

# Bits of the log's entries, CXL 3.1 Table 8-75.
COLD, CONFIG, DATA, POLICY, LOG, SECURITY, BACKGROUND, SECONDARY, ABORT, VALID, CONVENTIONAL, CXL = (
    1 << bit for bit in range(12)
)

TOLD_BY: Final[Mapping[str, int]] = {
    "configuration": CONFIG,
    "labels": CONFIG | DATA,  # user data, which says how persistent capacity is divided
    "data": DATA,
    "policy": POLICY,
    "log": LOG,
    "security": SECURITY,
}
"""The bits that tell of a change in each aspect."""

Seen = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Bench:
    """A device, its clock by hand, and its driver."""

    device: Type3
    clock: ManualClock
    driver: Driver

    def send(self, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
        return self.driver.send(opcode, payload)

    def settle(self) -> None:
        """Let background operations end, and nothing else: it is shorter than the device's timeouts."""
        self.clock.advance(5)

    def reply(self, opcode: int, payload: bytes = b"") -> bytes | None:
        """What a command answers; None where it is refused, and so nothing can be seen."""
        code, answer = self.driver.send(opcode, payload)
        return answer if code == 0 else None

    def seen(self) -> Seen:
        """What can be seen, by aspect and by where it was seen."""
        reply = self.reply
        partitions, firmware, extents = reply(0x4100), reply(0x0200), reply(0x4801, struct.pack("<II", 99, 0))
        regions = reply(0x4800, b"\x08\0")
        timestamp = int.from_bytes(reply(0x0300) or b"", "little")
        return {
            "configuration": {
                "identity": reply(0x4000),
                "partitions": partitions and partitions[:16],
                "firmware": firmware and firmware[1] & 7,
                "regions": regions and regions[: 8 + 40],
                "cdat": self.driver.cdat(),
                "features": [reply(0x0501, feature(one)) for one in FEATURES],
                "effects log": reply(0x0401, CEL + struct.pack("<II", 0, 4 * len(self.device.cci.handlers))),
            },
            "labels": {"labels": reply(0x4102, struct.pack("<II", 0, 4000))},
            "data": {
                **{f"bytes at {dpa:#x}": self.device.space.read(dpa, 256) for dpa in WRITTEN},
                "poison": reply(0x4300, struct.pack("<QQ", 0, DYNAMIC // 64)),
                "extents": extents,
            },
            "policy": {
                "interrupts": reply(0x0102),
                "alerts": reply(0x4201),
                "shutdown": reply(0x4203),
                "congestion": reply(0x4700),
                "time set": bool(timestamp) and timestamp - int(self.clock.now() * 1e9),
            },
            "log": {
                **{log.name: self._records(log) for log in self.device.events.logs},
                "debug": reply(0x0401, DEBUG + struct.pack("<II", 0, 4000)),
                "state dump": (reply(0x0401, STATE_DUMP + struct.pack("<II", 0, 4000)),),
            },
            "security": {"state": reply(0x4500)},
        }

    def _records(self, log: EventLog) -> list[bytes] | None:
        answer = self.reply(0x0100, bytes([log]))
        if answer is None:
            return None
        return [answer[at : at + 128] for at in range(0x20, len(answer), 128)]


CEL: Final = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
STATE_DUMP: Final = bytes.fromhex("b3fab4cf01b64332943e5e9962f23567")
SCRUB: Final = bytes.fromhex("96dad7d6fde8482ba73375774e06db8a")
FEATURES: Final = (
    SCRUB,
    bytes.fromhex("e5b13f2223284a14b8bab9691e893386"),
    bytes.fromhex("892ba475fad8474e9d3e692c917568bb"),
    bytes.fromhex("450ebf67b1354f97a498c2d57f279bed"),
)
"""Patrol scrub, ECS, soft PPR, row sparing."""


def feature(identifier: bytes) -> bytes:
    """The payload of Get Feature."""
    return identifier + struct.pack("<HHB", 0, 64, 0)


DEBUG: Final = bytes.fromhex("5e1819d911a9400c811fd60719403d86")


def changed(before: Seen, after: Seen) -> set[str]:
    """The aspects in which `after` differs from `before`. Records that a log has beside those it had are the device's
    telling of what happens to it, which no command's entry is about; what cannot be seen is not compared."""
    found = set()
    for aspect, facts in before.items():
        for place, old in facts.items():
            new = after[aspect][place]
            if None in (old, new) or old == new:
                continue
            if aspect == "log" and new[: len(old)] == old:
                continue
            found.add(aspect)
    return found


def bench() -> Bench:
    """A device with something in every place: 512 MiB volatile, 512 MiB persistent, and 256 MiB that can come."""
    clock = ManualClock(1000.0)
    device = Type3(
        "mem0",
        volatile=2 * UNIT,
        persistent=2 * UNIT,
        label_storage=4096,
        partition_alignment=UNIT,
        dynamic=[DynamicRegion(length=UNIT)],
        clock=clock,
    )
    device.firmware.validate = lambda image: image[:16].rstrip(b"\0").decode()
    one = Bench(device, clock, Driver(device))
    one.send(0x4103, bytes(8) + bytes(range(1, 201)))
    one.send(0x0301, struct.pack("<Q", 10**18))
    device.dynamic.add(length=8 * MIB)
    one.send(0x4802, extents((DYNAMIC, 8 * MIB)))
    for dpa in WRITTEN:
        device.space.write(dpa, bytes(range(256)))
    device.record_event(EventLog.FATAL, GeneralMediaEvent(header=EventHeader(identifier=GENERAL_MEDIA_EVENT)))
    device.inject_poison(0x4000)
    device.logs.debug.note("a line of the debug log")
    one.send(0x4304, struct.pack("<QQB", 0, 1, 0))
    one.settle()
    return one


def extents(*ranges: tuple[int, int]) -> bytes:
    """The payload of Add Dynamic Capacity Response and of Release."""
    return struct.pack("<I4x", len(ranges)) + b"".join(struct.pack("<QQ8x", *one) for one in ranges)


# -- commands that change something ----------------------------------------------------------------------------

Step = Callable[[Bench], None]


def nothing(one: Bench) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Case:
    """A command that succeeds, and what of the device it changes: `now`, and with a cold reset, in other aspects or
    again, `cold`. `before` makes the state that it is sent in, `then` is done after it, before a reset."""

    name: str
    payload: bytes
    now: frozenset[str] = frozenset()
    cold: frozenset[str] = frozenset()
    before: Step = nothing
    then: Step = nothing


def does(*aspects: str) -> frozenset[str]:
    return frozenset(aspects)


SECRET: Final = b"secret".ljust(32, b"\0")
MASTER, USER = 0, 1


def passphrase(kind: int, current: bytes, new: bytes = b"") -> bytes:
    """The payload of Set and Disable Passphrase and of Passphrase Secure Erase."""
    return bytes([kind]).ljust(32, b"\0") + current.ljust(32, b"\0") + new


def protect(one: Bench) -> None:
    assert one.send(0x4501, passphrase(USER, b"", SECRET))[0] == 0


def locked(one: Bench) -> None:
    protect(one)
    one.device.security.power_on()


def transfer(one: Bench) -> None:
    assert one.send(0x0201, b"\0\2".ljust(128, b"\0") + b"acme 2")[0] == 1
    one.settle()


def activate_later(one: Bench) -> None:
    one.send(0x0202, b"\1\2")


def offer(one: Bench) -> None:
    one.device.dynamic.add(length=4 * MIB)


def gone_bad(one: Bench) -> None:
    one.device.poison.spoil(3 * UNIT)


def scrub_rate(*, saved: bool) -> bytes:
    """The payload of Set Feature for a patrol scrub in 24 hours."""
    return SCRUB + struct.pack("<IHB9x", 8 if saved else 0, 0, 1) + b"\x18\1"


CASES: Final[Mapping[int, tuple[Case, ...]]] = {
    0x0101: (Case("a record", struct.pack("<BBB3xH", EventLog.FATAL, 0, 1, 1), does("log")),),
    0x0103: (Case("two logs", b"\1\1\0\0", does("policy")),),
    0x0201: (
        Case(
            "an image", b"\0\2".ljust(128, b"\0") + b"acme 2", cold=does("configuration"), then=activate_later
        ),
    ),
    0x0202: (
        Case("online", b"\0\2", does("configuration"), does("configuration"), transfer),
        Case("later", b"\1\2", cold=does("configuration"), before=transfer),
    ),
    0x0301: (Case("another time", struct.pack("<Q", 1 << 60), does("policy")),),
    0x0403: (Case("the debug log", DEBUG, does("log")),),  # which does not outlive power
    0x0404: (Case("a state dump", STATE_DUMP, does("log")),),
    0x0502: (
        Case("a scrub rate", scrub_rate(saved=False), does("configuration")),
        Case("a saved one", scrub_rate(saved=True), does("configuration"), does("configuration")),
    ),
    0x0600: (Case("a hard repair", struct.pack("<BBBQ3x", 1, 1, 0, 0x8000)),),
    0x4101: (
        Case(
            "at once", struct.pack("<QB", 1, 1), does("configuration", "data"), does("configuration", "data")
        ),
        Case("later", struct.pack("<QB", 1, 0), cold=does("configuration", "data")),
    ),
    0x4103: (Case("a label", bytes(8) + b"label", does("labels"), does("labels")),),
    0x4202: (
        Case("a warning", struct.pack("<BBBxhhHH", 1, 1, 50, 0, 0, 0, 0), does("policy"), does("policy")),
    ),
    0x4204: (Case("dirty", b"\1", does("policy")),),
    0x4301: (Case("a line", struct.pack("<Q", 0x8000), does("data"), does("data")),),
    0x4302: (Case("a line", struct.pack("<Q", 0x4000) + bytes(64), does("data"), does("data")),),
    0x4304: (
        Case("a range", struct.pack("<QQB", 0, 4 * UNIT // 64, 1), does("data"), does("data"), gone_bad),
    ),
    0x4400: (Case("all", b"", does("data", "labels", "log"), does("data", "labels")),),
    0x4401: (Case("all", b"", does("data"), does("data")),),
    0x4402: (Case("zeros", struct.pack("<BB2xIQQ", 1, 1, 1, WRITTEN[1], 64), does("data"), does("data")),),
    0x4501: (
        Case("the user's", passphrase(USER, b"", SECRET), does("security"), does("security")),
        Case("the master's", passphrase(MASTER, b"", SECRET), does("security"), does("security")),
    ),
    0x4502: (Case("the user's", passphrase(USER, SECRET), does("security"), does("security"), protect),),
    0x4503: (Case("locked", SECRET, does("security"), before=locked),),
    0x4504: (Case("at once", b"", does("security")),),
    0x4505: (
        Case(
            "the user's",
            passphrase(USER, SECRET),
            does("security", "data"),
            does("security", "data"),
            protect,
        ),
    ),
    0x4701: (Case("thresholds", b"\3\x14\x28\4", does("policy")),),
    # What was taken is gone after a cold reset; that the list has changed once more its generation still says.
    0x4802: (Case("an offer", extents((DYNAMIC + 8 * MIB, 4 * MIB)), does("data"), does("data"), offer),),
    0x4803: (Case("an extent", extents((DYNAMIC, 8 * MIB)), does("data")),),
}
"""By opcode: between them they show every effect that the command's entry tells of."""

UNSEEN: Final[Mapping[int, frozenset[str]]] = {
    0x4304: does("data"),  # the poison was there before, and the list tells of it now
    0x4400: does(
        "log"
    ),  # the standard lists no log change, and has it erase event logs (CXL 3.1 §8.2.9.9.5.1)
}
"""Changes that an entry does not tell of, and why that is as the standard has it."""

SILENT: Final[Mapping[int, int]] = {
    0x0600: CONFIG,  # spare media in the place of others, which shows where they are bad
    0x4400: SECURITY,  # another key for the media, which nothing shows
    0x4401: SECURITY,
}
"""Effects that nothing shows, and why there is nothing."""

QUESTIONS: Final[Mapping[int, bytes]] = {
    0x0005: b"",
    0x0100: b"\0",
    0x0102: b"",
    0x0200: b"",
    0x0300: b"",
    0x0400: b"",
    0x0401: CEL + struct.pack("<II", 0, 4),
    0x0402: CEL,
    0x0405: b"\0\0",
    0x0500: struct.pack("<IHxx", 4096, 0),
    0x0501: SCRUB + struct.pack("<HHB", 0, 4, 0),
    0x4000: b"",
    0x4100: b"",
    0x4102: struct.pack("<II", 0, 64),
    0x4200: b"",
    0x4201: b"",
    0x4203: b"",
    0x4300: struct.pack("<QQ", 0, 4 * UNIT // 64),
    0x4303: struct.pack("<QQ", 0, 1),
    0x4305: b"",
    0x4500: b"",
    0x4601: struct.pack("<BH5x", 0, 0),
    0x4700: b"",
    0x4702: b"",
    0x4800: b"\x08\0",
    0x4801: struct.pack("<II", 8, 0),
}
"""By opcode: a payload with which a command that tells of no effect succeeds."""

REFUSING: Final = frozenset({0x4600})
"""Commands that tell of no effect because they refuse all that is sent."""
