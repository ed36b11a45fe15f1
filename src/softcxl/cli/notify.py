"""Tell the service manager how we are: sd_notify(3), without its library."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(*states: str) -> None:
    """Send assignments such as `READY=1` to the socket that NOTIFY_SOCKET names; nothing where it names none.

    A manager that cannot be reached is a warning: it is no reason to end.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # @ stands for the zero byte of Linux's abstract names
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(name)
            manager.send("\n".join(states).encode())
    except (OSError, ValueError) as error:
        log.warning("NOTIFY_SOCKET %s: %s", address, error)
