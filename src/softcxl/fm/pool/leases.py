"""Leases of grants, kept beside a server of threads: grants have an event loop of their own, in one thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Self, TypeVar

from softcxl.fm.errors import FmError
from softcxl.fm.pool.fence import Port
from softcxl.fm.pool.grants import Grant, GrantError, Grants

log = logging.getLogger(__name__)

T = TypeVar("T")

_STOPS = "the server stops"
_LOOK = 0.5  # seconds from one look at whether it has ended to the next


class Leases:
    """Runs the grants that `make` makes, from `begin` (or `with`) until `close`. Methods are safe from any thread, and
    raise what those of `Grants` do; `GrantError` before it has begun, or after it has ended.

    `ways` are the ports of switches by which a host reaches memory that is others', too; it loses what is there when
    it is fenced.
    """

    def __init__(
        self, make: Callable[[], Grants], ways: Callable[[str], Sequence[Port]] = lambda host: ()
    ) -> None:
        self._make, self._ways = make, ways
        self._grants: Grants | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> None:
        """Go on where a server before was, in a thread; from now on what is due is done when it is."""
        grants = self._make()
        self._ready.clear()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(grants)), name="pool grants", daemon=True
        )
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        """Do no more: what is granted stays so, for the next server."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def _run(self, grants: Grants) -> None:
        self._grants, self._loop, self._stop = grants, asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        work = asyncio.create_task(self._work(grants))
        await self._stop.wait()
        self._loop = None
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        tasks = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, grants: Grants) -> None:
        try:
            await grants.start()
            await grants.run()
        except Exception:
            log.exception("leases are not looked after any more; a bug of SoftCXL")

    # -- from other threads --------------------------------------------------------------------------------------

    def all(self) -> list[dict[str, Any]]:
        """Every grant as JSON has it, and `seconds`: until its lease runs out, or it is tried again."""
        return self._done(self._told())

    def grant(self, size: int, host: str, lease: float, kind: Any = None) -> Grant:
        """See `Grants.grant`."""
        return self._done(self._with(lambda grants: grants.grant(size, host, lease, kind)))

    def renew(self, number: int) -> None:
        """See `Grants.renew`."""

        async def renewed(grants: Grants) -> None:
            grants.renew(number)

        self._done(self._with(renewed))

    def release(self, number: int) -> None:
        """See `Grants.release`."""
        self._done(self._with(lambda grants: grants.release(number)))

    def heard_of(self, host: str) -> None:
        """See `Grants.heard_of`. Returns at once."""
        loop, grants = self._loop, self._grants
        if loop is not None and grants is not None:
            with suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(grants.heard_of, host)

    def fence(self, host: str) -> bool:
        """Take from a host all that it has been granted, and its ways. Returns whether it surely has nothing of it any
        more; what it has is tried again, and so can this be."""
        try:
            return self._done(self._fenced(host))
        except FmError as error:
            log.warning("%s is not fenced: %s", host, error)
            return False

    async def _fenced(self, host: str) -> bool:
        assert self._grants is not None, "it has begun"
        for one in self._grants.all:
            if one.host == host:
                await self._grants.release(one.number)
        await self._grants.cut_off(host, self._ways(host))
        return not any(one.host == host for one in self._grants.all)

    async def _told(self) -> list[dict[str, Any]]:
        assert self._grants is not None, "it has begun"
        return self._grants.told()

    async def _with(self, act: Callable[[Grants], Coroutine[Any, Any, T]]) -> T:
        assert self._grants is not None, "it has begun"
        return await act(self._grants)

    def _done(self, what: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None:
            what.close()
            raise GrantError(
                "no fabric manager can take memory from hosts here: softcxl serve --fm says where one comes in"
            )
        try:
            future: Future[T] = asyncio.run_coroutine_threadsafe(what, loop)
        except RuntimeError:  # it has ended meanwhile
            what.close()
            raise GrantError(_STOPS) from None
        while True:
            try:
                return future.result(_LOOK)
            except CancelledError:
                raise GrantError(_STOPS) from None
            except TimeoutError:
                if future.done():
                    raise  # what was asked for has taken too long itself
                if self._loop is None:  # nobody may come to it any more
                    future.cancel()
                    raise GrantError(_STOPS) from None
