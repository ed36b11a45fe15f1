"""The C core, with its errors: words, rings, queues, calls and regions in shared memory.

Its layout is that of the headers in `core`, which a C program can use, too. Where it could not be built there
are `softcxl.pool.fallback`'s rings, and what else there is here raises `NativeMissing`; `CORE` says which it is.
"""

from __future__ import annotations

from typing import Final

from softcxl.pool import errors

try:
    from softcxl.pool._native import (
        Asking,
        Caller,
        Exchanger,
        Life,
        Memory,
        Pointed,
        Queue,
        Receiver,
        Region,
        Ring,
        Sender,
        Worker,
        emulated,
        set_errors,
    )
except ModuleNotFoundError:  # one that is there and cannot be loaded says so itself
    from softcxl.pool.fallback import (  # type: ignore[assignment]
        Asking,
        Caller,
        Exchanger,
        Life,
        Memory,
        Pointed,
        Queue,
        Receiver,
        Region,
        Ring,
        Sender,
        Worker,
        emulated,
    )

    set_errors = None  # type: ignore[assignment]

CORE: Final = set_errors is not None
"""Whether the C core is there."""

if CORE:
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

__all__ = [
    "CORE",
    "Asking",
    "Caller",
    "Exchanger",
    "Life",
    "Memory",
    "Pointed",
    "Queue",
    "Receiver",
    "Region",
    "Ring",
    "Sender",
    "Worker",
    "emulated",
]
