"""A producer and a consumer at memory speed: what is large stays where it is, and only where goes through a ring.

    python examples/pool_stream.py            # both, in two processes
    python examples/pool_stream.py produce    # or one of them, in a process or a guest of its own
    python examples/pool_stream.py consume

The producer fills buffers in a region of the pool and sends references to them through one ring; the consumer reads
them in place, and sends back which it is through with by another. As there are several buffers, both work at once;
as there are no more, a producer that is faster waits.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

import softcxl
from softcxl.pool.errors import PoolError
from softcxl.pool.session import Pool

MIB = 1 << 20
BUFFER, BUFFERS, COUNT = 4 * MIB, 8, 256
PATIENCE = 30.0


def produce(pool: Pool) -> None:
    """Fill each buffer with its number, as often as it comes back."""
    with pool.allocate(BUFFER * BUFFERS) as region:
        filled = pool.ring("stream").producer()
        free = pool.ring("stream back").consumer()
        buffers = region.numpy(np.uint64, (BUFFERS, BUFFER // 8))
        for number in range(COUNT):
            at = number if number < BUFFERS else int.from_bytes(free.receive(PATIENCE), "little")
            buffers[at] = number
            filled.send_reference(region, at * BUFFER, BUFFER, kind=at, timeout=PATIENCE)
        for _ in range(min(COUNT, BUFFERS)):
            free.receive(PATIENCE)  # nobody reads there any more: the region may go
        filled.close()
        free.close()
        del buffers


def consume(pool: Pool) -> bool:
    """Add up what comes; returns whether it was what was sent."""
    filled = pool.ring("stream").consumer()
    free = pool.ring("stream back").producer()
    found, began = 0, 0.0
    for _ in range(COUNT):
        record = filled.receive_record(PATIENCE)
        began = began or time.perf_counter()
        assert record.reference is not None
        found += int(np.frombuffer(record.reference.view(), np.uint64).sum())
        free.send(record.kind.to_bytes(2, "little"), timeout=PATIENCE)
    spent = time.perf_counter() - began
    right = found == sum(range(COUNT)) * (BUFFER // 8)
    speed = COUNT * BUFFER / spent / 1e9
    print(
        f"{COUNT * BUFFER // MIB} MiB at {speed:.1f} GB/s, each byte written and read: {'right' if right else 'WRONG'}"
    )
    return right


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["produce"], ["consume"]):
        print("usage: pool_stream.py [produce | consume]", file=sys.stderr)
        return 2
    other = None if arguments else subprocess.Popen([sys.executable, __file__, "produce"])
    try:
        with softcxl.connect(name="stream") as pool:
            if arguments == ["produce"]:
                produce(pool)
                return 0
            right = consume(pool)
    except PoolError as error:
        print(f"pool_stream: {error}", file=sys.stderr)
        return 1
    finally:
        if other is not None:
            other.wait(PATIENCE)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
