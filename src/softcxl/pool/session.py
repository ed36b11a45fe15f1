"""A program's connection to a pool: `softcxl.connect()`.

>>> import softcxl
>>> pool = softcxl.connect("unix:/run/softcxl/pool.sock")            # doctest: +SKIP
>>> with pool.allocate("64MiB", name="model", replicas=2) as region:  # doctest: +SKIP
...     region.write(0, b"weights")
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from softcxl.pool import layout
from softcxl.pool.errors import Empty, Lost, NoServer, PoolError, Refused, Stale
from softcxl.pool.layout import Mode, RegionFlag
from softcxl.pool.link import Link, Mapped, Place, SocketLink, failure
from softcxl.pool.native import Caller, Memory, Queue
from softcxl.pool.protocol import (
    Allocate,
    ListAnswer,
    ListQuery,
    Located,
    Named,
    Opcode,
    Policy,
    Separate,
    TellAnswer,
    TellQuery,
)
from softcxl.pool.region import Region, RegionInfo
from softcxl.wire.sizes import parse_size

PATIENCE = 30.0
"""Seconds for which a client waits for a server that has gone, unless it is told otherwise."""

_LOOK = 0.25
_RETRY = 0.05
_MODES = {"private": Mode.PRIVATE, "read": Mode.READ, "write": Mode.WRITE}


def connect(address: str | None = None, *, name: str | None = None, patience: float = PATIENCE) -> Pool:
    """Connect to the pool at `address`, `unix:PATH`; without one to that of $SOFTCXL_POOL, or to the one whose
    socket is in $XDG_RUNTIME_DIR.

    `name` is the client's, for quotas and permissions: 1 to 63 bytes of UTF-8; without one the program's. `patience`
    is for how long, in seconds, requests wait for a server that has gone and may come again. Raises `NoServer`.
    """
    return Pool(_link(address or os.environ.get("SOFTCXL_POOL") or _found()), name or _program(), patience)


class Pool:
    """A pool of memory, as one of its clients has it. From any thread.

    Forget it after a fork: what the child needs it connects itself.
    """

    def __init__(self, link: Link, name: str, patience: float = PATIENCE) -> None:
        try:
            layout.encode_name(name)
        except ValueError as error:
            raise Refused(f"the client's name: {error}") from None
        self.name = name
        self._link = link
        self._patience = patience
        self._lock = threading.RLock()
        self._requests = itertools.count(time.monotonic_ns() << 8 & (1 << 63) - 1 | 1)
        self._memories: dict[int, Memory] = {}
        self._closed = False
        self._pid = os.getpid()
        self._mapped = link.attach(name, Place())
        self.directory = Memory(self._mapped.maps[layout.ARENA])
        self._memories[layout.ARENA] = self.directory
        header = layout.Header.unpack_from(memoryview(self._mapped.maps[layout.ARENA])[:4096])
        if header.magic != layout.MAGIC or header.version != layout.VERSION:
            raise layout_differs(header)
        self.header = header
        self._queue = Queue(self.directory, header.queue_at, header.queue_size, self.slot)
        at = header.calls_at + self.slot * header.calls_stride
        self._caller = Caller(self.directory, at, header.calls_stride, self._queue)

    # -- who and where ---------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where its server is."""
        return self._link.address

    @property
    def slot(self) -> int:
        """The client's number."""
        return self._mapped.place.slot

    @property
    def epoch(self) -> int:
        """How often that number was given to a client."""
        return self._mapped.place.epoch

    def map(self, source: int) -> mmap.mmap:
        """All of a source's memory. Raises `NoSuchName` for one that this client has not."""
        return self._mapped.maps[source]

    def memory(self, source: int) -> Memory:
        """The same for the C core."""
        made = self._memories.get(source)
        if made is None:
            made = self._memories[source] = Memory(self._mapped.maps[source])
        return made

    def memories(self) -> list[Memory | None]:
        """The memory of every source by number; None where there is none."""
        return [
            self.memory(number) if number in self._mapped.maps else None
            for number in range(max(self._mapped.maps) + 1)
        ]

    # -- regions ---------------------------------------------------------------------------------------------

    def allocate(
        self,
        size: int | str,
        *,
        name: str | None = None,
        replicas: int = 1,
        policy: Literal["spread", "pack"] = "spread",
        separate: Literal["device", "switch"] = "device",
        atomic: bool = False,
        mode: Literal["private", "read", "write"] = "write",
        lease: float = 0,
    ) -> Region:
        """A new region of `size` bytes (`"64MiB"`, or a number), which is zeros, on `replicas` different devices.

        With a `name` it stays until it is freed, without one until it is closed or this client ends. `separate` is
        what no two copies share. `atomic` makes each write all or nothing where there is one copy, too. `mode` is
        what others may do. With a `lease`, in seconds, a region goes when nobody has had it open for so long.

        Raises `Refused`, `NameTaken`, `NoRoom`, `QuotaExceeded`, `NoServer`.
        """
        asked = Allocate(
            size=_size(size),
            request=next(self._requests),
            copies=_within(replicas, 1, layout.MAX_COPIES, "replicas"),
            policy=_one_of(policy, {"spread": Policy.SPREAD, "pack": Policy.PACK}, "policy"),
            separate=_one_of(separate, {"device": Separate.DEVICE, "switch": Separate.SWITCH}, "separate"),
            mode=_one_of(mode, _MODES, "mode"),
            flags=RegionFlag.ATOMIC if atomic else 0,
            source=0,
            lease=round(_within(lease, 0, 1e9, "lease") * 1000),
            reserved0=b"",
            name=_encoded(name) if name is not None else b"",
        )
        made = Located.unpack(self.ask(Opcode.ALLOCATE, asked.pack()))
        return Region(self, made.index, made.generation, made.size, own=True)

    def open(self, name: str) -> Region:
        """The region of that name. Raises `NoSuchName`, `Denied`."""
        found = Located.unpack(self.ask(Opcode.OPEN, named(name=name).pack()))
        return Region(self, found.index, found.generation, found.size)

    def free(self, what: str | Region) -> None:
        """Give a region back, by name or as it is. Its memory goes to others, cleared, once nobody is at it.

        Raises `NoSuchName` (also for one that was freed before), `Denied` where it is another's.
        """
        asked = what.named() if isinstance(what, Region) else named(name=what)
        self.ask(Opcode.FREE, asked.pack())

    def regions(self) -> Iterator[RegionInfo]:
        """All regions that there are, in order of their index."""
        start = 0
        while True:
            answer = ListAnswer.unpack(self.ask(Opcode.LIST, ListQuery(start=start).pack()))
            for index in answer.indices:
                at = self.header.regions_at + 256 * index
                record = layout.RegionRecord.unpack(self.map(layout.ARENA)[at : at + 256])
                if record.word & 0xFF == layout.RegionState.LIVE:
                    yield RegionInfo.of(index, record)
            if not answer.next:
                return
            start = answer.next

    def tell(self, what: str) -> Any:
        """What the server tells of `"sources"`, `"clients"`, `"server"` and more, as from JSON."""
        text = b""
        while True:
            query = TellQuery(offset=len(text), what=what.encode()[:40])
            answer = TellAnswer.unpack(self.ask(Opcode.TELL, query.pack()))
            text += answer.piece
            if len(text) >= answer.total or not answer.piece:
                return json.loads(text)

    # -- asking ----------------------------------------------------------------------------------------------

    def ask(self, opcode: int, data: bytes) -> bytes:
        """Ask the server. Waits for one that has gone, up to the patience of this client.

        Raises what the answer says, `NoServer`, or `Stale` where the pool has forgotten this client.
        """
        caller = self._caller
        with self._lock:
            if self._closed or self._pid != os.getpid():
                raise Stale(
                    "this connection to the pool was closed, or is of the process that forked this one"
                )
            again = False
            call = caller.start(data, opcode)
            until = 0.0
            while True:
                try:
                    answer = caller.result(call, _LOOK)
                    status = caller.kind
                    break
                except Empty:
                    if self._link.gone():
                        until = until or time.monotonic() + self._patience
                        self._come_again(until)
                except Lost:  # the server died over it: every request may be made again
                    again = True
                    call = caller.start(data, opcode)
        assert isinstance(answer, bytes)
        if status:
            error = failure(status, answer)
            if again and isinstance(error, Stale) and opcode in _DONE_ONCE:
                return b""
            raise error
        return answer

    def _come_again(self, until: float) -> None:
        while True:
            try:
                mapped = self._link.attach(self.name, self._mapped.place)
            except NoServer:
                if time.monotonic() > until:
                    raise
                time.sleep(_RETRY)
                continue
            if mapped.place != self._mapped.place:
                raise Stale("the pool has forgotten this client")
            return

    def ring(self, offset: int) -> None:
        """Wake who sleeps behind a device on the word of the arena at `offset`."""
        self._link.ring(offset)

    # -- ending ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave. Regions without a name are freed, and nothing of the pool may be used here any more."""
        with self._lock:
            if self._closed:
                return
            try:
                if self._pid == os.getpid() and not self._link.gone():
                    self.ask(Opcode.GOODBYE, b"")
            except PoolError:
                pass  # then the server finds out by itself
            self._closed = True
            self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Pool {self.address} as {self.name!r}, slot {self.slot}>"


