"""The client's side: a verb is done by the server at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from softcxl.fabric.control.messages import (
    VERSION,
    Answer,
    Garbage,
    Request,
    plain,
    read_answer,
    write,
)
from softcxl.fabric.errors import ControlError
from softcxl.transport.control import Connection, NoServer

if TYPE_CHECKING:
    from softcxl.fabric.hosts import Verb

_SCHEME = "unix:"


def socket_of(address: str) -> str | None:
    """The path of the socket at an address, `unix:PATH`; None for what is no address."""
    return address.removeprefix(_SCHEME) if address.startswith(_SCHEME) else None


def ask(address: str, name: str, verb: Verb, host: str | None = None) -> Answer:
    """Have the server at `address` do a verb to a host, the first one if None.

    What the verb could not do is in the answer. Raises `ControlError` where no server answers.
    """
    with Session(address) as session:
        return session.ask(name, verb, host)


class Session:
    """A connection to the server at `address`, for one verb after another. Raises `ControlError`, as `ask` does."""

    def __init__(self, address: str) -> None:
        path = socket_of(address)
        if not path:
            raise ControlError(f"{address}: no address of a server; it has the form {_SCHEME}PATH")
        self._address = address
        try:
            self._connection = Connection(path)
        except NoServer as error:
            raise ControlError(f"{address}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.__exit__()

    def ask(self, name: str, verb: Verb, host: str | None = None) -> Answer:
        """Have the server do a verb, as `softcxl.fabric.control.ask`."""
        request = Request(version=VERSION, verb=name, host=host, arguments=plain(verb))
        try:
            return read_answer(self._connection.converse(write(request)))
        except NoServer as error:
            raise ControlError(f"{self._address}: {error}") from error
        except Garbage as error:
            what = f"what listens there is no server of SoftCXL ({error})"
            raise ControlError(f"{self._address}: {what}") from error

    def shut(self) -> None:
        """End it; whoever waits for an answer gets a `ControlError`. From any thread."""
        self._connection.shut()
