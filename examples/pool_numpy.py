"""A numpy array that processes share: each works on its rows in place, and nothing is copied or sent.

    python examples/pool_numpy.py

The array lies in a region of the pool with one copy, which can be looked at as it is: `numpy()` is an array in that
very memory, as `view()` is a memoryview of it. Every process that opens the region by its name has the same bytes.
"""

from __future__ import annotations

import multiprocessing
import sys

import numpy as np

import softcxl
from softcxl.pool.errors import PoolError

SHAPE = (1024, 4096)
WORKERS = 4
NAME = "numpy example"


def work(number: int) -> None:
    """Square this worker's rows."""
    with softcxl.connect() as pool, pool.open(NAME) as region:
        mine = region.numpy(np.float64, SHAPE)[number::WORKERS]
        np.square(mine, out=mine)
        del mine  # what looks at the memory goes before the region is closed


def main() -> int:
    with softcxl.connect() as pool:
        region = pool.allocate(8 * SHAPE[0] * SHAPE[1], name=NAME)
        try:
            shared = region.numpy(np.float64, SHAPE)
            shared[:] = np.arange(shared.size).reshape(SHAPE)
            # Each process connects itself: a connection to the pool is not for sharing with a fork.
            with multiprocessing.get_context("spawn").Pool(WORKERS) as workers:
                workers.map(work, range(WORKERS))
            expected = np.square(np.arange(shared.size, dtype=np.float64)).reshape(SHAPE)
            right = bool((shared == expected).all())
            print(
                f"{WORKERS} processes squared {shared.nbytes >> 20} MiB in place: {'right' if right else 'WRONG'}"
            )
            del shared
        finally:
            region.close()
            pool.free(NAME)
    return 0 if right else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PoolError as error:
        print(f"pool_numpy: {error}", file=sys.stderr)
        sys.exit(1)
