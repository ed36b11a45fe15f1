"""What an MCTP door serves: command interfaces, one for each connection of a fabric manager to an endpoint.

A device or a switch need not know MCTP, and a door need not know devices: `softcxl.device.management.ManagementCci`
has the shape of `CommandInterface`, but for the lock, which whoever hands out `Open` adds.

Threads: a door calls its interfaces from a thread of its own, one call at a time. They call `Send` from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from softcxl.spec.mctp.packet import MessageType


class Answer(Protocol):
    """What goes back to a command.

    One that has `run` and `seconds` as well comes later: it is what `run()` returns then, with the locks that it needs;
    after infinite seconds it never comes, as that of a device that hangs.
    """

    @property
    def code(self) -> int:
        """A `ReturnCode`."""

    @property
    def payload(self) -> bytes:
        """The response's payload."""

    @property
    def vendor_status(self) -> int:
        """Vendor-specific extended status, 16 bits."""


class CommandInterface(Protocol):
    """A component command interface, or the FM API of a switch, for one connection."""

    @property
    def payload_max(self) -> int:
        """The largest payload of a request or response, in bytes."""

    def execute(self, opcode: int, payload: bytes) -> Answer:
        """Answer one command; takes the locks that it needs, and returns at once. A command that takes time is
        answered Background Command Started, or by an answer that comes later."""

    def close(self) -> None:
        """The connection has ended: nothing is sent any more."""


Send = Callable[[int, bytes], None]
"""Sends a request (opcode, payload) to the fabric manager, such as Event Notification. Never waits and never fails:
what cannot be sent any more is dropped."""

Open = Callable[[Send], CommandInterface]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something with an endpoint ID behind a door.

    `open` makes its command interface for one connection, when the first command comes. `name` is for messages, and
    `identifier` (Get Endpoint UUID) is made from it where None is given. `types` are the message types that it takes.
    """

    name: str
    open: Open
    identifier: UUID | None = None
    types: tuple[MessageType, ...] = (MessageType.CXL_FM_API, MessageType.CXL_CCI)
