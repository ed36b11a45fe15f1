"""A service that tests call, and can hold up."""

from __future__ import annotations

import threading

from softcxl.pool import service
from softcxl.pool.errors import Closed, Corrupt, Empty
from softcxl.pool.session import Pool

LONG = 60.0


class Strange(Exception):
    """None that the other side would have."""


class Index:
    """A service with functions of all kinds."""

    def __init__(self, pool: Pool, name: str = "index", workers: int = 1) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.calls: list[int] = []
        self.given_up: list[bool] = []
        self.service = serve = pool.service(name, workers=workers)

        @serve
        def lookup(key: int) -> bytes:
            self.calls.append(key)
            return b"%d" % key

        @serve
        def echo(data: bytes) -> bytes:
            return data

        @serve
        def join(parts: list[str], *, by: str = " ") -> str:
            return by.join(parts)

        @serve
        def wait(key: int) -> int:
            self.calls.append(key)
            self.began.release()
            self.go_on.wait(LONG)
            self.given_up.append(service.abandoned())
            return key

        @serve
        def fail(how: str) -> None:
            raise {
                "known": KeyError(how, 7),
                "strange": Strange("odd"),
                "exit": SystemExit(3),
                "closed": Closed("not the worker's"),
                "empty": Empty("nothing in there"),
                "corrupt": Corrupt("what it read"),
            }[how]

        @serve
        def odd() -> object:
            return object()

        @serve
        def many(size: int) -> list[int]:
            return list(range(size))
