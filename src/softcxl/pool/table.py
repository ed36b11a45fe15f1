"""A client's table of calls to services: a cell for each call that is under way, whatever the service."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

from softcxl.pool import buffer, layout
from softcxl.pool.errors import Stale
from softcxl.pool.protocol import Attached, CallsOf, Opcode

if TYPE_CHECKING:
    from softcxl.pool.pending import Pending
    from softcxl.pool.rpc import Client
    from softcxl.pool.session import Pool

CALLS: Final = 32
"""Calls of a client that can be under way."""
CALL_STRIDE: Final = 4096 + 64
"""Bytes of such a call's cell."""
ROOM: Final = CALL_STRIDE - 16
"""Bytes of a request or an answer that go without a buffer."""
TABLE: Final = layout.CALLS_HEADER + CALLS * CALL_STRIDE
"""Bytes of a client's table of calls."""
ASKED: Final = 1
"""In the word of a call's cell: it is asked, and no worker has it yet (`SCXL_ASKED`)."""


def word_at(table: int, cell: int) -> int:
    """Where the word of a cell is, of a table of calls that begins at that byte of the arena."""
    return table + layout.CALLS_HEADER + cell * CALL_STRIDE


class Table:
    """A client's calls to services, of which it has one table, whatever the services."""

    def __init__(self, pool: Pool, buffers: buffer.Buffers) -> None:
        request = CallsOf(slot=pool.slot)
        self.place = Attached.unpack(pool.ask(Opcode.CALLS_OF, request.pack()))
        self.pool = pool
        self.buffers = buffers
        self.life = pool.life()
        self.clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._begun: weakref.WeakSet[Pending] = weakref.WeakSet()

    def begun(self, call: Pending) -> None:
        """A call has a cell of the table, until it is answered and its answer is taken."""
        with self._lock:
            self._begun.add(call)

    def collect(self) -> bool:
        """Take the answers that have come to calls whose results nobody has asked for yet: their cells are free then.

        Returns whether there was one. Who starts more calls than there are cells, and looks at the first result after
        the last start, would wait for ever without.
        """
        with self._lock:
            known = list(self._begun)
        answered = [one for one in known if one.done()]
        with self._lock:
            self._begun.difference_update(answered)
        return bool(answered)

    def release(self) -> None:
        """The pool is left: let nobody's functions be kept by their client alone, and memory by them."""
        for client in list(self.clients):
            client.release()

    def check(self) -> None:
        """Raises Stale where the table is not this client's any more: a successor may have it."""
        if not self.life:
            self.pool.check()
            raise Stale("this connection to the pool has ended")

    def word_at(self, call: tuple[int, int]) -> int:
        """Where the word of a call's cell is in the arena."""
        return word_at(self.place.at, call[0])
