"""What a pool's server tells of itself: in JSON, in pieces, as one answer is short."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from softcxl.fm.pool.errors import Refusal
from softcxl.pool import layout
from softcxl.pool.protocol import LARGEST, Status, TellAnswer, TellQuery

if TYPE_CHECKING:
    from softcxl.fm.pool.server import PoolServer

_MOST = LARGEST - TellAnswer.__layout__.size


class Telling:
    """What is told, by name, of a server; others add theirs to `tellers`."""

    def __init__(self, server: PoolServer) -> None:
        self._server = server
        self._told: dict[int, dict[str, bytes]] = {}
        self.tellers: dict[str, Callable[[], Any]] = {
            "sources": self._sources,
            "clients": self._clients,
            "server": self._of_server,
            "regions": self._regions,
            "quotas": server.accounts.told,
        }

    def handle(self, slot: int, data: bytes) -> bytes:
        """Answer a request for a piece."""
        asked = TellQuery.unpack(data)
        what = asked.what.rstrip(b"\0").decode(errors="replace")
        teller = self.tellers.get(what)
        if teller is None:
            raise Refusal(
                Status.UNKNOWN, f"nothing is told of {what!r}; of {', '.join(sorted(self.tellers))}"
            )
        told = self._told.setdefault(slot, {})
        if not asked.offset:
            told[what] = json.dumps(teller()).encode()
        text = told.get(what, b"")
        piece = text[asked.offset : asked.offset + _MOST]
        if asked.offset + len(piece) >= len(text):
            told.pop(what, None)
        return TellAnswer(total=len(text), piece=piece).pack()

    def forget(self, slot: int) -> None:
        """A client has gone."""
        self._told.pop(slot, None)

    def _sources(self) -> list[dict[str, Any]]:
        held_back = self._server.sources.cleaning.told()
        return [
            {
                "number": one.number,
                "name": one.name,
                "device": one.device,
                "switch": one.switch,
                "size": one.size,
                "available": one.space.available,
                "largest": one.space.largest,
                "fragmentation": round(one.space.fragmentation, 4),
                "state": one.state.name.lower(),
                "reason": one.reason,
                "regions": len(one.regions),
                "held_back": held_back.get(one.number, (0, ""))[0],
                "why_held_back": held_back.get(one.number, (0, ""))[1],
            }
            for one in self._server.sources.all.values()
        ]

    def _clients(self) -> list[dict[str, Any]]:
        server, told = self._server, []
        for slot, name in sorted(server.names.items()):
            record = server.directory.slot(slot)
            identity = server.clients.identities[slot]
            told.append(
                {
                    "slot": slot,
                    "epoch": record.word >> 24,
                    "name": name,
                    "host": layout.decode_name(record.host),
                    "pid": record.pid,
                    "used": server.accounts.used(identity),
                    "quota": server.accounts.limit(identity),
                }
            )
        return told

    def _of_server(self) -> dict[str, Any]:
        server = self._server
        return {
            "epoch": server.directory.epoch,
            "pid": os.getpid(),
            "lease": server.clients.lease,
            "regions": len(server.regions.known),
            "clients": len(server.names),
            "damaged": server.regions.damaged,
        }

    def _regions(self) -> dict[str, Any]:
        regions = self._server.regions
        return {
            "regions": len(regions.known) - regions.clearing.coming - regions.clearing.waiting,
            "named": len(regions.names),
            "clearing": regions.clearing.coming,
            "busy": regions.clearing.waiting,
            "bytes": sum(
                held.space.size - held.space.available
                for held in self._server.sources.all.values()
                if held.number
            ),
        }
