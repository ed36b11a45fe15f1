"""Where a pool is: addresses, and finding the one server that runs here."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Final

from softcxl.pool.dax import DEVICES, DaxLink, regions
from softcxl.pool.device import DeviceLink, slots
from softcxl.pool.errors import NoServer, Refused
from softcxl.pool.link import Link, SocketLink

VARIABLE: Final = "SOFTCXL_POOL"
"""The variable of the environment that has the address of who gives none."""
_PATH: Final = 107
"""Bytes of a socket's path, at most (unix(7))."""


def link(address: str | None) -> Link:
    """The way to the pool at `address`; without one to that of $SOFTCXL_POOL, or to the one whose server runs here.

    Raises `Refused` for what is no address, `NoServer` where none was given and there is not one server.
    """
    if address is not None and not isinstance(address, str):
        raise TypeError(f"a pool's address is text like unix:PATH, not {address!r}")
    source = "" if address is not None else f"${VARIABLE}: "
    if address is None:
        address = os.environ.get(VARIABLE) or found()
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest and "\0" not in rest:
        if len(os.fsencode(rest)) > _PATH:
            raise Refused(f"{source}{address!r}: a socket's path has at most {_PATH} bytes")
        return SocketLink(Path(rest))
    if kind == "device":
        return DeviceLink(rest or None)
    if kind == "dax" and "\0" not in rest:
        return DaxLink(rest or None)
    raise Refused(
        f"{source}{address!r} is no address of a pool; it has the form unix:PATH, or in a guest device:SLOT or "
        "dax:PATH"
    )


def place(make: bool = False) -> Path | None:
    """The folder where this user's servers have their sockets, if nobody says another: $XDG_RUNTIME_DIR, or where that
    is no folder to write in, as in a container, `softcxl-UID` in the temporary one. None where there is none, or
    others could put a socket of theirs into it; `make` makes it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    folder = Path(os.environ.get("TMPDIR") or "/tmp") / f"softcxl-{os.geteuid()}"
    try:
        if make:
            folder.mkdir(mode=0o700, exist_ok=True)
        there = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid() and not there.st_mode & 0o022
    return folder if ours else None


def found() -> str:
    """The address of the one pool whose server runs here, for this user: its socket is in `place`.

    Without one in there it is the way out of a guest: its pool access device, or else its CXL region of a pool. Raises
    `NoServer` where there is none of these, or several servers run here.
    """
    folder = place()
    there = sorted(folder.glob("softcxl-*.pool")) if folder else []
    live = [path for path in there if _answers(path)]
    if len(live) == 1:
        return f"unix:{live[0]}"
    if live:
        raise NoServer(
            f"{len(live)} pools are there: say which ({', '.join(f'unix:{path}' for path in live)}), as an address or "
            f"in ${VARIABLE}"
        )
    if slots():  # in a guest
        return "device:"
    if ways := regions():
        return f"dax:{DEVICES / ways[0]}" if len(ways) == 1 else "dax:"
    dead = f"; {there[0]} is there, but no server" if there else ""
    raise NoServer(
        f"no address was given, ${VARIABLE} is not set, and no server's pool is in {folder or '$XDG_RUNTIME_DIR'}{dead}"
    )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0
