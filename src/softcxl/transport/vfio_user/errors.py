"""What goes wrong at a door.

::

    DoorError                  opening a door: raised to whoever opens it
    └── DoorInUse              a live server already listens at the path
    Refused                    a command that the protocol answers with an errno; the connection goes on
    ProtocolError              a stream that cannot be trusted any more; the connection ends
    Disconnected               the client has gone, or the door is closing

Only the first two leave this package. DMA errors reach the function as `OSError`.
"""

from __future__ import annotations

from softcxl.transport.errors import DoorError, DoorInUse

__all__ = ["Disconnected", "DoorError", "DoorInUse", "ProtocolError", "Refused"]


class Refused(Exception):
    """Answer the command with `errno`; `why` is for the log."""

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(errno, why)
        self.errno = errno
        self.why = why


class ProtocolError(Exception):
    """The client's bytes make no sense as messages."""


class Disconnected(Exception):
    """Nothing more will come from this client."""
