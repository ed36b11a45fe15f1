"""The same as a program has it: rings and services of a pool that `softcxl serve` keeps."""

from __future__ import annotations

from contextlib import ExitStack

from pool_peers.peer import MIB, Missing, Peer
from pool_peers.served import pool

try:
    import softcxl
    from softcxl.pool import native  # noqa: F401  what connect() needs
except ImportError as error:
    raise Missing(str(error)) from error

PATIENCE = 60.0


class _InPool(Peer):
    def prepare(self, folder: str) -> None:
        self.stack = ExitStack()
        self.address = self.stack.enter_context(pool(devices=2))

    def close(self) -> None:
        self.session.close()
        self.stack.close()


class Rings(_InPool):
    """`pool.ring`: two of them, one for each direction."""

    def listen(self) -> None:
        self.session = softcxl.connect(self.address)
        self.incoming = self.session.ring("ask", size=4 * MIB).consumer()
        self.outgoing = self.session.ring("answer", size=4 * MIB).producer()

    def connect(self) -> None:
        self.session = softcxl.connect(self.address)
        self.outgoing = self.session.ring("ask").producer()
        self.incoming = self.session.ring("answer").consumer()

    def serve(self, count: int, size: int) -> None:
        receive, send = self.incoming.receive, self.outgoing.send
        for _ in range(count):
            send(receive())

    def ask(self, request: bytes) -> int:
        self.outgoing.send(request)
        return len(self.incoming.receive(PATIENCE))


class References(Rings):
    """The bytes lie in a region of the pool; a reference to them is sent, looked up, and sent back."""

    def connect(self) -> None:
        super().connect()
        self.region = self.session.allocate(MIB)

    def serve(self, count: int, size: int) -> None:
        for _ in range(count):
            record = self.incoming.receive_record()
            assert record.reference is not None
            self.outgoing.send(len(record.reference).to_bytes(8, "little"))

    def ask(self, request: bytes) -> int:
        self.outgoing.send_reference(self.region, 0, len(request))
        return int.from_bytes(self.incoming.receive(PATIENCE), "little")


class Service(_InPool):
    """`pool.service` and `pool.client`: bytes to bytes, run by a thread of the server's."""

    def listen(self) -> None:
        self.session = softcxl.connect(self.address)

        @self.session.service("echo")
        def same(request: bytes) -> bytes:
            return request

    def connect(self) -> None:
        self.session = softcxl.connect(self.address)
        self.echo = self.session.client("echo", timeout=PATIENCE).same

    def serve(self, count: int, size: int) -> None:
        """Its thread does."""

    def ask(self, request: bytes) -> int:
        return len(self.echo(request))
