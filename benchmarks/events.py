"""What 10,000 events cost on their way through a device's log, from the event to the record that is cleared.

The device logs what happens as long as its log has room; then its driver fetches and clears through the mailbox, as
operating systems do, until the log is empty: at each depth of the log the same events. The floor is a deque of records
packed by `struct`, joined for each fetch and dropped. Both take turns in the same run; figures are medians. "To the
first" divides by the shallowest log's: 1 is a cost that does not grow with what a log holds.

    python benchmarks/events.py [--json] [--events N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from collections import deque
from statistics import median

from commands import table

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GENERAL_MEDIA_EVENT, EventHeader, GeneralMediaEvent
from softcxl.testing.driver import Driver

MIB = 1 << 20
DEPTHS = (15, 1000, 10_000)
FETCHED = 31
"""Records that a reply of 4096 bytes holds."""


def through(depth: int, count: int) -> float:
    """Seconds of an event through a real device's log."""
    device = Type3("mem0", volatile=256 * MIB, event_log_depth=depth, clock=ManualClock())
    driver = Driver(device)
    event = GeneralMediaEvent(header=EventHeader(identifier=GENERAL_MEDIA_EVENT))
    left, seen = count, 0
    start = time.perf_counter()
    while left:
        for _ in range(min(depth, left)):
            device.record_event(EventLog.WARNING, event)
            left -= 1
        while True:
            reply = driver.send(0x0100, b"\1")[1]
            (found,) = struct.unpack_from("<H", reply, 0x14)
            if not found:
                break
            handles = [reply[at : at + 2] for at in range(0x20 + 0x14, len(reply), 0x80)]
            driver.send(0x0101, struct.pack("<BBB3x", 1, 0, found) + b"".join(handles))
            seen += found
    spent = time.perf_counter() - start
    device.close()
    if seen != count:
        raise SystemExit(f"{seen} of {count} events came through")
    return spent / count


def floor(depth: int, count: int) -> float:
    """Seconds of an event through a deque."""
    log: deque[bytes] = deque()
    record = struct.Struct("<16sB3xHHQ92x")
    left = count
    start = time.perf_counter()
    while left:
        for _ in range(min(depth, left)):
            log.append(record.pack(GENERAL_MEDIA_EVENT.bytes, 128, left & 0xFFFF, 0, 0))
            left -= 1
        while log:
            found = min(len(log), FETCHED)
            b"".join([log[at] for at in range(found)])
            for _ in range(found):
                log.popleft()
    return (time.perf_counter() - start) / count


def measure(count: int, rounds: int) -> list[dict[str, object]]:
    pairs: dict[int, list[tuple[float, float]]] = {depth: [] for depth in DEPTHS}
    for _ in range(rounds):
        for depth in DEPTHS:
            pairs[depth].append((through(depth, count), floor(depth, count)))
    first = median(ours for ours, _ in pairs[DEPTHS[0]])
    return [
        {
            "log depth": depth,
            "events": count,
            "us/event": round(1e6 * median(ours for ours, _ in found), 2),
            "events/s": round(1 / median(ours for ours, _ in found)),
            "ratio to floor": round(median(ours / least for ours, least in found), 1),
            "ratio to the first": round(median(ours for ours, _ in found) / first, 2),
        }
        for depth, found in pairs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="events through the log, against a deque")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    parser.add_argument("--events", type=int, default=10_000, help="events at each depth")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median is taken")
    asked = parser.parse_args()
    rows = measure(asked.events, asked.rounds)
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
