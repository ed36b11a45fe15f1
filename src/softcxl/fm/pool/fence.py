"""Fencing: what a host has is taken from it through the fabric manager's commands, whatever the host does, and it is
taken for gone only when the fabric says so.

What is done twice does no harm: who has died amid it begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from softcxl.fm.connection import Connection
from softcxl.fm.device import Device
from softcxl.fm.dynamic import Extent
from softcxl.fm.errors import CommandRefused, FmError
from softcxl.fm.switch import Switch
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption, VppbInformation

PATIENCE: Final = 60.0
"""Seconds that a switch has to take a device from a host that does not answer."""

_BOUND: Final = (BindingStatus.BOUND_PORT, BindingStatus.BOUND_LD, BindingStatus.IN_PROGRESS)
_FIRST_PAUSE: Final = 0.02
_ROUNDS: Final = 4

Connect = Callable[[], AbstractAsyncContextManager[Connection]]
"""Opens a connection to the endpoints of a fabric."""


class NotFenced(FmError):
    """The fabric does not say that the host has lost what it had: the message says what it says."""


@dataclass(frozen=True, slots=True)
class Port:
    """A physical port of the switch of that name."""

    switch: str
    port: int

    def __str__(self) -> str:
        return f"port {self.port} of {self.switch}"


@dataclass(frozen=True, slots=True)
class Binding:
    """A vPPB of a virtual switch, bound to a physical port or, with `ld`, to a logical device of what is in it."""

    switch: str
    vcs: int
    vppb: int
    port: int
    ld: int | None = None

    def __str__(self) -> str:
        what = f"port {self.port}" if self.ld is None else f"LD {self.ld} of port {self.port}"
        return f"vPPB {self.vppb} of VCS {self.vcs} of {self.switch} to {what}"

    def holds(self, found: VppbInformation) -> bool:
        """Whether a vPPB leads there, or may yet."""
        return found.status in _BOUND and found.port == self.port and (self.ld is None or found.ld == self.ld)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The dynamic capacity of a tag, `length` bytes, that `host` (an LD ID) was offered, of the device in a physical
    port."""

    switch: str
    port: int
    host: int
    tag: UUID
    length: int

    def __str__(self) -> str:
        return f"the extents of tag {self.tag} of host {self.host} of port {self.port} of {self.switch}"


