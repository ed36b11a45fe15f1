"""Sends a door what no client should, for as long as it takes, and checks that it stays what it was.

    python -m tests.transport.fuzz_vfio_user --messages 1000000 --seed 1

One process: the door's thread, a bystander's door, and this client. Messages are drawn at random around the valid
ones: right, with a field changed, cut, too long, with descriptors that do not belong, pipelined, or plain noise.
After every so many the port is asked through a fresh connection, and open files, threads and mappings are counted.
Prints a table; ends with status 1 at the first thing that is wrong, after saying the seed and the number of the
message.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import select
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from struct import pack

from softcxl.testing.vfio_client import Client, Gone
from softcxl.transport.vfio_user import Door
from tests.transport.conftest import holdings
from tests.transport.ports import BAR, CONFIG, ScratchPort

COMMANDS = [9] * 8 + [10] * 8 + [2, 3] * 4 + [8] * 6 + [4, 5, 7, 13, 15] * 2
COMMANDS += [1, 6, 11, 12, 14, 16, 17, 18, 0, 99]
HOOKED = (0xF000, 0xF010, 0xF020)
"""Places of BAR 0 where the port fires interrupts, reads guest memory, writes it."""
EDGES = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    17,
    19,
    20,
    24,
    31,
    32,
    33,
    48,
    64,
    0x1000,
    0x1001,
    0x2000,
    0xFFFF,
    0x10000,
]
EDGES += [
    0x100000,
    0x100001,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    1 << 63,
    (1 << 64) - 0x1000,
    (1 << 64) - 1,
]


class Fuzzer:
    """Draws messages; `pool` holds descriptors to send along."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pool = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(24)]
        self.files = [os.memfd_create("guest", os.MFD_ALLOW_SEALING) for _ in range(4)]
        for fd in self.files[:3]:
            os.ftruncate(fd, 0x4000)
        self.pipe = os.pipe()
        self.mapped = [(0, 0x1000)]

    def close(self) -> None:
        for fd in [*self.pool, *self.files, *self.pipe]:
            os.close(fd)

    def number(self, bits: int) -> int:
        draw = self.random
        value = draw.choice(EDGES) if draw.random() < 0.7 else draw.getrandbits(bits)
        return value & ((1 << bits) - 1)

    def place(self) -> tuple[int, int, int]:
        """Offset, region and count of an access."""
        draw = self.random
        if draw.random() < 0.1:
            return self.number(64), self.number(32), self.number(32)
        if draw.random() < 0.2:
            return draw.choice(HOOKED), BAR, draw.choice([1, 2, 4, 8])
        return draw.randrange(0x1000), draw.choice([BAR, BAR, CONFIG, 2, 4]), draw.choice([1, 2, 4, 8, 64])

    def payload(self, command: int) -> tuple[bytes, list[int]]:
        draw, n32, n64 = self.random, lambda: self.number(32), lambda: self.number(64)
        fds: list[int] = []
        match command:
            case 1:
                texts = [
                    b"{}",
                    b'{"capabilities":{}}',
                    b'{"capabilities":{"max_msg_fds":16}}',
                    b"[1,2",
                    b"\xff",
                ]
                return pack("<HH", draw.choice([0, 0, 1]), 0) + draw.choice(texts) + b"\0", fds
            case 2:
                address = 0x1000 * draw.randrange(0, 64) if draw.random() < 0.9 else n64()
                size = 0x1000 * draw.randrange(1, 5) if draw.random() < 0.9 else n64()
                if draw.random() < 0.7:
                    fds = [draw.choice([*self.files, self.pool[0], self.pipe[0]])]
                offset = draw.choice([0, 0, 0, 0, 0x1000, n64()])
                self.mapped = [*self.mapped[-15:], (address, size)]
                return pack(
                    "<IIQQQ",
                    draw.choice([32] * 9 + [n32()]),
                    draw.choice([3] * 7 + [2, 1, 0, n32()]),
                    offset,
                    address,
                    size,
                ), fds
            case 3:
                address, size = draw.choice(self.mapped)
                if draw.random() < 0.1:
                    return pack("<IIQQ", 24, 2, 0, 0), fds
                return pack(
                    "<IIQQ",
                    24,
                    draw.choice([0] * 9 + [1, n32()]),
                    address & (1 << 64) - 1,
                    size & (1 << 64) - 1,
                ), fds
            case 4 | 6 | 7:
                return pack(
                    "<IIII",
                    draw.choice([16, 16, 16, n32()]),
                    0,
                    draw.choice([1, 2, draw.randrange(10), n32()]),
                    0,
                ), fds
            case 5:
                return pack(
                    "<IIIIQQ",
                    draw.choice([32, 64, 80, n32()]),
                    0,
                    draw.choice([0, draw.randrange(10), n32()]),
                    0,
                    0,
                    0,
                ), fds
            case 8:
                count = draw.choice([0, 1, 1, 2, 4, n32()])
                kind, action = draw.choice([1, 2, 4]), draw.choice([8, 16, 32])
                flags = kind | action if draw.random() < 0.9 else n32()
                data = bytes(draw.randrange(2) for _ in range(min(count, 8))) if kind == 2 else b""
                if kind == 4 and draw.random() < 0.8:
                    fds = draw.sample(self.pool, min(count, 20))
                index = draw.choice([1, 2, 2, 0, draw.randrange(6), n32()])
                start = draw.choice([0, 0, 1, draw.randrange(33), n32()])
                return pack(
                    "<IIIII", 20 + len(data) if draw.random() < 0.9 else n32(), flags, index, start, count
                ) + data, fds
            case 9:
                offset, region, count = self.place()
                return pack("<QII", offset, region, count), fds
            case 10:
                offset, region, count = self.place()
                data = draw.randbytes(min(count, 64))
                return pack("<QII", offset, region, len(data) if draw.random() < 0.9 else n32()) + data, fds
            case 15:
                writes = [pack("<QII8s", *self.place(), draw.randbytes(8)) for _ in range(draw.randrange(4))]
                return pack("<Q", len(writes) if draw.random() < 0.9 else n64()) + b"".join(writes), fds
        return draw.randbytes(draw.choice([0, 0, 8, 16, 20])), fds

    def message(self) -> tuple[bytes, list[int], int]:
        """A message, its descriptors, and its command."""
        draw = self.random
        command = draw.choice(COMMANDS)
        payload, fds = self.payload(command)
        fate = draw.random()
        if fate < 0.06 and payload:
            payload = payload[: draw.randrange(len(payload))]
        elif fate < 0.12:
            payload += draw.randbytes(draw.randrange(1, 40))
        elif fate < 0.2 and payload:
            at = draw.randrange(len(payload))
            payload = payload[:at] + bytes([draw.randrange(256)]) + payload[at + 1 :]
        if draw.random() < 0.02:
            fds = draw.sample([*self.pool, *self.files, *self.pipe], draw.randrange(1, 24))
        size, flags = 16 + len(payload), draw.choice([0] * 30 + [0x10] * 5 + [0x20, 0x30, 1, 0x21])
        ident = draw.getrandbits(16)
        fate = draw.random()
        if fate < 0.0005:
            size = draw.choice([0, 15, 0x100021, 0xFFFFFFFF])
        elif fate < 0.001:
            flags |= draw.randrange(2, 16)
        elif fate < 0.0015:
            return draw.randbytes(draw.randrange(1, 64)), fds, -1
        elif fate < 0.002:
            size += draw.randrange(1, 200)  # swallows what comes next
        return pack("<HHIII", ident, command, size, flags, 0) + payload, fds, command


