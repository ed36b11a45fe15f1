"""Addresses of endpoints, as a command line or a program gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from softcxl.fm.errors import AddressError
from softcxl.spec.mctp.tcp import DEFAULT_PORT

_FORMS = f"tcp:HOST:PORT (tcp:HOST has port {DEFAULT_PORT}) and unix:PATH are allowed"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """An endpoint behind a TCP port: MCTP over TCP."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The control socket of `softcxl serve`, which says where its FM API endpoint is."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse(text: str, *, least_port: int = 1) -> TcpAddress | ServerAddress:
    """The address in a text, with a port from `least_port` on: who listens may say 0, for any. Raises `AddressError`.

    >>> parse("tcp:127.0.0.1:2508")
    TcpAddress(host='127.0.0.1', port=2508)
    >>> parse("tcp:[::1]")
    TcpAddress(host='::1', port=2508)
    """
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        return ServerAddress(rest)
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", rest)
    if scheme != "tcp" or match is None:
        raise AddressError(f"{text!r} is no address of an endpoint; {_FORMS}")
    port = int(match[3]) if match[3] else DEFAULT_PORT
    if not least_port <= port < 1 << 16:
        raise AddressError(f"{text!r}: port {port}; {least_port} to 65535 are allowed")
    return TcpAddress(match[1] or match[2], port)
