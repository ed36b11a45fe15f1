"""A component's command interface from outside: any command, its background operation, what messages it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from softcxl.fm.channel import HEADER, TUNNEL, Answer, Channel, naming
from softcxl.fm.errors import BadAnswer, CommandRefused, FmError, NoAnswer
from softcxl.spec.command.base import Command, ReturnCode
from softcxl.spec.command.information import (
    BACKGROUND_OPERATION_STATUS,
    GET_RESPONSE_MESSAGE_LIMIT,
    IDENTIFY,
    REQUEST_ABORT_BACKGROUND_OPERATION,
    SET_RESPONSE_MESSAGE_LIMIT,
    BackgroundOperationStatusResponse,
    IdentifyResponse,
    ResponseMessageLimit,
)
from softcxl.spec.command.registry import COMMANDS
from softcxl.wire import LayoutError, Record

R = TypeVar("R", bound=Record)

Progress = Callable[[int], None]
"""Called with the percentage of a background operation that is complete, each time it is asked for."""

#: What a component takes and gives that does not say: jack asks for as much of any.
_ORDINARY_MESSAGE = 1 << 12
_MESSAGE_EXPONENTS = range(8, 21)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25


class Interface:
    """The command interface of a component at the other end of `channel`.

    All methods raise `NoAnswer`, `BadAnswer`, and `CommandRefused` where the answer is no success. `outer` is the
    component that commands are tunnelled through, if they are. `pause` (seconds) waits between two looks at a
    background operation.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        outer: Interface | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.channel, self.outer, self.pause = channel, outer, pause
        self._room = 0

    @property
    def name(self) -> str:
        """Which component this is: an address, and the way from there."""
        return self.channel.name

    # -- any command -----------------------------------------------------------------------------------------

    async def execute(self, opcode: int, payload: bytes = b"") -> Answer:
        """Send any command, and return its answer whatever the return code is."""
        return await self.channel.exchange(opcode, payload)

    async def request(
        self,
        command: Command | int,
        request: Record | None = None,
        *,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> Record | None:
        """Send a command that is declared (`softcxl.spec.command.registry.COMMANDS`, or its opcode), and return its
        output as a record, None where it has none.

        One that goes on in the background is waited for, unless `wait` is False.
        """
        if isinstance(command, int):
            if command not in COMMANDS:
                raise FmError(f"{naming(command)} is not declared; execute() sends what is not")
            command = COMMANDS[command]
        if type(request) is not (command.request or type(None)):
            wanted = command.request.__name__ if command.request is not None else "no input"
            raise TypeError(f"{naming(command.opcode)} takes {wanted}, not {type(request).__name__}")
        if command.response is not None:
            return await self._get(command.response, command, request)
        if await self.start(command, request) and wait:
            await self.wait(command, request, progress)
        return None

    async def start(self, command: Command, request: Record | None = None) -> bool:
        """Send a command that has no output; whether it goes on in the background (`wait`)."""
        answer = await self.execute(command.opcode, b"" if request is None else request.pack())
        if answer.code not in (ReturnCode.SUCCESS, ReturnCode.BACKGROUND_STARTED):
            raise self.refused(command, request, answer)
        return answer.code == ReturnCode.BACKGROUND_STARTED

    async def _do(self, command: Command, request: Record | None = None) -> None:
        await self.request(command, request)

    async def _get(self, kind: type[R], command: Command, request: Record | None = None) -> R:
        """The output of a command, which is of that kind."""
        answer = await self.execute(command.opcode, b"" if request is None else request.pack())
        if answer.code == ReturnCode.BACKGROUND_STARTED:
            says = "goes on in the background, and its output never comes"
            raise BadAnswer(f"{self.name}: {naming(command.opcode)} {says}")
        if answer.code != ReturnCode.SUCCESS:
            raise self.refused(command, request, answer)
        return self._read(command, kind, answer.payload)

    def refused(self, command: Command, request: Record | None, answer: Answer) -> CommandRefused:
        """The error for an answer that is no success."""
        return CommandRefused(naming(command.opcode), request, self.name, answer.code, answer.vendor_status)

    def _read(self, command: Command, kind: type[R], payload: bytes) -> R:
        """The output of a command. What a later revision has behind it is left alone."""
        try:
            return kind.unpack_from(payload)
        except LayoutError as error:
            raise BadAnswer(f"{self.name}: {naming(command.opcode)}: {error}") from None

    # -- background operation --------------------------------------------------------------------------------

    async def background_operation(self) -> BackgroundOperationStatusResponse:
        """Background Operation Status (0002h)."""
        return await self._get(BackgroundOperationStatusResponse, BACKGROUND_OPERATION_STATUS)

    async def abort_background_operation(self) -> None:
        """Request Abort Background Operation (0005h)."""
        await self._do(REQUEST_ABORT_BACKGROUND_OPERATION)

    async def wait(
        self, command: Command, request: Record | None = None, progress: Progress | None = None
    ) -> None:
        """Until the background operation that `command` has started is over. Raises `CommandRefused` where it fails,
        `NoAnswer` where another operation has taken its place before its end was seen."""
        pause = _FIRST_PAUSE
        while True:
            state = await self.background_operation()
            if state.opcode != command.opcode:
                message = f"how {naming(command.opcode)} has ended is not known"
                raise NoAnswer(f"{self.name}: {message}: {naming(state.opcode)} has begun since")
            if not state.status.in_progress:
                break
            if progress is not None:
                progress(state.status.percentage_complete)
            await self.pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        if state.return_code != ReturnCode.SUCCESS:
            name = f"{naming(command.opcode)} in the background"
            raise CommandRefused(name, request, self.name, state.return_code, state.vendor_status)
        if progress is not None:
            progress(100)

    # -- identity and messages -------------------------------------------------------------------------------

    async def identify(self) -> IdentifyResponse:
        """Identify (0001h): vendor, serial number, largest message, component type.

        A component of CXL 2.0 does not say its type; it is FFh then.
        """
        answer = await self.execute(IDENTIFY.opcode)
        if answer.code != ReturnCode.SUCCESS:
            raise self.refused(IDENTIFY, None, answer)
        short = len(answer.payload) == IdentifyResponse.__layout__.size - 1
        return self._read(IDENTIFY, IdentifyResponse, answer.payload + b"\xff" * short)

    async def response_message_limit(self) -> int:
        """The largest response that the component sends, in bytes (Get Response Message Limit, 0003h)."""
        limit = (await self._get(ResponseMessageLimit, GET_RESPONSE_MESSAGE_LIMIT)).limit
        if limit not in _MESSAGE_EXPONENTS:
            raise BadAnswer(
                f"{self.name}: a response message limit of 2^{limit} bytes; 2^8 to 2^20 are allowed"
            )
        return int(1 << limit)

    async def set_response_message_limit(self, size: int) -> int:
        """Limit responses to `size` bytes, a power of two from 256 to 1 MiB (Set Response Message Limit, 0004h).
        The limit that is in effect then."""
        exponent = size.bit_length() - 1
        if size != 1 << max(0, exponent) or exponent not in _MESSAGE_EXPONENTS:
            raise ValueError(f"{size} bytes; a power of two from 256 to 1048576 is allowed")
        request = ResponseMessageLimit(limit=exponent)
        response = await self._get(ResponseMessageLimit, SET_RESPONSE_MESSAGE_LIMIT, request)
        self._room = 0
        return int(1 << response.limit)

    async def room(self) -> int:
        """How many bytes the payload of a command and of its answer can have here, tunnels on the way included."""
        if not self._room:
            exponents = []
            try:
                exponents.append((await self.identify()).max_message_size)
                exponents.append((await self._get(ResponseMessageLimit, GET_RESPONSE_MESSAGE_LIMIT)).limit)
            except (CommandRefused, BadAnswer):
                pass  # one that has neither takes what is ordinary; some answer garbage to what they have not
            sizes = [1 << exponent for exponent in exponents if exponent in _MESSAGE_EXPONENTS]
            room = min(sizes, default=_ORDINARY_MESSAGE) - HEADER
            self._room = room if self.outer is None else min(room, await self.outer.room() - TUNNEL)
        return self._room
