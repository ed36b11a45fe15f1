"""One peer's messages with the endpoints of a node: its requests are answered, and it hears what they have to say."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from softcxl.spec.command.base import ReturnCode
from softcxl.spec.mctp.cci import CciCategory
from softcxl.spec.mctp.packet import BROADCAST_EID, MessageType
from softcxl.transport.mctp.cci import CXL_TYPES, MAX_PAYLOAD, Dialect, pack_request, pack_response, unpack
from softcxl.transport.mctp.loop import Loop, Timer
from softcxl.transport.mctp.node import Node, Slot
from softcxl.transport.mctp.packet import Message
from softcxl.transport.mctp.port import Answer, CommandInterface

log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
"""Commands of a peer whose answers may be still to come; one more is answered Busy."""

_TAGS: Final = 8
_CCI_TAGS: Final = 256
_REQUEST: Final = int(CciCategory.REQUEST)


class Line(Protocol):
    """How a conversation sends, and waits."""

    def transmit(self, message: Message) -> None:
        """Send a message, on the door's thread; one that the peer does not take in time is dropped."""

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call it on the door's thread in that time."""

    def post(self, call: Callable[[], None]) -> None:
        """Call it on the door's thread, soon; from any thread. Never waits."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """An answer that is a return code alone."""

    code: int
    payload: bytes = b""
    vendor_status: int = 0


@dataclass(slots=True, eq=False)
class _Visit:
    """A peer at an endpoint: its command interface, and how the endpoint reaches the peer."""

    slot: Slot
    interface: CommandInterface | None = None
    peer: int = 0  # endpoint IDs and message type as of the last request
    addressed: int = 0
    type: int = MessageType.CXL_CCI
    tag: int = 0


class Conversation:
    """Answers the messages of one peer, all on one thread. `padded`: messages may end in padding of less than a
    packet.

    What makes no sense is dropped, as DSP0236 has it: messages to endpoint IDs that nobody has, of types that the
    endpoint does not take, and responses that nobody waits for. A command with a wrong length is answered Invalid
    Payload Length.
    """

    def __init__(self, node: Node, dialect: Dialect, line: Line, *, padding: int = 0) -> None:
        self._node, self._dialect, self._line, self._padding = node, dialect, line, padding
        self._visits: dict[Slot, _Visit] = {}
        self._waiting = 0
        self._timers: set[Timer] = set()
        self._closed = False

    def take(self, message: Message) -> None:
        """A message has come."""
        destination, source, tag, owner, body, truncated = message
        if not owner or not body:
            return  # a response, as to an Event Notification: nothing hangs on it
        slot = self._node.find(destination)
        type = body[0]
        if type in CXL_TYPES:
            if slot is None or type not in slot.endpoint.types:
                return
            answer = self._command(slot, message)
        elif type == MessageType.CONTROL and not truncated:
            if destination == BROADCAST_EID:
                slot = self._node.find(0)
                assert slot is not None, "a node has a first endpoint"
                destination = slot.eid
            if slot is None:
                return
            answer = self._node.control(slot, body, padded=self._padding > 0)
        else:
            return
        if answer is not None:
            self._line.transmit(Message(source, destination, tag, False, answer))

    def _command(self, slot: Slot, message: Message) -> bytes | None:
        try:
            type, category, tag, opcode, length, _, _, _, payload, surplus = unpack(
                self._dialect, message.body
            )
        except ValueError as error:
            log.debug("%s is dropped", error)
            return None
        if category != _REQUEST:
            return None
        visit = self._visits.get(slot)
        if visit is None:
            visit = self._visits[slot] = _Visit(slot)
        visit.peer, visit.addressed, visit.type = message.source, message.destination, type
        answer: Answer
        try:
            interface = visit.interface
            if interface is None:
                interface = visit.interface = slot.endpoint.open(partial(self._send, visit))
            if len(payload) != length or surplus > self._padding or length > interface.payload_max:
                answer = _INVALID_LENGTH
            else:
                answer = interface.execute(opcode, payload)
        except Exception:
            log.exception("%s: command %04Xh failed", slot.endpoint.name, opcode)
            answer = _INTERNAL_ERROR
        if hasattr(answer, "run") and self._waiting < MAX_WAITING:
            self._wait(answer, visit, message, opcode, tag)
            return None
        return self._packed(type, tag, opcode, answer)

    def _packed(self, type: int, tag: int, opcode: int, answer: Answer) -> bytes:
        payload = answer.payload
        if len(payload) > MAX_PAYLOAD:
            log.error("command %04Xh: a reply of %d bytes fits in no message", opcode, len(payload))
            answer, payload = _INTERNAL_ERROR, b""
        return pack_response(self._dialect, type, tag, opcode, answer.code, answer.vendor_status, payload)

    # -- answers that come later -----------------------------------------------------------------------------

    def _wait(self, answer: Answer, visit: _Visit, message: Message, opcode: int, tag: int) -> None:
        self._waiting += 1
        seconds: float = answer.seconds  # type: ignore[attr-defined]  # it has `run`, so it has this
        if math.isinf(seconds):
            return

        def due() -> None:
            self._timers.discard(timer)
            self._due(answer, visit, message, opcode, tag)

        timer = self._line.later(seconds, due)
        self._timers.add(timer)

    def _due(self, held: Answer, visit: _Visit, message: Message, opcode: int, tag: int) -> None:
        self._waiting -= 1
        try:
            answer: Answer = held.run()  # type: ignore[attr-defined]
        except Exception:
            log.exception("%s: command %04Xh failed", visit.slot.endpoint.name, opcode)
            answer = _INTERNAL_ERROR
        if hasattr(answer, "run"):
            self._wait(answer, visit, message, opcode, tag)
            return
        body = self._packed(message.body[0], tag, opcode, answer)
        self._line.transmit(Message(message.source, message.destination, message.tag, False, body))

    # -- what endpoints send ---------------------------------------------------------------------------------

    def _send(self, visit: _Visit, opcode: int, payload: bytes) -> None:
        self._line.post(partial(self._request, visit, opcode, payload))

    def _request(self, visit: _Visit, opcode: int, payload: bytes) -> None:
        if self._closed:
            return
        tag = visit.tag
        visit.tag = (tag + 1) % _CCI_TAGS
        body = pack_request(self._dialect, visit.type, tag, opcode, payload)
        self._line.transmit(Message(visit.peer, visit.addressed, tag % _TAGS, True, body))

    def close(self) -> None:
        """The peer has gone: close its command interfaces, forget what was to come."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for visit in self._visits.values():
            if visit.interface is not None:
                try:
                    visit.interface.close()
                except Exception:
                    log.exception("%s: its command interface failed to close", visit.slot.endpoint.name)
        self._visits.clear()


_INVALID_LENGTH = _Failure(ReturnCode.INVALID_PAYLOAD_LENGTH)
_INTERNAL_ERROR = _Failure(ReturnCode.INTERNAL_ERROR)


class LoopLine:
    """A line of `loop`, whose messages `transmit` sends."""

    def __init__(self, loop: Loop, transmit: Callable[[Message], None]) -> None:
        self.transmit, self.later, self.post = transmit, loop.later, loop.post
