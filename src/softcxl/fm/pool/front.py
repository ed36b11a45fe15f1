"""A pool's server behind memory alone: programs of a guest ask and ring by words of a region's front
(`softcxl.spec.pool_region`), at which the server looks again and again.

Nothing there is to be trusted: a guest writes what it likes, and hurts nobody but its own programs.
"""

from __future__ import annotations

import logging
import mmap
import struct
import threading
import time
from typing import Final, Protocol, Self

from softcxl.fm.pool.guests import Guests, Visitor
from softcxl.pool import layout
from softcxl.pool.native import Memory
from softcxl.pool.protocol import Status
from softcxl.spec import pool_region as spec
from softcxl.spec.pool_region import CellState

log = logging.getLogger(__name__)

SHORTEST: Final = 0.0001
"""Seconds asleep after a look that has found something; twice as many after each that has not."""
LONGEST: Final = 0.001
"""Seconds asleep at most while a program is there: 900 looks a second, 35 µs each, are 3 % of a processor."""
ALONE: Final = 0.02
"""Seconds asleep while none is, and so what the first one's request may wait: 0.5 % of a processor."""
PATIENCE: Final = 5.0
"""Seconds for which a cell is its owner's, who has to be quick: then he is taken for dead."""

_READY: Final = struct.Struct("<I")
_WATCHED: Final = slice(spec.BELLS_OFFSET, spec.WORDS_OFFSET + 8 * spec.CELLS)
_QUIET: Final = bytes(_WATCHED.stop - _WATCHED.start)
_OFFSETS: Final = layout.offsets(spec.FrontHeader)


class Region(Protocol):
    """A device whose memory is the pool's (`softcxl.device.access.PoolMemory`)."""

    @property
    def name(self) -> str: ...
    @property
    def visitor(self) -> Visitor:
        """The guest that has it."""

    @property
    def front_fd(self) -> int:
        """The file that its front is."""

    @property
    def decoded(self) -> bool:
        """A guest has a region of it now."""

    @property
    def comings(self) -> int:
        """Goes up whenever a guest has gone, or has started anew."""


class Front:
    """Answers for `guests` at the front of `region`, by a thread of its own, from `with` on until its end."""

    def __init__(self, guests: Guests, region: Region) -> None:
        self._guests, self._region = guests, region
        self._map = mmap.mmap(region.front_fd, spec.ALIGNMENT)
        self._memory = Memory(self._map)
        self._claims: dict[int, tuple[int, float]] = {}
        self._comings = region.comings
        self._here = False
        """Somebody has asked since the guest came."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"front of {region.name}", daemon=True)

    def __enter__(self) -> Self:
        self._clear()
        _READY.pack_into(self._map, _OFFSETS["ready"], 1)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        _READY.pack_into(self._map, _OFFSETS["ready"], 0)

    def _run(self) -> None:
        pause = ALONE
        while not self._stop.wait(pause):
            try:
                found = self.look()
            except Exception:
                log.exception("%s: the pool's server failed; a bug", self._region.name)
                found = False
            most = LONGEST if self._here else ALONE
            pause = SHORTEST if found else min(2 * pause, most)

    def look(self) -> bool:
        """Do what there is to be done; whether there was anything."""
        region = self._region
        if region.comings != self._comings or (self._here and not region.decoded):
            self._comings = region.comings
            self._left()
        if not region.decoded:
            return False
        self._memory.add(_OFFSETS["beat"], 1)
        if self._map[_WATCHED] == _QUIET:
            return False
        found = False
        for at in range(spec.BELLS_OFFSET, spec.BELLS_OFFSET + 8 * spec.BELLS, 8):
            bell = self._memory.load(at)
            if bell and self._memory.swap(at, bell, 0):
                self._guests.ring(spec.rung(bell))
                found = True
        for number in range(spec.CELLS):
            found |= self._attend(number)
        return found

    def _attend(self, number: int) -> bool:
        """See to a cell; whether something was asked there."""
        at = spec.WORDS_OFFSET + 8 * number
        word = self._memory.load(at)
        if not word:
            self._claims.pop(number, None)
            return False
        if word & 0xFF != CellState.ASKED:
            known, since = self._claims.setdefault(number, (word, time.monotonic()))
            if known != word:
                self._claims[number] = word, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                self._memory.swap(at, word, 0)
            return False
        self._here = True
        place = spec.CELLS_OFFSET + spec.CELL_SIZE * number
        head = spec.CellHead.unpack(self._map[place : place + spec.HEAD_SIZE])
        payload = place + spec.HEAD_SIZE
        if head.length > spec.PAYLOAD_SIZE:
            status, answer = (
                int(Status.MALFORMED),
                f"a request of {head.length} bytes; {spec.PAYLOAD_SIZE} are the most".encode(),
            )
        else:
            status, answer = self._ask(head, self._map[payload : payload + head.length])
        answer = answer[: spec.PAYLOAD_SIZE]
        self._map[payload : payload + len(answer)] = answer
        head.length, head.status = len(answer), status
        self._map[place : place + spec.HEAD_SIZE] = head.pack()
        self._memory.swap(at, word, spec.word_of(word >> 8, CellState.ANSWERED))
        return True

    def _ask(self, head: spec.CellHead, request: bytes) -> tuple[int, bytes]:
        try:
            return self._guests.ask(self._region.visitor, head.slot, head.opcode, request)
        except Exception:
            log.exception("%s: the pool's server failed; a bug", self._region.name)
            return Status.FAILED, b"the pool's server failed"

    def _left(self) -> None:
        """The guest has gone, and all of its programs."""
        self._clear()
        if self._here:
            self._here = False
            self._guests.gone(self._region.visitor)

    def _clear(self) -> None:
        self._claims.clear()
        self._map[_WATCHED] = _QUIET