def drain(client: Client, draw: random.Random, seen: Counter[str]) -> None:
    """Take whatever the server has sent; answer its commands well, badly or not at all. Raises `Gone`."""
    ready = select.poll()
    ready.register(client, select.POLLIN)
    while ready.poll(0):
        message = client.receive()
        for fd in message.fds:
            os.close(fd)
        if not message.is_reply:
            seen["commands"] += 1
            payload = draw.choice(
                [message.payload[:16] + bytes(16), message.payload, b"", draw.randbytes(20)]
            )
            if draw.random() < 0.7:
                client.reply(message, payload, draw.choice([0, 0, 0, 14, 22]))
        elif message.header.flags.error:
            seen["refusals"] += 1
            if message.payload:
                raise AssertionError(f"an error with a payload: {message}")
        else:
            seen["replies"] += 1


def hook(port: ScratchPort, draw: random.Random) -> None:
    """Let the port use its bus at `HOOKED`."""

    def fetch(size: int) -> bytes:
        assert port.bus is not None
        try:
            return port.bus.dma_read(0x1000 * draw.randrange(64) + draw.randrange(0x1000), size)
        except OSError:
            return bytes(size)

    def store(data: bytes) -> None:
        assert port.bus is not None
        try:
            port.bus.dma_write(0x1000 * draw.randrange(64) + draw.randrange(0x1000), data)
        except OSError:
            pass

    def fire(_: bytes) -> None:
        assert port.bus is not None
        port.bus.interrupt(draw.choice([0, 1, 1, 2, 2, 3, 4, 9]), draw.randrange(3))

    port.on_write[HOOKED[0]] = fire
    port.on_read[HOOKED[1]] = fetch
    port.on_write[HOOKED[2]] = store


