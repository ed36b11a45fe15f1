"""What a peer is: a server that answers each request with the same bytes, and a client of it."""

from __future__ import annotations

MIB = 1 << 20
LARGEST = MIB


class Missing(Exception):
    """This machine has not what the peer needs."""


class Peer:
    """One way to ask another process. `prepare` is called before the fork, then `client` in one, `serve` in the other.

    What a library sets up with threads belongs behind the fork: into `client` and `serve`.
    """

    name = ""
    sizes: tuple[int, ...] = (64, 4096, LARGEST)
    polls = False
    """Whether it never sleeps: it is then not asked where one processor is to serve both sides."""

    def prepare(self, folder: str) -> None:
        """Make what both have; `folder` is private to this peer."""

    def listen(self) -> None:
        """In the server, once: after this a client may come."""

    def connect(self) -> None:
        """In the client, once, when the server listens."""

    def serve(self, count: int, size: int) -> None:
        """In the server: answer so many requests of `size` bytes, each with its own bytes."""
        raise NotImplementedError

    def ask(self, request: bytes) -> int:
        """In the client: ask, wait for the answer, take it; returns how many bytes came."""
        raise NotImplementedError

    def ask_often(self, request: bytes, count: int) -> int:
        """In the client: ask so many times, one after the other; returns how many bytes came last."""
        ask, came = self.ask, 0
        for _ in range(count):
            came = ask(request)
        return came

    def close(self) -> None:
        """In the client, at the end."""
