"""What goes wrong with MCTP.

::

    DoorError                  a door cannot be opened (softcxl.transport.errors)
    └── KernelUnsupported      the kernel has no MCTP
    MctpError                  a request of a client has no answer
    ├── NoAnswer               none came in time
    ├── ConnectionEnded        the connection ended, or could not be made
    ├── MessageError           what came makes no sense as an answer, or what was asked fits in no message
    └── ControlError           a control message was answered with a completion code other than success
    PacketError                bytes that are no packet; ends a connection
"""

from __future__ import annotations

from softcxl.spec.mctp.control import CompletionCode
from softcxl.transport.errors import DoorError


class KernelUnsupported(DoorError):
    """The kernel of this machine has no MCTP sockets."""


class MctpError(Exception):
    """A request has no answer."""


class NoAnswer(MctpError):
    """No answer came in time; the request may have been carried out."""


class ConnectionEnded(MctpError):
    """The connection could not be made, or ended before an answer came."""


class MessageError(MctpError):
    """An answer that makes no sense, or a request that fits in no message."""


class ControlError(MctpError):
    """A control message was refused with `code`, a `CompletionCode`, or a number that the command gives a meaning."""

    def __init__(self, says: str, code: int) -> None:
        name = CompletionCode(code).name if code in CompletionCode.__members__.values() else "of its own"
        super().__init__(f"{says}: completion code {code:02X}h ({name})")
        self.code = code


class PacketError(Exception):
    """Bytes that are no packet."""