def run(messages: int, seed: int, every: int = 20000) -> Counter[str]:
    """Send `messages`; the result is what was seen. Raises `AssertionError` at the first thing that is wrong."""
    fuzzer = Fuzzer(seed)
    seen: Counter[str] = Counter()
    port, calm = ScratchPort(), ScratchPort()
    hook(port, random.Random(seed))
    with tempfile.TemporaryDirectory() as folder:  # noqa: SIM117
        with Door(port, Path(folder, "a"), dma_timeout=0.001) as door, Door(calm, Path(folder, "b")) as other:
            with Client(other.path) as bystander:
                bystander.negotiate()
                check(door, port)
                before = holdings()
                client: Client | None = None
                for number in range(messages):
                    if client is None:
                        client = Client(door.path, timeout=20)
                        seen["connections"] += 1
                        if fuzzer.random.random() < 0.98:
                            client.negotiate()
                    data, fds, _ = fuzzer.message()
                    try:
                        if fuzzer.random.random() < 0.02 and len(data) > 1:
                            cut = fuzzer.random.randrange(1, len(data))
                            client.send_bytes(data[:cut], fds[:2])
                            client.send_bytes(data[cut:], fds[2:])
                        else:
                            client.send_bytes(data, fds)
                        # Replies fit into the socket for this long.
                        if number % 16 == 0 or len(data) > 4096:
                            drain(client, fuzzer.random, seen)
                        if fuzzer.random.random() < 0.0005:
                            raise Gone("of its own will")
                    except Gone:
                        client.close()
                        client = None
                    if number % every == every - 1:
                        if client is not None:
                            client.close()
                            client = None
                        check(door, port)
                        assert bystander.read(CONFIG, 0, 4) == bytes(range(4)), "the bystander's door"
                        port.calls.clear()
                        now = holdings()
                        assert now == before, f"left behind after {number + 1}: {now} where {before} was"
                        print(
                            f"{number + 1:>9} messages, {len(now[0])} files, {len(now[1])} threads",
                            flush=True,
                        )
                if client is not None:
                    client.close()
                assert (other.traffic.refused, other.traffic.protocol_errors) == (0, 0)
            traffic = door.traffic
    fuzzer.close()
    port.close()
    calm.close()
    seen["messages"] = messages
    for name in (
        "reads",
        "writes",
        "refused",
        "protocol_errors",
        "dma_maps",
        "dma_unmaps",
        "interrupts",
        "dma_direct",
        "dma_messages",
        "faults",
    ):
        seen[f"door: {name}"] = getattr(traffic, name)
    assert traffic.faults == 0, "the port was given what it should not have been"
    return seen


def check(door: Door, port: ScratchPort) -> None:
    """The door still does what it should, for a client that comes now; and the one before has left."""
    with Client(door.path, timeout=20) as client:
        client.negotiate()
        client.write(BAR, 0x40, b"still ok")
        assert client.read(BAR, 0x40, 8) == b"still ok"
        port.detached.clear()
    assert port.detached.wait(20), "the port was not detached"


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz a vfio-user door")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"seed {arguments.seed}")
    start = time.monotonic()
    try:
        seen = run(arguments.messages, arguments.seed)
    except AssertionError as failure:
        print(f"FAILED: {failure}")
        return 1
    for name, count in sorted(seen.items()):
        print(f"{name:<24}{count:>12}")
    print(f"{'messages a second':<24}{arguments.messages / (time.monotonic() - start):>12.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
