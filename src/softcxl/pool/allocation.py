"""What a client asks for when it allocates: its arguments, checked, as the bytes of a request."""

from __future__ import annotations

from typing import Final

from softcxl.pool import arguments, layout
from softcxl.pool.layout import Mode, RegionFlag
from softcxl.pool.protocol import Allocate, Policy, Separate, request_numbers

LARGEST: Final = 1 << 55
"""Bytes of a region, at most: half of what a pool address reaches in one source."""

_MODES: Final = {"private": Mode.PRIVATE, "read": Mode.READ, "write": Mode.WRITE}
_POLICIES: Final = {"spread": Policy.SPREAD, "pack": Policy.PACK}
_SEPARATE: Final = {"device": Separate.DEVICE, "switch": Separate.SWITCH}

_PLAIN: Final = 64
assert layout.offsets(Allocate)["request"] == 8


class Requests:
    """A client's allocations: each request has a number, so that one that is made twice allocates once.

    `plain` has requests for regions without a name or lease, by what else was said of them: the bytes before the number
    and those behind it. A program that allocates a million regions of a kind has it checked and packed once.
    """

    def __init__(self) -> None:
        self.numbers = request_numbers()
        self.plain: dict[tuple[object, ...], tuple[bytes, bytes]] = {}

    def pack(
        self,
        size: int | str,
        replicas: int,
        policy: str,
        separate: str,
        atomic: bool,
        mode: str,
        name: str | None = None,
        lease: float = 0,
    ) -> bytes:
        """One more request, an `Allocate`. Raises `Refused` for what cannot be."""
        data = Allocate(
            size=arguments.size(size, LARGEST),
            request=next(self.numbers),
            copies=arguments.count(replicas, 1, layout.MAX_COPIES, "replicas"),
            policy=arguments.one_of(policy, _POLICIES, "policy"),
            separate=arguments.one_of(separate, _SEPARATE, "separate"),
            mode=arguments.one_of(mode, _MODES, "mode"),
            flags=RegionFlag.ATOMIC if atomic else 0,
            source=0,
            lease=round(arguments.seconds(lease, "lease") * 1000),
            reserved0=b"",
            name=arguments.name(name) if name is not None else b"",
        ).pack()
        if name is None and not lease:
            if len(self.plain) >= _PLAIN:
                self.plain.clear()
            self.plain[size, replicas, policy, separate, atomic, mode] = data[:8], data[16:]
        return data
