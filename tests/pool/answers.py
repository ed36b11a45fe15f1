"""What a server says to who comes, for tests of those who listen."""

from __future__ import annotations

from collections.abc import Sequence

from softcxl.pool.protocol import SourceFile, Welcome


def welcome(sources: Sequence[tuple[int, int, int]] = (), *, slot: int = 3, protocol: int = 1) -> bytes:
    """A `Welcome` to slot 3 with sources, each as number, offset and size: epoch 5, server 9, a lease of 2.5 s."""
    told = [SourceFile(number=number, offset=offset, size=size) for number, offset, size in sources]
    return Welcome(
        protocol=protocol, slot=slot, epoch=5, token=b"t" * 16, server=9, lease=2500, sources=told
    ).pack()
