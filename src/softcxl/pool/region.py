"""A region of the pool's memory: bytes that are on one device or on several, and that programs share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from softcxl.pool import layout, native
from softcxl.pool.errors import PoolError, Refused, Stale
from softcxl.pool.layout import Mode, RegionFlag
from softcxl.pool.protocol import Named, Opcode

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from softcxl.pool.session import Pool


@dataclass(frozen=True)
class Copy:
    """One copy of a region: where it is, and what of it."""

    source: int
    offset: int
    healthy: bool
    joining: bool
    poisoned: bool


@dataclass(frozen=True)
class RegionInfo:
    """What the directory says of a region."""

    index: int
    generation: int
    name: str
    size: int
    owner: int
    mode: Mode
    flags: RegionFlag
    copies: tuple[Copy, ...]

    @classmethod
    def of(cls, index: int, record: layout.RegionRecord) -> Self:
        """From a region's record."""
        copies = []
        for copy in range(min(record.copies, layout.MAX_COPIES)):
            source, offset = layout.split(getattr(record, f"extent{copy}"))
            bit = 1 << copy
            copies.append(
                Copy(
                    source,
                    offset,
                    bool(record.healthy & bit),
                    bool(record.joining & bit),
                    bool(record.poisoned & bit),
                )
            )
        mode = Mode(record.mode) if record.mode in tuple(Mode) else Mode.PRIVATE
        flags = RegionFlag(record.flags & 7)
        name = layout.decode_name(record.name)
        return cls(index, record.word >> 24, name, record.size, record.owner, mode, flags, tuple(copies))


class Region:
    """A region as one client has it. From any thread; `Pool.allocate` and `Pool.open` make them.

    Offsets and sizes are bytes. A write is there whole or not at all, in every copy, whoever dies over it, where there
    are two or more copies, or the region is `atomic`; with one copy a writer that dies leaves a torn range, which reads
    say until it is written anew. Every method raises `Stale` once the region was freed.
    """

    def __init__(self, pool: Pool, index: int, generation: int, size: int, own: bool = False) -> None:
        self._pool = pool
        self.index = index
        self.generation = generation
        self.size = size
        self._own = own
        self._closed = False
        self._views = 0
        self._made: Any = None

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def info(self) -> RegionInfo:
        """What the directory says of it now."""
        at = self._pool.header.regions_at + 256 * self.index
        record = layout.RegionRecord.unpack(self._pool.map(layout.ARENA)[at : at + 256])
        if record.word != self.generation << 24 | layout.RegionState.LIVE:
            raise Stale(f"region {self.index} was freed")
        return RegionInfo.of(self.index, record)

    @property
    def name(self) -> str:
        """Its name, empty where it has none."""
        return self.info.name

    def named(self) -> Named:
        """Its name in requests."""
        return Named(index=self.index, generation=self.generation, name=b"")

    # -- bytes -----------------------------------------------------------------------------------------------

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset`, to the end without a size; from any healthy copy, and of no write a part.

        Raises `Refused` outside the region, `Poisoned`, `Torn`, `Failed` where no copy can be read.
        """
        found: bytes = self._native.read(*self._range(offset, size))
        return found

    def read_into(self, offset: int, buffer: Any) -> None:
        """Fill a writable buffer with the bytes from `offset` on."""
        self._range(offset, memoryview(buffer).nbytes)
        self._native.read_into(offset, buffer)

    def write(self, offset: int, data: Any) -> None:
        """Write the bytes of `data` from `offset` on: when this returns every healthy copy has them."""
        self._range(offset, memoryview(data).nbytes)
        try:
            self._native.write(offset, data)
        except PoolError:
            self._pool.ask(Opcode.JOURNAL, b"")
            self._native.write(offset, data)

    def load(self, offset: int) -> int:
        """The 64-bit word at `offset`, a multiple of 8."""
        return int(self._native.load(offset))

    def swap(self, offset: int, old: int, new: int) -> bool:
        """Put `new` in the 64-bit word at `offset` if `old` is there. Returns whether it was."""
        return bool(self._native.swap(offset, old, new))

    def add(self, offset: int, by: int) -> int:
        """Add to the 64-bit word at `offset`, wrapping. Returns what it then is."""
        return int(self._native.add(offset, by))

    @contextlib.contextmanager
    def locked(self, timeout: float | None = None) -> Iterator[Self]:
        """Nobody else writes meanwhile; the lock of one who dies is taken from it.

        Raises `Empty` after `timeout` seconds.
        """
        self._native.lock(timeout)
        try:
            yield self
        finally:
            self._native.unlock()

    def view(self) -> memoryview:
        """The bytes themselves, without a copy: the region's memory as it is mapped.

        Of a region with one copy it can be written, and what is written is there at once, for all, 8 bytes at a
        time; none of what `write` promises holds. Of one with several it is read-only and shows one healthy copy:
        if that one fails, the view does not follow. The region stays where it is until it is closed.
        """
        self._pool.ask(Opcode.PIN, self.named().pack())
        self._views += 1
        info = self.info
        chosen = next((copy for copy in info.copies if copy.healthy), None)
        if chosen is None:
            raise PoolError(f"region {self.index} has no healthy copy")
        whole = memoryview(self._pool.map(chosen.source))[chosen.offset : chosen.offset + self.size]
        return whole if len(info.copies) == 1 else whole.toreadonly()

    def numpy(self, dtype: DTypeLike = "u1", shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """`view` as an array of numpy; all of the region in one dimension without a shape."""
        import numpy as np

        kind = np.dtype(dtype)
        if shape is None:
            shape = (self.size // kind.itemsize,)
        count = int(np.prod(shape, dtype=np.int64))
        if count < 0 or count * kind.itemsize > self.size:
            raise Refused(f"{shape} of {kind}: the region has {self.size} bytes")
        return np.frombuffer(self.view(), kind, count).reshape(shape)

    # -- ending ----------------------------------------------------------------------------------------------

    def free(self) -> None:
        """Give it back. See `Pool.free`."""
        self._closed = True
        self._pool.free(self)

    def close(self) -> None:
        """Be through with it, and with its views: one without a name that is this client's own is freed."""
        if self._closed:
            return
        self._closed = True
        try:
            for _ in range(self._views):
                self._pool.ask(Opcode.UNPIN, self.named().pack())
            self._pool.ask(Opcode.CLOSE, self.named().pack())
        except Stale:
            pass  # it was freed, or the pool has forgotten this client: then it is closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"<Region {self.index} of {self.size} bytes in {self._pool.address}>"

    @property
    def _native(self) -> Any:
        made = self._made
        if made is None:
            pool = self._pool
            made = self._made = vars(native)["Region"](
                pool.directory, self.index, self.generation, pool.memories(), pool.slot, pool.epoch
            )
        return made

    def _range(self, offset: int, size: int | None) -> tuple[int, int]:
        if size is None:
            size = self.size - offset
        if offset < 0 or size < 0 or offset + size > self.size:
            raise Refused(f"{size} bytes at {offset}: the region has {self.size}")
        return offset, size
