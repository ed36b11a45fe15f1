"""The way to the pool inside a guest by memory alone: a CXL region of a pool-memory device, as device DAX.

The region's front (`softcxl.spec.pool_region`) tells what is where behind it; programs ask and ring by words there, at
which the server looks about once a millisecond. It takes root, or the rights to the device's file.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import threading
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Final

from softcxl.pool import layout, processor
from softcxl.pool.errors import Foreign, NoServer
from softcxl.pool.link import Mapped, Place, hello, welcomed
from softcxl.pool.native import Memory
from softcxl.pool.protocol import Opcode
from softcxl.spec import pool_region as spec
from softcxl.spec.pool_region import CellState

SYSFS: Final = Path("/sys/bus/dax/devices")
DEVICES: Final = Path("/dev")

_OFFSETS: Final = layout.offsets(spec.FrontHeader)
_NAP: Final = 0.0005
"""Seconds between looks at a word that somebody is to write."""
_SILENCE: Final = 5.0
"""Seconds after which a server whose beat stands still has gone."""
_RINGS: Final = 20
"""How often a ring is tried where all bells are taken, a nap apart: then the server has gone, or is far behind."""


def regions(sysfs: Path = SYSFS, devices: Path = DEVICES) -> list[str]:
    """The dax devices of this machine (`dax0.0`) that are CXL regions and begin as a pool's does, sorted; those that
    this program may not read aside."""
    found = []
    for path in sysfs.glob("dax*"):
        with contextlib.suppress(OSError, ValueError):
            if _of_cxl(path) and _driver(path) != "kmem" and _begins(devices / path.name):
                found.append(path.name)
    return sorted(found)


class DaxLink:
    """The pool in the dax device at `path` (`/dev/dax0.0`), a CXL region of a pool-memory device; without one in the
    only one of this machine.

    Raises `NoServer` where there is none, or it may not be used, `Foreign` where something else is there, and `Refused`
    as `softcxl.pool.processor.check`.
    """

    coherence: Final = "host"

    def __init__(self, path: str | None = None, *, sysfs: Path = SYSFS, devices: Path = DEVICES) -> None:
        processor.check()
        if path is None:
            known = regions(sysfs, devices)
            if len(known) != 1:
                which = f"; say which: {', '.join(f'dax:{devices / one}' for one in known)}" if known else ""
                raise NoServer(f"this machine has {len(known)} dax devices with a pool{which}")
            path = str(devices / known[0])
        self.path = Path(path)
        self._given = Place()
        self._alone = threading.Lock()
        self._beat, self._since = -1, 0.0
        self._closed = False
        size = _size(sysfs / self.path.name)
        self._map = self._mapped(spec.ALIGNMENT, 0)
        header = spec.FrontHeader.unpack(self._map[: spec.FrontHeader.__layout__.size])
        if (header.magic, header.version) != (spec.MAGIC, spec.VERSION):
            raise Foreign(
                f"{self.path} begins with {header.magic:#x}, version {header.version}: no pool, or none that this "
                "client knows"
            )
        if size is not None and size < header.size:
            raise NoServer(
                f"{self.path} has {size} bytes, and the pool takes {header.size}: make the region anew, as large as "
                "the device (cxl create-region without --size)"
            )
        self._memory = Memory(self._map)

    @property
    def address(self) -> str:
        return f"dax:{self.path}"

    def pieces(self) -> dict[int, tuple[int, int]]:
        """Of each source that is there, the arena's number 0, its place in the region and its size in bytes."""
        found, size = {}, spec.PieceEntry.__layout__.size
        for number in range(spec.ENTRIES):
            at = spec.TABLE_OFFSET + number * size
            one = spec.PieceEntry.unpack(self._map[at : at + size])
            if one.size:
                found[number] = one.offset, one.size
        return found

    def _mapped(self, size: int, offset: int) -> mmap.mmap:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                return mmap.mmap(fd, size, offset=offset)
            finally:
                os.close(fd)
        except (OSError, ValueError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise NoServer(f"{self.path} cannot be mapped, {size:#x} bytes at {offset:#x}: {why}") from error

    # -- the link ----------------------------------------------------------------------------------------------------

    def attach(self, name: str, place: Place) -> Mapped:
        if self.gone():
            raise NoServer(f"no server is behind {self.path}")
        welcome = welcomed(*self._ask(0, Opcode.HELLO, hello(name, place), None), f" behind {self.path}")
        self._given = Place(welcome.slot, welcome.epoch, welcome.token)
        wanted = {layout.ARENA, *(one.number for one in welcome.sources)}
        there = self.pieces()
        if not wanted <= there.keys():
            raise Foreign(f"{self.path} has no memory of the sources {sorted(wanted - there.keys())}")
        maps = {number: self._mapped(size, at) for number, (at, size) in there.items() if number in wanted}
        files: dict[int, Hashable] = {number: (str(self.path), number) for number in maps}
        return Mapped(self._given, welcome.server, welcome.lease / 1000, maps, files)

    def gone(self) -> bool:
        """Whether the server has left, or has not looked at the front for some seconds."""
        if self._closed:
            return True
        if not self._map[_OFFSETS["ready"]]:
            return True
        beat, now = self._memory.load(_OFFSETS["beat"]), time.monotonic()
        if beat != self._beat:
            self._beat, self._since = beat, now
        return now - self._since > _SILENCE

    def fileno(self) -> int:
        return -1

    def ask(self, opcode: int, data: bytes, timeout: float | None = None) -> tuple[int, bytes]:
        return self._ask(self._given.slot, opcode, data, timeout)

    def _ask(self, slot: int, opcode: int, data: bytes, timeout: float | None) -> tuple[int, bytes]:
        if len(data) > spec.PAYLOAD_SIZE:
            raise ValueError(f"a request of {len(data)} bytes; {spec.PAYLOAD_SIZE} are the most")
        until = None if timeout is None else time.monotonic() + timeout
        with self._alone:
            while True:
                number, owner = self._claim(until)
                word = spec.WORDS_OFFSET + 8 * number
                place = spec.CELLS_OFFSET + spec.CELL_SIZE * number
                payload = place + spec.HEAD_SIZE
                head = spec.CellHead(slot=slot, opcode=opcode, length=len(data), status=0)
                self._map[payload : payload + len(data)] = data
                self._map[place:payload] = head.pack()
                claimed, asked, answered = (
                    spec.word_of(owner, one)
                    for one in (CellState.CLAIMED, CellState.ASKED, CellState.ANSWERED)
                )
                if not self._memory.swap(word, claimed, asked):
                    continue  # it took us so long that the cell was given up
                while (found := self._memory.load(word)) == asked:
                    self._nap(until)
                if found != answered:
                    raise NoServer(
                        f"the pool behind {self.path} has forgotten a request: the guest's region is anew"
                    )
                head = spec.CellHead.unpack(self._map[place:payload])
                answer = self._map[payload : payload + min(head.length, spec.PAYLOAD_SIZE)]
                if self._memory.swap(word, answered, 0):
                    return head.status, answer

    def _claim(self, until: float | None) -> tuple[int, int]:
        """A free cell, and by what number it is ours."""
        owner = secrets.randbits(55) + 1
        while True:
            for number in range(spec.CELLS):
                if self._memory.swap(
                    spec.WORDS_OFFSET + 8 * number, 0, spec.word_of(owner, CellState.CLAIMED)
                ):
                    return number, owner
            self._nap(until)

    def _nap(self, until: float | None) -> None:
        if self.gone() or (until is not None and time.monotonic() > until):
            raise NoServer(f"the pool behind {self.path} does not answer")
        time.sleep(_NAP)

    # -- sleeping and waking -------------------------------------------------------------------------------------------

    def ring(self, offset: int) -> None:
        """Wake who sleeps on the word of the arena at `offset`, wherever they are."""
        bell = spec.bell_of(offset)
        for _ in range(_RINGS):
            for turn in range(spec.BELLS):
                if self._closed:
                    return
                at = spec.BELLS_OFFSET + 8 * ((offset // layout.LINE + turn) % spec.BELLS)
                if self._memory.swap(at, 0, bell) or self._memory.load(at) == bell:
                    return
            time.sleep(_NAP)

    def rest(self, offset: int, seconds: float) -> None:
        """Sleep for a nap: who is rung here looks himself, and again."""
        time.sleep(min(seconds, _NAP))

    def close(self) -> None:
        """The front stays mapped until whoever rings by it has done."""
        self._closed = True


def _of_cxl(path: Path) -> bool:
    return any(part.startswith("dax_region") for part in path.resolve().parts)


def _driver(path: Path) -> str:
    driver = path / "driver"
    return driver.resolve().name if driver.exists() else ""


def _size(path: Path) -> int | None:
    """Bytes of a dax device, None where sysfs does not know it. Raises `NoServer` for one that programs cannot map."""
    if not path.exists():
        return None
    if _driver(path) == "kmem":
        raise NoServer(
            f"Linux has {path.name} as its own memory (kmem), and writes anywhere in it: make it one that programs map "
            f"(daxctl reconfigure-device -m devdax -f {path.name}), before anything else is done"
        )
    ways = path.resolve().parents[1] / "interleave_ways"
    if ways.exists() and ways.read_text().strip() != "1":
        raise NoServer(
            f"{path.name} is interleaved over {ways.read_text().strip()} devices; a pool's region is of one alone"
        )
    return int((path / "size").read_text())


def _begins(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with mmap.mmap(fd, spec.ALIGNMENT, prot=mmap.PROT_READ) as found:
            return int.from_bytes(found[:8], "little") == spec.MAGIC
    finally:
        os.close(fd)
