"""The client's side: a verb is done by the server at an address."""

from __future__ import annotations

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
from softcxl.fabric.hosts import Verb
from softcxl.transport.control import NoServer, converse

_SCHEME = "unix:"


def socket_of(address: str) -> str | None:
    """The path of the socket at an address, `unix:PATH`; None for what is no address."""
    return address.removeprefix(_SCHEME) if address.startswith(_SCHEME) else None


def ask(address: str, name: str, verb: Verb, host: str | None = None) -> Answer:
    """Have the server at `address` do a verb to a host, the first one if None.

    What the verb could not do is in the answer. Raises `ControlError` where no server answers.
    """
    path = socket_of(address)
    if not path:
        raise ControlError(f"{address}: no address of a server; it has the form {_SCHEME}PATH")
    request = Request(version=VERSION, verb=name, host=host, arguments=plain(verb))
    try:
        return read_answer(converse(path, write(request)))
    except NoServer as error:
        raise ControlError(f"{address}: {error}") from error
    except Garbage as error:
        raise ControlError(f"{address}: what listens there is no server of SoftCXL ({error})") from error
