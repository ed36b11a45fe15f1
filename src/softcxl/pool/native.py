"""The C core, with its errors: words, rings, queues, calls and regions in shared memory.

Its layout is `softcxl_pool.h` and `softcxl_region.h`, which a C program can use, too.
"""

from __future__ import annotations

from softcxl.pool import errors

try:
    from softcxl.pool._native import Caller, Memory, Queue, Region, Ring, Worker, set_errors
except ImportError as error:
    raise ImportError(
        "softcxl.pool was installed without its C core: a C compiler and Python's headers are needed "
        "(Debian, Ubuntu: gcc and python3-dev), then install SoftCXL again"
    ) from error

set_errors(
    {
        1: errors.Empty,
        2: errors.Full,
        3: errors.Closed,
        4: errors.TooLong,
        5: errors.Corrupt,
        6: errors.Foreign,
        7: errors.Lost,
        8: errors.Stale,
        9: errors.Unprotected,
        10: errors.Poisoned,
        11: errors.Failed,
        12: errors.Torn,
        13: errors.Unmapped,
        14: errors.Busy,
    }
)

__all__ = ["Caller", "Memory", "Queue", "Region", "Ring", "Worker"]
