"""What clients ask of poison: which lines of a region are lost, and that some are good that were just written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.errors import Refusal
from softcxl.pool.errors import Busy, Stale
from softcxl.pool.protocol import (
    LARGEST,
    Heal,
    Named,
    PoisonAnswer,
    PoisonedRange,
    PoisonQuery,
    Status,
)

if TYPE_CHECKING:
    from softcxl.fm.pool.server import PoolServer

_MOST = (LARGEST - PoisonAnswer.__layout__.size) // PoisonedRange.__layout__.size


class Poisoned:
    """Answers for a server, without its lock."""

    def __init__(self, server: PoolServer) -> None:
        self._server = server

    def query(self, slot: int, data: bytes) -> bytes:
        """Which bytes of a region are poisoned, in which copy."""
        server = self._server
        asked = PoisonQuery.unpack(data)
        with server.lock:
            index = server.regions.find(Named(index=asked.index, generation=asked.generation, name=b""))
            one = server.regions.known[index]
            if asked.offset + asked.length > one.size:
                raise Refusal(
                    Status.MALFORMED, f"{asked.length} bytes at {asked.offset}: the region has {one.size}"
                )
            places = []
            for copy, extent in enumerate(one.extents):
                held = server.sources.all.get(extent >> 56)
                if held is not None and held.source is not None:
                    begin = extent & (1 << 56) - 1
                    # First what was told: as soon as it is so it is the source's to say
                    told = server.health.about_to_be(held, begin + asked.offset, asked.length)
                    places.append((copy, begin, held.source, told))
        found = []
        for copy, begin, source, told in places:
            for at, length in {*told, *source.poisoned(begin + asked.offset, asked.length)}:
                found.append(PoisonedRange(copy=copy, offset=max(at - begin, 0), length=length))
        found.sort(key=lambda one: one.offset)  # who asks goes on from the last
        return PoisonAnswer(more=int(len(found) > _MOST), ranges=found[:_MOST]).pack()

    def heal(self, slot: int, data: bytes) -> bytes:
        """Lines that were written are good again."""
        server = self._server
        asked = Heal.unpack(data)
        with server.lock:
            index = server.regions.find(Named(index=asked.index, generation=asked.generation, name=b""))
            one = server.regions.known[index]
            server.regions.check_writer(slot, index)
            if asked.offset + asked.length > one.size:
                raise Refusal(
                    Status.MALFORMED, f"{asked.length} bytes at {asked.offset}: the region has {one.size}"
                )
            server.regions.clearing.work_begins(index)
        try:
            region, copies = server.rebuilder.copier.open(index, one), Copies(server.directory, index)
            done = server.rebuilder.repairer.heal(region, copies, asked.offset, asked.length, asked.health)
        except Busy:
            done = False
        except Stale:
            raise Refusal(Status.GONE, f"region {index} was freed meanwhile") from None
        finally:
            with server.lock:
                server.regions.clearing.work_ends(index)
        if not done:
            raise Refusal(Status.BUSY, f"region {index}: somebody writes it, or there is more poison")
        return b""
