"""What a client has of a region that it has opened: its place in the pool, and the C core's part, made when needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, cast

from softcxl.pool import errors, layout, native
from softcxl.pool.errors import Corrupt, Denied, PoolError, Refused, Stale
from softcxl.pool.gone import Gone
from softcxl.pool.info import RegionInfo
from softcxl.pool.layout import Mode, RegionState
from softcxl.pool.protocol import Named, Opcode

if TYPE_CHECKING:
    from softcxl.pool.session import Pool

_TRIES: Final = 16
"""How often something is tried that one mends, or waits for, in between."""
_OF_SERVER: Final = 3
"""How many of these tries wait for a lock that the server has."""


class Opened:
    """A region as it was opened, until it is closed, freed, given away, or its pool is left."""

    __slots__ = (
        "__weakref__",
        "_closed",
        "_holder",
        "_moved",
        "_native",
        "_pool",
        "_writable",
        "generation",
        "index",
        "size",
    )

    _native: native.Region

    def __init__(self, pool: Pool, index: int, generation: int, size: int, own: bool = False) -> None:
        self._pool = pool
        self.index = index
        self.generation = generation
        self.size = size
        self._closed = True  # until there is something to close
        self._holder = 0
        self._moved = False
        self._writable = own or self._may_write()
        self._closed = False

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def info(self) -> RegionInfo:
        """What the directory says of it now."""
        return RegionInfo.of(self.index, self._record())

    @property
    def name(self) -> str:
        """Its name, empty where it has none."""
        return self.info.name

    @property
    def closed(self) -> bool:
        """Whether it was closed, freed or given away here."""
        return self._closed

    @property
    def writable(self) -> bool:
        """Whether this client may write it."""
        return self._writable

    def named(self) -> Named:
        """Its name in requests."""
        return Named(index=self.index, generation=self.generation, name=b"")

    # -- ending ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Be through with it: one without a name that is this client's own is freed. Views of it stay good."""
        if not self._closed:
            self._end(errors.Closed(f"region {self.index} was closed here"))
            self._pool.close_region(self.index, self.generation)

    def let_go(self, why: PoolError | None = None) -> None:
        """It is no longer this client's: freed, or given to somebody else."""
        if not self._closed:
            self._end(why or Stale(f"region {self.index} was given to somebody else"))
            self._pool.forget(self.index, self.generation)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._closed = True
            self._pool.close_later(self.index, self.generation)

    def __len__(self) -> int:
        return self.size

    def __reduce__(self) -> NoReturn:
        # A copy would be one more that closes, and frees, what was opened once
        raise TypeError(
            "a region as it was opened cannot be copied or pickled: open it once more, by its name, there too"
        )

    def __repr__(self) -> str:
        ended = ", closed" if self._closed else ""
        return f"<{self._called()} of {self.size} bytes in {self._pool.address}{ended}>".replace(
            "<r", "<R", 1
        )

    def _end(self, why: PoolError) -> None:
        self._closed = True
        self._native = cast("native.Region", Gone(why))

    # -- the C core's part -----------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> native.Region:
        # `_native`, where nobody has used it yet or memory has moved: from then on it costs no call
        if name != "_native":
            raise AttributeError(f"a region has no {name!r}")
        pool = self._pool
        pool.check()
        try:
            made = native.Region(
                pool.directory, self.index, self.generation, pool.memories(), pool.slot, pool.epoch
            )
        except errors.TooLong:
            raise Corrupt(f"there is no record {self.index}: there are {pool.header.regions}") from None
        except PoolError as error:
            raise self._explained(error) from None
        pool.made(self)
        self._native = made
        return made

    def remap(self) -> None:
        """Memory is mapped elsewhere: find it anew, when no lock is held."""
        self._moved = bool(self._holder)
        if not self._holder and not self._closed:
            with contextlib.suppress(AttributeError):
                del self._native

    def end(self, why: PoolError) -> None:
        """Raise that from now on: where the pool was left, or this is the child of a fork, nothing is to be closed."""
        if not self._closed:
            self._end(why)

    def _lock(self, timeout: float | None) -> native.Region:
        one = self._native
        one.lock(timeout)
        return one

    def _again(
        self, attempt: Callable[[], Any], error: PoolError | None = None, timeout: float | None = None
    ) -> Any:
        for tries in range(_TRIES):
            if error is not None:
                self._mend(error, timeout is None and tries < _OF_SERVER)
            try:
                return attempt()
            except PoolError as found:
                error = found
        raise self._explained(error) from None

    def _mend(self, error: PoolError | None, waits: bool = False) -> None:
        """Do what lets one try again. Raises where there is nothing. `waits`: for a lock that the server has, too."""
        if isinstance(error, errors.Unprotected):
            self._pool.ask(Opcode.JOURNAL, b"")
        elif isinstance(error, errors.Unmapped) and not self._holder:
            self._pool.renew()
            self.remap()
        elif isinstance(error, errors.Busy) and waits and self.info.locked_by == layout.SERVER:
            # It copies, and has no processor to itself, or it was killed over it: the next one lets go of it
            self._pool.await_server()
        else:
            raise self._explained(error) from None

    # -- errors ----------------------------------------------------------------------------------------------

    def _called(self) -> str:
        try:
            return f"region {self.name!r}" if self.name else f"region {self.index}"
        except PoolError:
            return f"region {self.index}"

    def _gone(self) -> PoolError:
        gone = getattr(self, "_native", None)
        return gone.why() if isinstance(gone, Gone) else errors.Closed(f"region {self.index} was closed here")

    def _explained(self, error: PoolError | None) -> PoolError:
        """The same error, saying what it is about."""
        if error is None or error.args:
            return error or PoolError()
        if isinstance(error, Stale):
            try:
                self._pool.check()
                self._record()
            except PoolError as found:
                return found
            return Stale(f"{self._called()}: the pool has taken this client for dead: connect anew")
        what = f"{self._called()}: {error}"
        if isinstance(error, errors.Torn) and (torn := self._native.torn):
            what = f"{what}: {torn[1]} bytes at {torn[0]}"
        elif isinstance(error, errors.Busy) and (holder := self.info.locked_by) is not None:
            what = f"{what}: slot {holder} has its lock"
        return type(error)(what)

    def _outside(self, offset: int, size: int) -> NoReturn:
        raise Refused(f"{size} bytes at {offset}: the region has {self.size}")

    def _check_write(self, offset: int, size: int) -> None:
        if not self._writable:
            raise Denied(f"{self._called()} may be read by others than its owner, and not written")
        if offset < 0 or offset + size > self.size:
            self._outside(offset, size)

    def _check_word(self, offset: int) -> None:
        if offset % 8 or not 0 <= offset <= self.size - 8:
            raise Refused(
                f"a word of 8 bytes at {offset}: an offset is a multiple of 8, the region has {self.size}"
            )

    def _record(self) -> layout.RegionRecord:
        record = self._pool.record(self.index)
        if record.word != self.generation << 24 | RegionState.LIVE:
            raise Stale(f"region {self.index} was freed")
        if not 1 <= record.copies <= layout.MAX_COPIES or record.size != self.size:
            raise Corrupt(
                f"region {self.index}: its record says {record.copies} copies of {record.size} bytes"
            )
        return record

    def _may_write(self) -> bool:
        record = self._record()
        mine = record.owner == self._pool.slot or record.identity == self._pool.identity
        return mine or record.mode == Mode.WRITE
