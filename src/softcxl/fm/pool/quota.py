"""How much of the pool each client may have, by its name, and how much it has.

What counts is what a region takes: all of its copies, in whole granules. Clients of one name share an account. What
one has left behind, named regions that stay when their owner goes, stays in its account until it is freed. Channels and
tables of calls are the pool's own, and count for nobody.

>>> quotas = Quotas({"train": 1 << 29, "*": 1 << 20})
>>> quotas.charge("train", 1 << 28, copies=2)
>>> quotas.charge("train", 4096)
Traceback (most recent call last):
    ...
softcxl.pool.errors.QuotaExceeded: 'train' may have 512MiB of the pool and has 512MiB; 4KiB more were asked for
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from softcxl.pool.errors import QuotaExceeded
from softcxl.wire.sizes import format_size

OTHERS = "*"
"""Whoever has no quota of its own name: each of them may have as much."""


class Quotas:
    """The accounts of clients. `limits` are bytes by client name; under `OTHERS` is each other client's."""

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self._limits = dict(limits or {})
        self._others = self._limits.pop(OTHERS, None)
        self._used: dict[str, int] = {}

    def limit(self, name: str) -> int | None:
        """Bytes that clients of this name may have together; None: as many as there are."""
        return self._limits.get(name, self._others)

    def used(self, name: str) -> int:
        """Bytes that clients of this name have."""
        return self._used.get(name, 0)

    def accounts(self) -> dict[str, tuple[int, int | None]]:
        """Bytes had and allowed, by name: whoever has something, or has a quota of its own name."""
        names = sorted(self._used.keys() | self._limits.keys())
        return {name: (self.used(name), self.limit(name)) for name in names}

    def charge(self, name: str, size: int, copies: int = 1) -> None:
        """Put a region of `size` bytes (what each copy takes) to an account. QuotaExceeded says what is allowed; then
        nothing has changed."""
        used = self._used.get(name, 0)
        total = used + size * copies
        limit = self._limits.get(name, self._others)
        if limit is not None and total > limit:
            asked = format_size(size * copies) + (
                f" ({copies} copies of {format_size(size)})" if copies > 1 else ""
            )
            raise QuotaExceeded(
                f"{name!r} may have {format_size(limit)} of the pool and has {format_size(used)}; "
                f"{asked} more were asked for"
            )
        self._used[name] = total

    def release(self, name: str, size: int, copies: int = 1) -> None:
        """Take a region from an account. ValueError: there is not as much in it."""
        left = self._used.get(name, 0) - size * copies
        if left < 0:
            raise ValueError(
                f"{name!r} has {self.used(name)} bytes; {size * copies} cannot be taken from them"
            )
        if left:
            self._used[name] = left
        else:
            self._used.pop(name, None)

    def restore(self, regions: Iterable[tuple[str, int]]) -> None:
        """Make the accounts anew from what there is: name and bytes taken (all copies) of each region.

        What is there stays, also where a quota has been lowered meanwhile: that account gets nothing more.
        """
        self._used.clear()
        for name, size in regions:
            self._used[name] = self._used.get(name, 0) + size
