"""A memory device whose memory is the pool's: guests reach the pool by a CXL region of it, by loads and stores."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from softcxl.device.access.server import Memory, Visitor
from softcxl.device.type3 import Type3
from softcxl.memory.assembled import Assembled, Piece
from softcxl.memory.media import Medium
from softcxl.memory.places import Shared
from softcxl.pci.region import Bus
from softcxl.spec import pool_region as spec
from softcxl.wire import Reset

log = logging.getLogger(__name__)

_ARENA = ""


class PoolMemory(Type3):
    """The device called `name`, with room for the pool's arena of so many bytes, and for its memory of these `sizes`
    (bytes), by name: behind its front (`softcxl.spec.pool_region`) each has its place, whether it is there or not.

    A volatile Type 3 device, of which only one window shows the memory: one of its own, from its first byte on, without
    interleave. What erases a device's memory, a command or a loss of power, erases none of the pool's. Whoever serves
    the pool has it show the memory (`show`), and sees to its front as long as `decoded`.

    >>> device = PoolMemory("way", 16 << 20, {"mem0": 256 << 20})
    >>> hex(device.capacity.volatile), hex(device.needed)
    ('0x20000000', '0x11200000')
    >>> device.close()
    """

    device_id = spec.POOL_MEMORY_ID

    def __init__(self, name: str, arena: int, sizes: Mapping[str, int], **options: Any) -> None:
        self._sizes = {_ARENA: arena, **sizes}
        found, self.needed = spec.places(self._sizes.values())
        self._places = dict(zip(self._sizes, found, strict=True))
        self._assembled = Assembled(name, spec.capacity(self._sizes.values()))
        self.front = Medium.memfd(f"{name}-front", spec.ALIGNMENT)
        self.host = ""
        """The host that has it in a port."""
        self.comings = 0
        """Goes up whenever a guest has gone, or has started anew."""
        try:
            super().__init__(name, volatile=self._assembled.size, medium=self._assembled, **options)
        except BaseException:
            self.front.close()
            raise
        self._owned.callback(self._assembled.close)
        self._owned.callback(self.front.close)
        self.show(())

    @property
    def visitor(self) -> Visitor:
        """The guest that comes by it."""
        return Visitor(self.name, self.host)

    @property
    def front_fd(self) -> int:
        """The file that its front is; it stays the device's."""
        return self.front.fd

    @property
    def decoded(self) -> bool:
        """A decoder is committed: somebody has a region of it."""
        return any(one.size for one in self.decoders.mappings)

    def show(self, memories: Sequence[Memory]) -> None:
        """Have these memories be what it is made of, beside its front. Those that it has no place for, or a smaller
        one, are not shown. Guests that run have what there was when they began."""
        pieces = [Piece(0, spec.ALIGNMENT, self.front.fd)]
        table = [spec.PieceEntry(offset=0, size=0, name=b"")] * spec.ENTRIES
        for one in memories:
            name = one.name if one.source else _ARENA
            room = self._sizes.get(name, 0)
            if one.size > room or one.source >= spec.ENTRIES:
                log.warning("%s: it has no room for %s, %#x bytes", self.name, one.name, one.size)
                continue
            place = self._places[name]
            pieces.append(Piece(place, one.size, one.fd, one.offset))
            table[one.source] = spec.PieceEntry(offset=place, size=one.size, name=one.name.encode())
        self._assembled.assemble(pieces)
        header = spec.FrontHeader(
            magic=spec.MAGIC,
            version=spec.VERSION,
            ready=0,
            size=self.needed,
            beat=0,
            table=spec.TABLE_OFFSET,
            entries=spec.ENTRIES,
            bells=spec.BELLS_OFFSET,
            bell_count=spec.BELLS,
            words=spec.WORDS_OFFSET,
            cells=spec.CELLS_OFFSET,
            cell_count=spec.CELLS,
            cell_size=spec.CELL_SIZE,
        )
        self.front.write(spec.TABLE_OFFSET, b"".join(one.pack() for one in table))
        self.front.write(0, header.pack())

    # -- what befalls it -------------------------------------------------------------------------------------------

    def _shared_memory(self) -> Shared:
        return Shared(0, self._assembled)

    @property
    def own_ranges(self) -> list[tuple[int, int]]:
        return []

    def is_others(self, dpa: int, length: int) -> bool:
        return True

    def clear_volatile(self) -> None:
        """It has lost its power, and the pool has not."""

    def attach(self, bus: Bus) -> None:
        self.comings += 1
        super().attach(bus)

    def detach(self) -> None:
        super().detach()
        self.comings += 1

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        if not kind.of_function:
            self.comings += 1
