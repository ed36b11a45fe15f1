"""What a firmware image costs, from its first part to the end of its verification.

Images go through the mailbox in parts that fill its payload, as Linux sends them, and are looked at in the background,
which is not waited for. The floor is what cannot be spared: the bytes of each part copied into the mailbox, out of it,
and together; and one SHA-256 of the whole. Both take turns in the same run. "To the first" divides the cost of a MiB by
the smallest image's: 1 is linear.

    python benchmarks/firmware.py [--json] [--sizes MIB ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import time

from commands import table

from softcxl.device.clock import ManualClock
from softcxl.device.firmware import image
from softcxl.device.type3 import Type3
from softcxl.testing.driver import Driver

MIB = 1 << 20
INITIATE, CONTINUE, END = 1, 2, 3
HEAD = 128


def transferred(data: bytes, payload: int) -> float:
    """Seconds until a device has taken `data` in."""
    device = Type3("mem0", volatile=256 * MIB, payload=payload, clock=ManualClock())
    driver, size = Driver(device), payload - HEAD
    start = time.perf_counter()
    for at in range(0, len(data), size):
        action = END if at + size >= len(data) else CONTINUE if at else INITIATE
        head = struct.pack("<BBxxI", action, 2, at // HEAD).ljust(HEAD, b"\0")
        code, _ = driver.send(0x0201, head + data[at : at + size])
        if code not in (0, 1):
            raise SystemExit(f"part at {at:#x}: return code {code:02X}h")
    device.cci.finish()
    spent = time.perf_counter() - start
    if driver.background()[3]:
        raise SystemExit(f"the image was rejected: {device.logs.debug.data!r}")
    device.close()
    return spent


def floor(data: bytes, payload: int) -> float:
    """Seconds of copying and digesting them."""
    mailbox, size, whole = bytearray(payload), payload - HEAD, bytearray()
    start = time.perf_counter()
    for at in range(0, len(data), size):
        part = data[at : at + size]
        mailbox[HEAD : HEAD + len(part)] = part
        whole += bytes(mailbox[HEAD : HEAD + len(part)])
    hashlib.sha256(bytes(whole)).digest()
    return time.perf_counter() - start


def measure(sizes: list[int]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    first: dict[int, float] = {}
    for payload in (4096, MIB // 2):
        for size in sizes:
            data = image("bench 2", os.urandom(size * MIB - 64))
            least, ours = floor(data, payload), transferred(data, payload)
            rows.append(
                {
                    "mailbox payload": payload,
                    "image MiB": size,
                    "parts": -(-len(data) // (payload - HEAD)),
                    "s": round(ours, 3),
                    "MiB/s": round(size / ours),
                    "ratio to floor": round(ours / least, 1),
                    "ratio to the first": round(ours / size / first.setdefault(payload, ours / size), 2),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description="firmware images through the mailbox, against copies of them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 64], help="of the images, in MiB")
    asked = parser.parse_args()
    rows = measure(asked.sizes)
    print(json.dumps(rows, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
