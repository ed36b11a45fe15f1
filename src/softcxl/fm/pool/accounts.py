"""How much of the pool whoever has a name has of it, by the hash of the name, as regions' records have it."""

from __future__ import annotations

from collections.abc import Mapping

from softcxl.fm.pool.errors import Refusal
from softcxl.pool import layout
from softcxl.pool.protocol import Status
from softcxl.wire.sizes import format_size

OTHERS = "*"
"""Whoever has no quota of its own name: each of them may have as much."""

NOBODY = 0
"""The server's own regions count for nobody."""


class Accounts:
    """`quotas` are bytes by client name, `*` for every other name. They hold once `enforced` is set: what is there
    when a server starts stays, also where a quota is lower now."""

    def __init__(self, quotas: Mapping[str, int] | None) -> None:
        self._limits = {
            layout.identity(name): size for name, size in (quotas or {}).items() if name != OTHERS
        }
        self._names = {layout.identity(name): name for name in quotas or {} if name != OTHERS}
        self._others = (quotas or {}).get(OTHERS)
        self._used: dict[int, int] = {}
        self.enforced = False

    def used(self, identity: int) -> int:
        """Bytes that clients of that name have together."""
        return self._used.get(identity, 0)

    def limit(self, identity: int) -> int | None:
        """Bytes that they may have; None: as many as there are."""
        return self._limits.get(identity, self._others)

    def charge(self, identity: int, size: int) -> None:
        """Put bytes to an account, or take them from it with a negative number. Raises `Refusal` where that is too
        much; then nothing has changed."""
        if identity == NOBODY:
            return
        used = self._used.get(identity, 0)
        if size > 0 and self.enforced:
            limit = self._limits.get(identity, self._others)
            if limit is not None and used + size > limit:
                raise Refusal(
                    Status.QUOTA,
                    f"clients of this name may have {format_size(limit)} of the pool and have {format_size(used)}; "
                    f"{format_size(size)} more were asked for",
                )
        if used + size:
            self._used[identity] = used + size
        else:
            del self._used[identity]

    def told(self) -> list[dict[str, object]]:
        """The quotas by name, and what of them is used; last, as `*`, what every other name may have."""
        found: list[dict[str, object]] = [
            {"name": name, "limit": self._limits[identity], "used": self.used(identity)}
            for identity, name in sorted(self._names.items(), key=lambda one: one[1])
        ]
        if self._others is not None:
            found.append({"name": OTHERS, "limit": self._others, "used": None})
        return found
