"""What the pool is made of: two rings, or calls, in memory that both have mapped."""

from __future__ import annotations

import mmap

from pool_peers.peer import MIB, Missing, Peer

try:
    from softcxl.pool import native
except ImportError as error:
    raise Missing(str(error)) from error

ROOM = 4 * MIB
PATIENCE = 60.0


class Ring(Peer):
    """A ring for each direction; bytes are copied in, and copied out."""

    def prepare(self, folder: str) -> None:
        self.memory = native.Memory(mmap.mmap(-1, 2 * ROOM))
        for offset in (0, ROOM):
            native.Ring.make(self.memory, offset, ROOM)

    def listen(self) -> None:
        self.incoming = native.Ring(self.memory, 0, ROOM, False)
        self.outgoing = native.Ring(self.memory, ROOM, ROOM, True)

    def connect(self) -> None:
        self.outgoing = native.Ring(self.memory, 0, ROOM, True)
        self.incoming = native.Ring(self.memory, ROOM, ROOM, False)

    def serve(self, count: int, size: int) -> None:
        receive, send = self.incoming.receive, self.outgoing.send
        for _ in range(count):
            send(receive())

    def ask(self, request: bytes) -> int:
        self.outgoing.send(request)
        return len(self.incoming.receive(PATIENCE))


class Rpc(Peer):
    """Calls: a table of the client's, and a queue that any number of clients and workers may share."""

    sizes = (64, 4096)  # what is larger goes by reference
    CELLS, STRIDE = 64, 8192
    CLIENT, WORKER = 1, 2
    QUEUE = 1 * MIB

    def prepare(self, folder: str) -> None:
        self.memory = native.Memory(mmap.mmap(-1, 2 * self.QUEUE))
        native.Queue.make(self.memory, 0, self.QUEUE, 1024, 64)
        native.Caller.make(self.memory, self.QUEUE, self.QUEUE, self.CELLS, self.STRIDE)

    def listen(self) -> None:
        self.worker = native.Worker(self.memory, native.Queue(self.memory, 0, self.QUEUE, self.WORKER))
        self.worker.learn(self.CLIENT, self.QUEUE, self.QUEUE)

    def connect(self) -> None:
        queue = native.Queue(self.memory, 0, self.QUEUE, self.CLIENT)
        self.caller = native.Caller(self.memory, self.QUEUE, self.QUEUE, queue)

    def serve(self, count: int, size: int) -> None:
        following, answer = self.worker.next, self.worker.answer
        for _ in range(count):
            answer(following())

    def ask(self, request: bytes) -> int:
        return len(self.caller.call(request, 0, PATIENCE))


class Reference(Ring):
    """The bytes lie in shared memory and stay there: where they are, and how many, goes over a ring and back."""

    def ask(self, request: bytes) -> int:
        self.outgoing.send(len(request).to_bytes(16, "little"))
        return int.from_bytes(self.incoming.receive(PATIENCE)[:8], "little")
