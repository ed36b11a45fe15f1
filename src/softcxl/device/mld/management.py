"""The command interface of an FM-owned logical device, for a door such as an MCTP endpoint or a switch's tunnel.

>>> from softcxl.device.mld.device import MultiLogicalDevice
>>> pool = MultiLogicalDevice("pool", volatile=1 << 30, logical_devices=[512 << 20, 0], serial=7)
>>> door = pool.management(lambda notification: None)
>>> door.execute(0x5400).payload.hex()  # 1 GiB, two logical devices, both kinds of QoS telemetry
'0000004000000000020003'
>>> pool.close()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softcxl.device.cci import Cci, CommandError, CommandSet, Reply, command
from softcxl.device.effects import EffectsLog
from softcxl.device.management import ComponentCommands, ManagementCci
from softcxl.device.notification import NotificationPolicy
from softcxl.device.tunnel import CommandInterface, answered, carried
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import (
    GET_EVENT_INTERRUPT_POLICY,
    SET_EVENT_INTERRUPT_POLICY,
    EventNotificationRequest,
)
from softcxl.spec.fm.mld_port import (
    MAX_TUNNELS,
    TUNNEL_MANAGEMENT_COMMAND,
    TunnelRequest,
    TunnelResponse,
    TunnelTargetType,
)

if TYPE_CHECKING:
    from softcxl.device.mld.head import Head
    from softcxl.device.mld.logical import LogicalDevice

Send = Callable[[EventNotificationRequest], None]

_OF_MAILBOXES: Final = (GET_EVENT_INTERRUPT_POLICY.opcode, SET_EVENT_INTERRUPT_POLICY.opcode)


class OwnerCci(CommandSet):
    """A door's command interface of the FM-owned LD of `head`.

    `send` gets each Event Notification, with the lock held, also those of logical devices that were asked for through
    a tunnel. Everything is refused by the standard's return codes; nothing raises.
    """

    def __init__(self, head: Head, send: Send) -> None:
        self._head, self._send = head, send
        owned = self._owned = head.fm_owned
        self.policy = NotificationPolicy(owned.events, send)
        self._own = Cci(owned.cci.clock, owned.lock, payload_max=owned.cci.payload_max)
        self._own.add([ComponentCommands(owned), self.policy, EffectsLog(self._own), self])
        self._here = frozenset(self._own.handlers)
        for opcode, entry in owned.cci.handlers.items():
            if opcode not in _OF_MAILBOXES:
                self._own.handlers.setdefault(opcode, entry)
        self._layers: list[TunnelRequest] = []  # tunnels that are being processed, here or at the pool
        self._inner: dict[int, tuple[LogicalDevice, ManagementCci]] = {}
        self._pool: OwnerCci | None = None
        owned.doors.append(self)

    @property
    def payload_max(self) -> int:
        """The largest payload of a request or response, in bytes."""
        return self._own.payload_max

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        """Answer one command. Never raises. Safe from any thread."""
        if len(payload) > self.payload_max:
            return Reply(ReturnCode.INVALID_PAYLOAD_LENGTH)
        with self._owned.lock:
            if opcode in self._here or opcode not in self._own.handlers:
                return self._own.execute(opcode, payload)
            return self._owned.cci.execute(opcode, payload)

    def reset(self) -> None:
        """A conventional reset of the device."""
        self.policy.reset()

    def background_ended(self) -> None:
        """A background operation of the FM-owned LD has ended, whichever door it came by."""
        self.policy.background_ended()

    def close(self) -> None:
        """The door is closed: nothing is sent any more."""
        with self._owned.lock:
            self.policy.close()
            self._owned.doors.remove(self)
            for _, door in self._inner.values():
                door.close()
            self._inner.clear()
            if self._pool is not None:
                self._pool.close()

    # -- tunnels -------------------------------------------------------------------------------------------------

    @command(TUNNEL_MANAGEMENT_COMMAND)
    def tunnel(self, request: TunnelRequest) -> TunnelResponse:
        message = carried(request)
        interface = self._target(request)
        if len(self._layers) >= MAX_TUNNELS:
            raise CommandError(ReturnCode.UNSUPPORTED)
        self._layers.append(request)
        try:
            return answered(interface, message)
        finally:
            self._layers.pop()

    def _target(self, request: TunnelRequest) -> CommandInterface:
        """Where a tunnel goes. Raises `CommandError` where nothing is there."""
        if request.target.type == TunnelTargetType.LD_POOL_CCI:
            return self._ld_pool()
        if request.target.type != TunnelTargetType.PORT_OR_LD:
            raise CommandError(ReturnCode.INVALID_INPUT)
        ld = request.port_or_ld
        device = self._head.function(ld)
        if device is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return self._logical(ld, device)

    def _logical(self, ld: int, device: LogicalDevice) -> ManagementCci:
        """The command interface of a logical device, opened once for as long as it is the same."""
        opened = self._inner.get(ld)
        if opened is not None and opened[0] is device:
            return opened[1]
        if opened is not None:
            opened[1].close()
        door = self._open(device)
        self._inner[ld] = device, door
        return door

    def _open(self, device: LogicalDevice) -> ManagementCci:
        return device.management(self._send)

    def _ld_pool(self) -> CommandInterface:
        """The command interface of the pool of all heads' logical devices. Raises `CommandError` where there is but one
        head."""
        pool = self._head.mld.pool
        if len(self._head.mld.heads) == 1:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if pool is self._head:
            return self
        if self._pool is None:
            self._pool = OwnerCci(pool, self._send)
            self._pool._layers = self._layers
        return self._pool


class SingleCci(OwnerCci):
    """A door's command interface of a head that is a single logical device: its commands, and the tunnel to the pool.

    While it has no memory, the head answers as FM-owned logical devices do.
    """

    def execute(self, opcode: int, payload: bytes = b"") -> Reply:
        with self._owned.lock:
            device = self._head.function(0)
            if device is None:
                return super().execute(opcode, payload)
            return self._logical(0, device).execute(opcode, payload)

    def _open(self, device: LogicalDevice) -> ManagementCci:
        door = super()._open(device)
        door.add(self)
        return door

    def _target(self, request: TunnelRequest) -> CommandInterface:
        if request.target.type != TunnelTargetType.LD_POOL_CCI:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return self._ld_pool()
