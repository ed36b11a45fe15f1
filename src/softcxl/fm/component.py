"""What every component has beside its own commands: logs, events, and what is behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar
from uuid import UUID

from softcxl.fm.channel import TunnelChannel, naming
from softcxl.fm.errors import BadAnswer, CommandRefused, FmError
from softcxl.fm.events import Event, EventBatch
from softcxl.fm.interface import Interface
from softcxl.spec.command.base import CelEntry, ReturnCode
from softcxl.spec.command.events import (
    CLEAR_EVENT_RECORDS,
    EVENT_NOTIFICATION,
    GET_EVENT_RECORDS,
    GET_MCTP_EVENT_INTERRUPT_POLICY,
    SET_MCTP_EVENT_INTERRUPT_POLICY,
    ClearEventRecordsFlags,
    ClearEventRecordsRequest,
    EventLog,
    EventNotificationRequest,
    GetEventRecordsRequest,
    GetEventRecordsResponse,
    MctpEventInterruptPolicy,
    MctpEventInterrupts,
)
from softcxl.spec.command.logs import (
    COMMAND_EFFECTS_LOG,
    GET_LOG,
    GET_SUPPORTED_LOGS,
    GetLogRequest,
    GetSupportedLogsResponse,
    SupportedLog,
)
from softcxl.spec.command.timestamp import GET_TIMESTAMP, SET_TIMESTAMP, Timestamp
from softcxl.spec.fm.mld_port import TunnelTargetType
from softcxl.wire import LayoutError

C = TypeVar("C", bound="Component")

#: A count of handles is a byte.
_HANDLES = 255


class Component(Interface):
    """A component at the other end of a channel: a switch, a device, or what is behind one of them."""

    # -- logs ------------------------------------------------------------------------------------------------

    async def supported_logs(self) -> list[SupportedLog]:
        """Get Supported Logs (0400h)."""
        return (await self._get(GetSupportedLogsResponse, GET_SUPPORTED_LOGS)).logs

    async def log(self, identifier: UUID) -> bytes:
        """A whole log (Get Log, 0401h), as long as Get Supported Logs says it is."""
        sizes = {one.identifier: one.size for one in await self.supported_logs()}
        if identifier not in sizes:
            raise FmError(
                f"{self.name}: there is no log {identifier}; there are {', '.join(map(str, sizes))}"
            )
        found, room = bytearray(), await self.room()
        while len(found) < sizes[identifier]:
            length = min(room, sizes[identifier] - len(found))
            request = GetLogRequest(identifier=identifier, offset=len(found), length=length)
            answer = await self.execute(GET_LOG.opcode, request.pack())
            if answer.code != ReturnCode.SUCCESS:
                raise self.refused(GET_LOG, request, answer)
            if len(answer.payload) > length:
                raise BadAnswer(
                    f"{self.name}: {naming(GET_LOG.opcode)}: {len(answer.payload)} bytes, {length} were asked for"
                )
            if not answer.payload:
                break
            found += answer.payload
        return bytes(found)

    async def command_effects(self) -> list[CelEntry]:
        """The Command Effects Log: which commands the component has, and what they do."""
        data, size = await self.log(COMMAND_EFFECTS_LOG), CelEntry.__layout__.size
        if len(data) % size:
            raise BadAnswer(
                f"{self.name}: a Command Effects Log of {len(data)} bytes, which is no multiple of {size}"
            )
        return [CelEntry.unpack_from(data, at) for at in range(0, len(data), size)]

    # -- clock -----------------------------------------------------------------------------------------------

    async def timestamp(self) -> int:
        """The component's clock, in ns since 1970; 0: it was not set, events have no time (Get Timestamp, 0300h)."""
        return (await self._get(Timestamp, GET_TIMESTAMP)).timestamp

    async def set_timestamp(self, nanoseconds: int) -> None:
        """Set the component's clock, in ns since 1970 (Set Timestamp, 0301h)."""
        await self._do(SET_TIMESTAMP, Timestamp(timestamp=nanoseconds))

    # -- events ----------------------------------------------------------------------------------------------

    async def events(self, log: EventLog) -> EventBatch:
        """The oldest records of a log, as many as the component returns at a time (Get Event Records, 0100h)."""
        request = GetEventRecordsRequest(event_log=log)
        return EventBatch.of(await self._get(GetEventRecordsResponse, GET_EVENT_RECORDS, request))

    async def clear_events(self, log: EventLog, handles: Sequence[int]) -> None:
        """Clear the records with these handles, in the order in which they were returned (Clear Event Records, 0101h).
        `take_events` clears what it has read."""
        for at in range(0, len(handles), _HANDLES):
            request = ClearEventRecordsRequest(event_log=log, handles=list(handles[at : at + _HANDLES]))
            await self._do(CLEAR_EVENT_RECORDS, request)

    async def clear_log(self, log: EventLog) -> None:
        """Clear a whole log, unread, which is allowed where it has overflowed (Clear Event Records, 0101h)."""
        flags = ClearEventRecordsFlags.make(clear_all=True)
        await self._do(CLEAR_EVENT_RECORDS, ClearEventRecordsRequest(event_log=log, flags=flags))

    async def take_events(self, log: EventLog) -> list[Event]:
        """All records of a log, which is empty then."""
        found: list[Event] = []
        while (batch := await self.events(log)).records:
            if found and batch.records[0] == found[0]:
                raise BadAnswer(
                    f"{self.name}: records of the {log.name.lower()} log were cleared and are still there"
                )
            await self.clear_events(log, [one.header.handle for one in batch.records])
            found += batch.records
            if not batch.more:
                break
        return found

    async def notification_policy(self) -> MctpEventInterrupts:
        """Which events the endpoint notifies us of (Get MCTP Event Interrupt Policy, 0104h)."""
        return (await self._get(MctpEventInterruptPolicy, GET_MCTP_EVENT_INTERRUPT_POLICY)).settings

    async def set_notification_policy(self, settings: MctpEventInterrupts) -> MctpEventInterrupts:
        """Choose which events the endpoint notifies us of (Set MCTP Event Interrupt Policy, 0105h). What is in effect
        then."""
        request = MctpEventInterruptPolicy(settings=settings)
        response = await self._get(MctpEventInterruptPolicy, SET_MCTP_EVENT_INTERRUPT_POLICY, request)
        return response.settings

    def notifications(self) -> AsyncIterator[MctpEventInterrupts]:
        """Each Event Notification (0106h) that the endpoint sends from now on: which of its logs have new records, and
        whether a background operation has ended. Ends with the connection.

        The endpoint sends those that `set_notification_policy` asks for.
        """
        return self._notifications(self.channel.notifications())

    async def _notifications(
        self, requests: AsyncIterator[tuple[int, bytes]]
    ) -> AsyncIterator[MctpEventInterrupts]:
        async for opcode, payload in requests:
            if opcode == EVENT_NOTIFICATION.opcode:
                try:
                    yield EventNotificationRequest.unpack_from(payload).events
                except LayoutError as error:
                    raise BadAnswer(f"{self.name}: {naming(opcode)}: {error}") from None

    async def follow_events(
        self, logs: Sequence[EventLog], every: float = 1.0
    ) -> AsyncGenerator[tuple[EventLog, Event], None]:
        """Each record of these logs, those that are there and those that come, cleared as they are read.

        New ones are read when the endpoint notifies of them; one that cannot is asked again after `every` seconds.
        """
        told: AsyncIterator[MctpEventInterrupts] | None = None
        if not isinstance(self.channel, TunnelChannel):
            told = self.notifications()  # before the logs are read, so that none is missed
            if not await self._notify_of(logs):
                told = None
        while True:
            for log in logs:
                for event in await self.take_events(log):
                    yield log, event
            if told is None:
                await self.pause(every)
            elif await anext(told, None) is None:
                return

    async def _notify_of(self, logs: Sequence[EventLog]) -> bool:
        """Have the endpoint notify of these logs, beside what it does already; whether it does."""
        try:
            settings = await self.notification_policy()
            for log in logs:
                setattr(settings, log.name.lower(), True)
            in_effect = await self.set_notification_policy(settings)
        except CommandRefused:
            return False
        return all(getattr(in_effect, log.name.lower()) for log in logs)

    # -- what is behind --------------------------------------------------------------------------------------

    def tunnel(self, kind: type[C], target: TunnelTargetType, number: int, where: str) -> C:
        """A component behind this one, its commands tunnelled (5300h). `number` is a port or LD ID, `where` says what
        is there."""
        return kind(TunnelChannel(self.channel, target, number, where), outer=self, pause=self.pause)
