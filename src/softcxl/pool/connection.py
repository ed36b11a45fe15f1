"""A client's place in a pool, and how it has that again from the next server when one dies.

The place is a slot of the arena's directory, which stays the client's while no server is there; with the token that it
was given it comes again, and tells what it has open before anybody's call goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from softcxl.pool.bell import Bell
from softcxl.pool.errors import Corrupt, Foreign, NoServer, PoolError, Stale
from softcxl.pool.layout import SLOT, SlotState
from softcxl.pool.link import Link, Mapped, Place
from softcxl.pool.mapping import Mapping
from softcxl.pool.protocol import Opcode

RETRY: Final = 0.05
"""Seconds between two looks for a server by who waits for it."""
_GOODBYE: Final = 1.0
_FORKED: Final = "this connection to the pool is of the process that forked this one: connect anew"
_CLOSED: Final = "this connection to the pool was closed"


class Connection:
    """A client's place in a pool, from `softcxl.connect` to its end. From any thread.

    `patience` is for how long, in seconds, who asks waits for a server that has gone. `returned` is called, by the
    thread that came back and before anybody's call goes on, with True where another server is there. `ended` says why
    the connection is over, and is empty before that.

    Raises `NoServer`, `Foreign`, `Corrupt`, or what the server answers.
    """

    def __init__(self, link: Link, name: str, patience: float, returned: Callable[[bool], None]) -> None:
        self.link = link
        self.name = name
        self.patience = patience
        self.ended = ""
        self._returned = returned
        self._coming = threading.RLock()
        self._taking = threading.Lock()
        mapped = link.attach(name, Place())
        self._heard = mapped.server  # the last one that was told all that this client has
        try:
            self.mapping = Mapping(mapped, link.ring, link.rest)
        except BaseException:
            link.close()
            raise
        self._slot_at = self.mapping.header.slots_at + 256 * mapped.place.slot
        self._live = mapped.place.epoch << 24 | SlotState.LIVE
        self.bell = Bell()

    @property
    def place(self) -> Place:
        """The slot that the client has."""
        return self.mapping.mapped.place

    def check(self) -> None:
        """Raise `Stale` where this connection has ended, also since the pool has taken the client for dead."""
        if not self.ended and self.mapping.directory.load(self._slot_at) != self._live:
            self._end("the pool has taken this client for dead, and given up what it had: connect anew")
        if self.ended:
            raise Stale(self.ended)

    def beat(self) -> None:
        """Show that the client lives. Raises as `check`."""
        self.check()
        self.mapping.directory.add(self._slot_at + SLOT["beat"], 1)

    # -- coming back -----------------------------------------------------------------------------------------

    def away(self) -> bool:
        """Whether there is a server to come back to, or one that has not heard yet all that this client has."""
        return self.link.gone() or self.mapping.mapped.server != self._heard

    def try_back(self) -> None:
        """Come back where the server has gone, if another is there. Raises `NoServer` where none is, `Stale`."""
        if self.away():
            with self._coming:
                if self.away():
                    self._attach()

    def come_back(self, until: float) -> None:
        """Find the next server, until that time (monotonic, seconds). Raises `NoServer`, `Stale`."""
        with self._coming:
            if self.away():
                self._attach_until(until)

    def await_server(self) -> None:
        """Wait for a server that has gone, up to the patience of this client. Raises `NoServer`, `Stale`."""
        self.check()
        self.come_back(time.monotonic() + self.patience)

    def renew(self) -> None:
        """Have memory mapped that has come since. Waits for a server that has gone, up to the patience of this client.

        Raises `NoServer`, `Stale`."""
        self.check()
        until = time.monotonic() + self.patience
        with self._coming:
            self._attach_until(until)

    def _attach_until(self, until: float) -> None:
        while True:
            if self.ended:
                raise Stale(self.ended)
            try:
                self._attach()
            except NoServer:
                if time.monotonic() > until:
                    raise
                time.sleep(RETRY)
            else:
                return

    def _attach(self) -> None:
        try:
            mapped = self.link.attach(self.name, self.place)
            self._take(mapped)
        except (Stale, Foreign, Corrupt) as error:
            if self.ended:
                self.link.close()  # it was left meanwhile
            self._end(str(error))
            raise
        self._returned(mapped.server != self._heard)
        self._heard = mapped.server
        self.bell.ring()  # who watches has another server to watch

    def _take(self, mapped: Mapped) -> None:
        with self._taking:
            if self.ended:
                raise Stale(self.ended)
            self.mapping.take(mapped)

    # -- ending ----------------------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        self.ended = self.ended or why

    def leave(self) -> None:
        """Say goodbye, and ask nobody any more: every call is told so from now on."""
        left = self.ended
        self._end(_CLOSED)  # first: what the server then does is not its death
        if not left:
            with contextlib.suppress(PoolError):  # else the server finds out by itself
                if not self.link.gone():
                    # Not through the table of calls: who has left is not answered there
                    self.link.ask(Opcode.GOODBYE, b"", _GOODBYE)
            if self.link.rest is None and self.link.gone():
                # The next server shall not wait for this process to come, or to end; a guest's silence is enough
                dead = self.place.epoch << 24 | SlotState.DEAD
                self.mapping.directory.swap(self._slot_at, self._live, dead)
        self.link.close()

    def release(self) -> None:
        """It has ended: let go of the memory, which views of it, and calls of other threads, keep as they need it."""
        with self._taking:
            self.mapping.release(Stale(self.ended))

    def forked(self) -> None:
        """This is the child of a fork: nothing of the parent's is its."""
        self.ended = _FORKED
        self._coming = threading.RLock()
        self._taking = threading.Lock()
        self.link.close()