class Fence:
    """Takes memory, and functions, from hosts of the switches that are behind `connect`.

    `endpoints` are the endpoint IDs of switches by their names, where the connection does not tell them itself.
    `patience` is how many seconds a switch has for it, `pause` (seconds) waits between two looks. Methods raise
    `FmError`s: `NotFenced`, or those of the fabric manager's client; then it is not known to be gone.
    """

    def __init__(
        self,
        connect: Connect,
        endpoints: Mapping[str, int] | None = None,
        *,
        patience: float = PATIENCE,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._connect, self._endpoints = connect, dict(endpoints or {})
        self.patience, self._pause = patience, pause

    @asynccontextmanager
    async def switch(self, name: str) -> AsyncIterator[Switch]:
        """Be at the command interface of the switch of that name."""
        async with self._connect() as connection:
            known = self._endpoints or dict(connection.names)
            if name not in known:
                raise FmError(
                    f"{connection.name}: there is no endpoint {name}; there are {', '.join(known) or 'none'}"
                )
            yield await connection.endpoint(Switch, known[name], pause=self._pause)

    # -- what is bound -------------------------------------------------------------------------------------------

    async def bound(self, binding: Binding) -> bool:
        """Whether it is."""
        async with self.switch(binding.switch) as switch:
            return binding.holds(await switch.vppb(binding.vcs, binding.vppb))

    async def unbind(self, binding: Binding) -> None:
        """Take it from its host by surprise, if it is bound; when this returns the host does not have it."""
        async with self.switch(binding.switch) as switch:
            await self._unbind(switch, binding)

    async def unbind_port(self, port: Port) -> list[Binding]:
        """Take what is in a port, a function alone, from whatever host has it. Returns what was bound."""
        async with self.switch(port.switch) as switch:
            found = [
                Binding(port.switch, one.id, number, port.port)
                for one in await switch.virtual_switches()
                for number, vppb in enumerate(one.vppbs)
                if vppb.status in _BOUND and vppb.port == port.port
            ]
            for one in found:
                await self._unbind(switch, one)
            return found

    async def _unbind(self, switch: Switch, binding: Binding) -> None:
        try:
            async with asyncio.timeout(self.patience):
                if binding.holds(await switch.vppb(binding.vcs, binding.vppb)):
                    await switch.unbind(binding.vcs, binding.vppb, UnbindOption.SURPRISE_HOT_REMOVE)
                found = await switch.vppb(binding.vcs, binding.vppb)
        except TimeoutError:
            raise NotFenced(f"{switch.name}: {binding} is not unbound after {self.patience:g} s") from None
        if binding.holds(found):
            raise NotFenced(f"{switch.name}: {binding} is bound yet")

    # -- logical devices' memory ---------------------------------------------------------------------------------

    async def empty(self, port: Port, ld: int) -> None:
        """Have a logical device have no memory any more; its memory is the device's to give out when this returns. A
        device refuses while somebody has it bound, wherever that is."""
        async with self.switch(port.switch) as switch:
            device = switch.port(port.port)
            if any((await device.ld_allocations()).ranges[ld]):
                await device.set_ld_allocations([(0, 0)], ld)
            if any((await device.ld_allocations()).ranges[ld]):
                raise NotFenced(f"{device.name}: LD {ld} has memory yet")

    # -- dynamic capacity ----------------------------------------------------------------------------------------

    async def has(self, capacity: Capacity) -> int:
        """How many bytes of it its host has taken."""
        async with self.switch(capacity.switch) as switch:
            return sum(one.length for one in await self._extents(switch.port(capacity.port), capacity))

    async def release(self, capacity: Capacity) -> None:
        """Take the extents from their host, whatever it does, with what it was offered and has not answered; when this
        returns it has none of them. They are erased."""
        async with self.switch(capacity.switch) as switch:
            device = switch.port(capacity.port)
            for _ in range(_ROUNDS):  # a host may take what it was offered meanwhile
                if extents := await self._extents(device, capacity):
                    await device.dc_release_extents(capacity.host, extents, forced=True, sanitize=True)
                elif await self._tagged(device, capacity):
                    host, tag = capacity.host, capacity.tag
                    try:
                        await device.dc_release(host, tag, capacity.length, forced=True, sanitize=True)
                    except CommandRefused:
                        if not await self._extents(device, capacity) and await self._tagged(device, capacity):
                            raise
                else:
                    return
            raise NotFenced(f"{device.name}: {capacity} are there yet")

    async def taken(self, capacity: Capacity) -> None:
        """Wait until a host has taken what it was offered. Raises `FmError` where it declines, or takes less."""
        async with self.switch(capacity.switch) as switch:
            await self._taken(switch.port(capacity.port), capacity)

    async def _taken(self, device: Device, capacity: Capacity) -> None:
        pause, length = _FIRST_PAUSE, capacity.length
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    pending = await self._tagged(device, capacity)
                    there = sum(one.length for one in await self._extents(device, capacity))
                    if there >= length:
                        return
                    if not pending:
                        raise FmError(f"{device.name}: host {capacity.host} takes {there} of {length} bytes")
                    await self._pause(pause)
                    pause = min(2 * pause, 1.0)
        except TimeoutError:
            raise FmError(
                f"{device.name}: host {capacity.host} has not taken {length} bytes after {self.patience:g} s"
            ) from None

    async def _extents(self, device: Device, capacity: Capacity) -> Sequence[Extent]:
        return [one for one in await device.dc_extents(capacity.host) if one.tag == capacity.tag]

    async def _tagged(self, device: Device, capacity: Capacity) -> bool:
        """Whether the tag is in use: some host has its capacity, or may still take it."""
        return any(one.tag == capacity.tag for one in await device.dc_tags())
