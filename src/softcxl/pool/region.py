"""A region of the pool's memory: bytes that are on one device or on several, and that programs share."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from softcxl.pool import errors, layout, native
from softcxl.pool.coherence import Managed, Shadow, exported, over
from softcxl.pool.errors import Corrupt, PoolError, Refused
from softcxl.pool.info import Copy, RegionInfo, RegionStat
from softcxl.pool.opened import Opened
from softcxl.pool.poison import Poison
from softcxl.pool.protocol import Heal, Opcode

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from softcxl.pool.session import Pool

_TRIES: Final = 16
"""How often a read, or a request to heal, is tried that something has come between."""
_HEALING: Final = 30.0
"""Seconds for which one reads, or writes, where new poison comes all the while."""
_PAUSE: Final = 0.005
_WORD: Final = (1 << 64) - 1


class Region(Opened):
    """A region as one client has it. From any thread; `Pool.allocate` and `Pool.open` make them.

    Offsets and sizes are bytes. A write is there whole or not at all, in every copy, whoever dies over it, where there
    are two or more copies, or the region is `atomic`; with one copy a writer that dies leaves a torn range, which reads
    say until it is written anew. A read gets the bytes of one moment: those of a write that is under way are all old or
    all new in it. Where one copy is healthy of several, or the region is `atomic`, a write of more than the journal's
    length (1 MiB) is as many writes.

    What reads or writes raises `Refused` outside of the region, `Stale` once the region was freed or the pool has taken
    this client for dead or was left, `Closed` once the region was closed here. What it is (`info`, `name`) is told as
    long as it is there, and whoever may free it may do so when it is closed.
    """

    __slots__ = ("_poison", "_unhealed")

    def __init__(self, pool: Pool, index: int, generation: int, size: int, own: bool = False) -> None:
        self._unhealed: list[Heal] = []
        self._poison: Poison | None = None
        super().__init__(pool, index, generation, size, own)

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def stat(self) -> RegionStat:
        """How it is: its copies, what of it is torn or poisoned, who is at it."""
        info = self.info
        poisoned = self._poisoned().ranges if any(one.poisoned for one in info.copies) else ()
        return RegionStat(
            info,
            sum(one.healthy for one in info.copies),
            sum(one.joining for one in info.copies),
            self._native.torn,
            poisoned,
            self._pool.views_of(self.index, self.generation),
        )

    # -- bytes -----------------------------------------------------------------------------------------------

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset`, to the end without a size; from any healthy copy, and of no write a part.

        A copy that fails meanwhile, or has poison there, is passed over: where each line of 64 bytes is good in some
        copy there is no error. Raises `Poisoned` with the lines that are lost in all of them, `Torn` with the range
        that a dead writer has left, `Failed` where no copy is healthy.
        """
        if size is None:
            size = self.size - offset
        if offset < 0 or size < 0 or offset + size > self.size:
            self._outside(offset, size)
        try:
            return self._native.read(offset, size)
        except PoolError as error:
            into = bytearray(size)
            self._read_anyway(offset, memoryview(into), error)
            return bytes(into)

    def read_into(self, offset: int, buffer: Any) -> None:
        """Fill a writable buffer, contiguous, with the bytes from `offset` on; as `read`. Where it raises the buffer
        may hold anything."""
        if not 0 <= offset <= self.size:
            self._outside(offset, memoryview(buffer).nbytes)
        try:
            self._native.read_into(offset, buffer)
        except IndexError:
            self._outside(offset, memoryview(buffer).nbytes)
        except PoolError as error:
            self._read_anyway(offset, memoryview(buffer).cast("B"), error)

    def write(self, offset: int, data: Any, timeout: float | None = None) -> None:
        """Write the bytes of `data`, contiguous, from `offset` on: when this returns every healthy copy has them.

        Lines of 64 bytes that are lost in every copy are good again when all of each is written.

        Raises `Denied` where others may only read, `Busy` where somebody has had the lock for `timeout` seconds,
        `Failed` where no copy is healthy.
        """
        if not self._writable or not 0 <= offset <= self.size:
            self._check_write(offset, memoryview(data).nbytes)
        one = self._native
        if one.poisoned:
            self._write_over_poison(offset, data, timeout)
            return
        try:
            one.write(offset, data, timeout)
        except IndexError:
            self._outside(offset, memoryview(data).nbytes)
        except PoolError as error:
            self._write_again(offset, data, timeout, error)

    def _write_again(self, offset: int, data: Any, timeout: float | None, error: PoolError) -> None:
        self._again(lambda: self._native.write(offset, data, timeout), error, timeout)

    def load(self, offset: int) -> int:
        """The 64-bit word at `offset`, a multiple of 8."""
        self._check_word(offset)
        try:
            return self._native.load(offset)
        except PoolError:
            return int.from_bytes(self.read(offset, 8), "little")

    def swap(self, offset: int, old: int, new: int) -> bool:
        """Put `new` in the 64-bit word at `offset`, a multiple of 8, if `old` is there. Returns whether it was."""
        self._check_word(offset)
        self._check_write(offset, 8)
        if not 0 <= old <= _WORD or not 0 <= new <= _WORD:
            raise Refused(f"{old:#x} and {new:#x}: a word has 64 bits, without a sign")
        try:
            return self._native.swap(offset, old, new)
        except errors.Poisoned:
            return self._change(offset, lambda found: new if found == old else found) == old
        except PoolError as error:
            return bool(self._again(lambda: self._native.swap(offset, old, new), error))

    def add(self, offset: int, by: int) -> int:
        """Add to the 64-bit word at `offset`, a multiple of 8, wrapping. Returns what it then is."""
        self._check_word(offset)
        self._check_write(offset, 8)
        wrapped = ((by + (1 << 63)) & _WORD) - (1 << 63)
        try:
            return self._native.add(offset, wrapped)
        except errors.Poisoned:
            return (self._change(offset, lambda found: (found + by) & _WORD) + by) & _WORD
        except PoolError as error:
            return int(self._again(lambda: self._native.add(offset, wrapped), error))

    @contextlib.contextmanager
    def locked(self, timeout: float | None = None) -> Iterator[Self]:
        """Nobody else writes meanwhile; the lock of one who dies is taken from it.

        Raises `Busy` after `timeout` seconds. One thread has it: what that reads and writes within needs no other.
        """
        if self._holder == threading.get_ident():
            raise Refused(f"this thread has the lock of {self._called()} already")
        one = self._again(lambda: self._lock(timeout), timeout=timeout)
        self._holder = threading.get_ident()
        try:
            yield self
        finally:
            self._holder = 0
            try:
                one.unlock()
            except PoolError as error:
                raise self._explained(error) from None
            finally:
                unhealed, self._unhealed = self._unhealed, []
                if self._moved:
                    self.remap()
            for asked in unhealed:
                self._heal(asked)  # or else its lines are lost yet, and reads say so

    # -- views -----------------------------------------------------------------------------------------------

    @overload
    def view(self, *, coherence: Literal["host"] | None = None) -> memoryview: ...
    @overload
    def view(
        self, *, coherence: Literal["managed"], drop: Literal[True], evict: float = 0.0, seed: int = 0
    ) -> Shadow: ...
    @overload
    def view(
        self, *, coherence: Literal["managed"], drop: bool | None = None, evict: float = 0.0, seed: int = 0
    ) -> Managed: ...
    def view(
        self,
        *,
        coherence: Literal["host", "managed"] | None = None,
        drop: bool | None = None,
        evict: float = 0.0,
        seed: int = 0,
    ) -> memoryview | Managed:
        """The bytes themselves, without a copy: the region's memory as it is mapped.

        Of a region with one copy it can be written, where this client may, and what is written is there at once, 8
        aligned bytes at a time; none of what `write` promises holds. Of one with several copies it is read-only and
        shows one healthy copy: if that one fails, the view does not follow. The memory stays the region's and where it
        is for as long as the view is there, or any slice or array of it; freed or not.

        `coherence` says how programs on other hosts are to see what is written here: `"host"`, a memoryview of memory
        that caches keep the same for all; or `"managed"`, where others see what was flushed, when they have
        invalidated it (`Managed`). Without it the view is a memoryview, and the pool must be one host's. With `drop`
        (the pool's `drop_unflushed` without it) a managed view is a `Shadow`, which loses what is not flushed; `evict`
        and `seed` are said there.
        """
        found = coherence or self._pool.coherence
        if found not in ("host", "managed"):
            raise Refused(f"coherence={coherence!r}: it is 'host' or 'managed'")
        if coherence is None and found == "managed":
            raise Refused(
                "this pool's memory is shared by hosts, and a view of it has to be flushed: view(coherence='managed')"
            )
        drop = self._pool.drop_unflushed if drop is None else drop
        if found == "host":
            if drop or evict:
                raise Refused("drop and evict are for views with coherence='managed'")
            return self._whole()[2]
        if drop:
            return Shadow(
                self._pool.cache(self.index, self.generation, lambda: self._whole()[2], evict, seed)
            )
        return over(*self._whole())

    def numpy(self, dtype: DTypeLike = "u1", shape: int | tuple[int, ...] | None = None) -> NDArray[Any]:
        """`view` as an array of numpy; all of the region in one dimension without a shape. Raises `Refused` for what
        does not fit."""
        import numpy as np

        kind = np.dtype(dtype)
        if kind.hasobject or not kind.itemsize:
            raise Refused(f"{kind}: what is in shared memory has a size, and holds no objects of Python's")
        if shape is None:
            shape = (self.size // kind.itemsize,)
        elif isinstance(shape, int):
            shape = (shape,)
        count = 1
        for length in shape:
            count *= length
        if min(shape, default=0) < 0 or count * kind.itemsize > self.size:
            raise Refused(f"{shape} of {kind}: the region has {self.size} bytes")
        if not count:
            return np.empty(shape, kind)
        return np.frombuffer(self.view(), kind, count).reshape(shape)

    def _whole(self) -> tuple[native.Memory, int, memoryview]:
        """A source's memory, where in it one copy is, and its bytes, which hold the region where it is."""
        pool = self._pool
        if self._closed:
            raise self._gone()
        pool.pin(self.index, self.generation)
        try:
            info = self.info
            chosen = min(
                (copy for copy in info.copies if copy.healthy), key=lambda copy: copy.poisoned, default=None
            )
            if chosen is None:
                raise errors.Failed(f"none of the {len(info.copies)} copies of {self._called()} is healthy")
            if chosen.source not in pool.sources:
                pool.renew()
            memory = pool.map(chosen.source)
            if chosen.offset % layout.LINE or not 0 <= chosen.offset <= len(memory) - self.size:
                raise Corrupt(f"{self._called()} would be at {chosen.offset:#x} of source {chosen.source}")
            buffer = exported(memory, chosen.offset, self.size)
        except BaseException:
            pool.unpin_later(self.index, self.generation)
            raise
        weakref.finalize(buffer, pool.unpin_later, self.index, self.generation).atexit = False
        whole = memoryview(buffer).cast("B")
        writable = self._writable and len(info.copies) == 1
        return pool.memory(chosen.source), chosen.offset, whole if writable else whole.toreadonly()

    def free(self) -> None:
        """Give it back. See `Pool.free`."""
        self._pool.free(self)

    # -- what is poisoned ------------------------------------------------------------------------------------

    def _change(self, offset: int, make: Callable[[int], int]) -> int:
        """Replace a word, where copies have poison elsewhere. Returns what it was."""
        with contextlib.nullcontext() if self._holder == threading.get_ident() else self.locked():
            found = int.from_bytes(Region.read(self, offset, 8), "little")
            Region.write(self, offset, make(found).to_bytes(8, "little"))
        return found

    def _read_anyway(self, offset: int, into: memoryview, error: PoolError | None) -> None:
        tries, until, least = 0, 0.0, self.size * layout.MAX_COPIES + 1
        while tries < _TRIES:
            if isinstance(error, errors.Poisoned):
                left = self._poisoned().total
                if left < least:  # lines are healed meanwhile, which takes what it takes
                    least, until = left, time.monotonic() + _HEALING
                elif time.monotonic() > until:
                    break  # there is new poison as often as one looks
                error = self._read_around(offset, into)
            else:
                tries += 1
                self._mend(error)
                try:
                    self._native.read_into(offset, into)
                    return
                except PoolError as found:
                    error = found
            if error is None:
                return
        raise self._explained(error) from None

    def _read_around(self, offset: int, into: memoryview) -> PoolError | None:
        """Read each line from a copy that is good there. Returns why it has to be tried again, or None."""
        one = self._native
        poison = self._poisoned()
        pieces, lost = poison.plan(offset, into.nbytes, one.healthy)
        if lost and self._pool.health == poison.health:
            where = ", ".join(f"{size} bytes at {at}" for at, size in lost[:8])
            raise errors.Poisoned(
                f"{self._called()}: no healthy copy has {where}{', and more' if len(lost) > 8 else ''}",
                ranges=lost,
            )
        try:
            with contextlib.ExitStack() as stack:
                if len(pieces) > 1 and self._holder != threading.get_ident():
                    one.lock()  # what is read in pieces is to be of one moment
                    stack.callback(one.unlock)
                for at, size, copies in pieces:
                    one.read_into(at, into[at - offset : at - offset + size], copies)
        except PoolError as error:
            self._poison = None
            return error
        return None if self._pool.health == poison.health else errors.Poisoned()

    def _write_over_poison(self, offset: int, data: Any, timeout: float | None) -> None:
        """Write, and have the server take lines for good that were lost and now are not."""
        size = memoryview(data).nbytes
        self._check_write(offset, size)
        until = time.monotonic() + _HEALING
        while True:
            poison = self._poisoned()
            _, lost = poison.plan(offset, size, self._native.healthy)
            try:
                self._native.write(offset, data, timeout)
            except PoolError as error:
                self._write_again(offset, data, timeout, error)
            if not lost:
                return
            asked = Heal(
                index=self.index, generation=self.generation, offset=offset, length=size, health=poison.health
            )
            if self._holder == threading.get_ident():
                self._unhealed.append(asked)  # the server needs the lock for it
                return
            if self._heal(asked):
                return
            if time.monotonic() > until:
                raise errors.Busy(f"{self._called()}: it was written, and lines of it are poisoned yet")
            time.sleep(_PAUSE)

    def _heal(self, asked: Heal) -> bool:
        """Have lines taken for good that were written. False: there may be more poison since they were."""
        for _ in range(_TRIES):
            with contextlib.suppress(errors.Busy):
                self._pool.ask(Opcode.HEAL, asked.pack())
                return True
            if self._pool.health != asked.health:
                return False
        return False

    def _poisoned(self) -> Poison:
        health = self._pool.health
        if self._poison is None or self._poison.health != health:
            self._poison = Poison.of(
                self.index,
                self.generation,
                self.size,
                health,
                lambda query: self._pool.ask(Opcode.POISON, query),
            )
        return self._poison


__all__ = ["Copy", "Region", "RegionInfo", "RegionStat"]