_DONE_ONCE = {Opcode.FREE, Opcode.CLOSE, Opcode.UNPIN, Opcode.GOODBYE}


def named(index: int = 0, generation: int = 0, name: str = "") -> Named:
    """A region's name in requests."""
    return Named(index=index, generation=generation, name=_encoded(name) if name else b"")


def layout_differs(header: layout.Header) -> PoolError:
    """The error for an arena of another kind."""
    from softcxl.pool.errors import Foreign

    return Foreign(f"the arena is of no pool of version {layout.VERSION}: it begins with {header.magic:#x}")


def _link(address: str) -> Link:
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest:
        return SocketLink(Path(rest))
    raise NoServer(f"{address!r} is no address of a pool; it has the form unix:PATH")


def _found() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    found = sorted(Path(runtime).glob("softcxl-*.pool")) if runtime.startswith("/") else []
    if len(found) == 1:
        return f"unix:{found[0]}"
    if found:
        raise NoServer(
            f"{len(found)} pools are there: say which ({', '.join(f'unix:{one}' for one in found)})"
        )
    raise NoServer(
        "no address was given, $SOFTCXL_POOL is not set, and no server's pool is in $XDG_RUNTIME_DIR"
    )


def _program() -> str:
    return (Path(sys.argv[0]).name or "python")[: layout.MAX_NAME // 4] if sys.argv else "python"


def _encoded(name: str) -> bytes:
    try:
        return layout.encode_name(name)
    except ValueError as error:
        raise Refused(str(error)) from None


def _size(size: int | str) -> int:
    try:
        found = parse_size(size) if isinstance(size, str) else int(size)
    except ValueError as error:
        raise Refused(str(error)) from None
    return int(_within(found, 1, 1 << 55, "size"))


def _within(value: float, least: float, most: float, what: str) -> Any:
    if not least <= value <= most:
        raise Refused(f"{what}={value!r}: it is between {least} and {most:g}")
    return value


def _one_of(value: str, allowed: dict[str, Any], what: str) -> Any:
    if value not in allowed:
        raise Refused(f"{what}={value!r}: it is one of {', '.join(allowed)}")
    return allowed[value]


__all__ = ["Mapped", "Pool", "connect"]
