"""What a fabric manager can reach of a fabric: command interfaces by MCTP endpoint ID."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from softcxl.device.cci import Later, Reply
from softcxl.device.mld.logical import LogicalDevice
from softcxl.device.type3 import Type3
from softcxl.fabric.errors import BuildError
from softcxl.spec.command.events import EVENT_NOTIFICATION, EventNotificationRequest
from softcxl.transport.errors import DoorError
from softcxl.transport.mctp import CommandInterface, Endpoint, MctpSerialSocket, Open, Send

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric

FIRST: Final = 8
"""The endpoint ID of the first one, to which a fabric manager that names no endpoint (0) comes, too."""

LAST: Final = 254


def endpoints(fabric: Fabric) -> dict[int, Endpoint]:
    """Its shared switches, then devices of logical devices, then those of one function, each with a number of its own;
    as many as there are numbers for. Logical devices are behind tunnels."""
    numbers = range(FIRST, LAST + 1)
    return dict(zip(numbers, _endpoints(fabric), strict=False))


@contextmanager
def serial_lines(fabric: Fabric, path: Path) -> Iterator[Path]:
    """A Unix socket at which serial ports of guests connect: each is a line to the endpoints (DSP0253). Raises
    `BuildError` where the fabric has none, or the socket cannot be made."""
    served = endpoints(fabric)
    if not served:
        raise BuildError(
            "the fabric has neither switches nor devices: no MCTP endpoint to be reached by a serial line"
        )
    try:
        with MctpSerialSocket(served, path):
            yield path
    except DoorError as error:
        raise BuildError(str(error)) from error


def _endpoints(fabric: Fabric) -> Iterator[Endpoint]:
    for name, switch in fabric.switches.items():
        yield Endpoint(name, _opened(switch))
    for name, pool in fabric.mlds.items():
        yield Endpoint(name, _opened(pool))
    for name, device in fabric.devices.items():
        if not isinstance(device, LogicalDevice):
            yield Endpoint(name, lambda send, device=device: _Device(device, send))  # type: ignore[misc]


class _Managed(Protocol):
    def management(self, send: Callable[[EventNotificationRequest], None]) -> CommandInterface: ...


def _opened(component: _Managed) -> Open:
    return lambda send: component.management(_notify(send))


def _notify(send: Send) -> Callable[[EventNotificationRequest], None]:
    return lambda request: send(EVENT_NOTIFICATION.opcode, request.pack())


class _Device:
    """A device's command interface, which leaves its lock to whoever calls it."""

    def __init__(self, device: Type3, send: Send) -> None:
        self._lock = device.lock
        self._cci = device.management(_notify(send))

    @property
    def payload_max(self) -> int:
        return self._cci.payload_max

    def execute(self, opcode: int, payload: bytes) -> Reply:
        with self._lock:
            return self._locked(self._cci.execute(opcode, payload))

    def _locked(self, reply: Reply) -> Reply:
        """A reply that comes later takes the lock then."""
        if not isinstance(reply, Later):
            return reply
        held = reply

        def run() -> Reply:
            with self._lock:
                return self._locked(held.run())

        return replace(held, run=run)

    def close(self) -> None:
        with self._lock:
            self._cci.close()
