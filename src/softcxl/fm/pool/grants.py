"""Grants: memory that one host has as CXL memory of its own, for as long as it is heard of.

A grant is a logical device, bound to a free vPPB of the host's virtual switch, or dynamic capacity of a device that the
host has. When its lease runs out, the host loses it through the fabric manager, whatever the host does; only when the
fabric says that it is gone is its capacity others' to have. Until then it is *held*, with the reason, and tried again.

Each step is written down before it is made, so that a server that is killed goes on where it was: to fence what is gone
already does no harm.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID, uuid4

from softcxl.fm.device import Device
from softcxl.fm.errors import CommandRefused, FmError
from softcxl.fm.pool.fence import Binding, Capacity, Fence, Port
from softcxl.fm.switch import Switch
from softcxl.memory.page import replace
from softcxl.spec.fm.switch import ConnectedDeviceType
from softcxl.spec.fm.vcs import BindingStatus
from softcxl.wire.sizes import format_size

log = logging.getLogger(__name__)

FORMAT: Final = 1
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until what could not be fenced is tried again: twice as long each time."""

State = Literal["granting", "granted", "ending", "held"]
Tell = Callable[..., object]
"""Told what happens: a kind (``granted``, ``lease-ended``, ``held``, ``fenced``), the host, and more by name."""


class GrantError(FmError):
    """A grant that cannot be made, or is none."""


class NoRoom(GrantError):
    """No device can give a host so much now; the message says why."""


class NoSuchGrant(GrantError):
    """There is no grant of that number."""


class LeaseEnded(GrantError):
    """Its lease has run out: it is being taken from its host, and stays gone."""


@dataclass(slots=True)
class Grant:
    """`size` bytes that `host` has for itself, and where they are: a `Binding` of a logical device, or the `Capacity`
    of a tag. `reason` says why it ends, or is held; `lease` is in seconds, `until` by the grants' clock."""

    number: int
    host: str
    size: int
    lease: float
    place: Binding | Capacity
    state: State = "granting"
    reason: str = ""
    until: float = 0.0
    tries: int = field(default=0, compare=False)

    def plain(self) -> dict[str, Any]:
        """As a page keeps it, and JSON has it."""
        kind = "ld" if isinstance(self.place, Binding) else "extents"
        place = {name: str(one) if isinstance(one, UUID) else one for name, one in asdict(self.place).items()}
        return {
            "number": self.number,
            "host": self.host,
            "size": self.size,
            "lease": self.lease,
            "state": self.state,
            "reason": self.reason,
            kind: place,
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Grant:
        """From what `plain` has kept. Raises what Python does for what cannot be."""
        place: Binding | Capacity
        if "ld" in plain:
            place = Binding(**plain["ld"])
        else:
            place = Capacity(**(dict(plain["extents"]) | {"tag": UUID(plain["extents"]["tag"])}))
        state = plain["state"]
        if state not in ("granting", "granted", "ending", "held"):
            raise ValueError(f"state {state!r}")
        number, host, size = int(plain["number"]), str(plain["host"]), int(plain["size"])
        return cls(number, host, size, float(plain["lease"]), place, state, str(plain["reason"]))


class Grants:
    """All grants of a fabric. `hosts` are, by host, its virtual switches: each the name of a switch and a VCS ID. What
    is granted is on `page`; `tell` hears what happens.

    `now` is a clock in seconds. All of it is for one event loop: one thing is done at a time, and renewals, which do
    nothing, between. `look` does what is due; `run` does it when it is.
    """

    def __init__(
        self,
        fence: Fence,
        hosts: Mapping[str, Sequence[tuple[str, int]]],
        page: Path,
        *,
        tell: Tell = lambda kind, subject, **detail: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fence, self._hosts, self._page, self._tell, self._now = fence, hosts, page, tell, now
        self._changing = asyncio.Lock()
        self._sooner = asyncio.Event()
        self._all: dict[int, Grant] = {}
        self._next = 1
        self._read()

    async def cut_off(self, host: str, ports: Sequence[Port]) -> None:
        """Take what is in these ports: the ways by which a host reaches memory that is others', too.

        Raises `FmError`.
        """
        for port in ports:
            for binding in await self.fence.unbind_port(port):
                self._tell("cut-off", host, binding=str(binding))

    @property
    def all(self) -> list[Grant]:
        """Every grant, ending and held ones too, by number."""
        return [self._all[number] for number in sorted(self._all)]

    def told(self) -> list[dict[str, Any]]:
        """Every grant as JSON has it, and `seconds`: until its lease runs out, or until it is tried again."""
        now = self._now()
        return [one.plain() | {"seconds": round(max(one.until - now, 0.0), 3)} for one in self.all]

    # -- giving --------------------------------------------------------------------------------------------------

    async def grant(
        self, size: int, host: str, lease: float, kind: Literal["ld", "extents"] | None = None
    ) -> Grant:
        """Give a host `size` bytes for itself, rounded up to what devices deal out, for `lease` seconds from when it is
        last renewed: as a logical device or as extents, as `kind` says or as there is room. Raises `GrantError`."""
        if size <= 0:
            raise GrantError(f"{size} bytes for {host}; more than 0 are allowed")
        if not 0 < lease < float("inf"):
            raise GrantError(f"a lease of {lease} seconds for {host}; more than 0 are allowed")
        if host not in self._hosts:
            raise GrantError(
                f"{host!r} is no host of a virtual switch; there are {', '.join(self._hosts) or 'none'}"
            )
        async with self._changing:
            reasons: list[str] = []
            offers = (self._logical_devices, self._extents)
            wanted = {"ld": offers[:1], "extents": offers[1:], None: offers}[kind]
            for offer in wanted:
                async for place, rounded in offer(size, host, reasons):
                    try:
                        return await self._give(Grant(self._next, host, rounded, lease, place))
                    except CommandRefused as error:
                        reasons.append(str(error))
            why = "; ".join(dict.fromkeys(reasons)) or "no switch of its has a device that could"
            raise NoRoom(f"{format_size(size)} for {host}: {why}")

    async def _give(self, grant: Grant) -> Grant:
        self._next += 1
        self._all[grant.number] = grant
        try:
            self._keep()
            await self._make(grant)
            grant.until, grant.state = self._now() + grant.lease, "granted"
            self._keep()
        except BaseException as error:
            grant.state, grant.reason = "ending", f"it could not be given: {error}"
            self._sooner.set()
            if isinstance(error, FmError):
                await self._end(grant)  # what of it has been made goes; if that cannot be now, it is held
            raise
        self._say("granted", grant)
        self._sooner.set()
        return grant

    async def _make(self, grant: Grant) -> None:
        place = grant.place
        async with self.fence.switch(place.switch) as switch:
            device = switch.port(place.port)
            if isinstance(place, Binding):
                assert place.ld is not None, "of a grant"
                await device.set_ld_allocations([(grant.size, 0)], place.ld)
                await switch.bind(place.vcs, place.vppb, place.port, place.ld)
                return
            regions = (await device.dc_regions(place.host)).regions
            free = [number for number, one in enumerate(regions) if not one.attributes.shareable] or [0]
            await device.dc_add(place.host, place.length, region=free[0], tag=place.tag)
        await self.fence.taken(place)

    # -- where there is room -------------------------------------------------------------------------------------

    async def _logical_devices(
        self, size: int, host: str, reasons: list[str]
    ) -> AsyncIterator[tuple[Binding | Capacity, int]]:
        """Free vPPBs of the host with logical devices that could be bound there, those of the emptiest device first."""
        used = {
            (one.place.switch, one.place.port, one.place.ld)
            for one in self._all.values()
            if isinstance(one.place, Binding)
        }
        found: list[tuple[int, Binding, int]] = []
        for name, vcs in self._hosts[host]:
            async with self.fence.switch(name) as switch:
                vppbs = (await switch.virtual_switches([vcs]))[0].vppbs
                free = [number for number, one in enumerate(vppbs) if one.status == BindingStatus.UNBOUND]
                if not free:
                    reasons.append(f"VCS {vcs} of {name} has no free vPPB")
                    continue
                for port, device in await _devices(switch, ConnectedDeviceType.TYPE_3_MLD):
                    allocations, whole = await device.ld_allocations(), (await device.ld_info()).memory_size
                    left = whole - sum(map(sum, allocations.ranges))
                    rounded = -(-size // allocations.granularity) * allocations.granularity
                    lds = [ld for ld, one in enumerate(allocations.ranges) if not any(one)]
                    lds = [ld for ld in lds if (name, port, ld) not in used]
                    if rounded > left:
                        reasons.append(
                            f"port {port} of {name} has {format_size(left) if left else 'nothing'} left"
                        )
                    elif not lds:
                        reasons.append(f"port {port} of {name} has no logical device without memory")
                    else:
                        found.append((left, Binding(name, vcs, free[0], port, lds[0]), rounded))
        for _, place, rounded in sorted(found, key=lambda one: -one[0]):
            yield place, rounded

    async def _extents(
        self, size: int, host: str, reasons: list[str]
    ) -> AsyncIterator[tuple[Binding | Capacity, int]]:
        """Devices with dynamic capacity that the host has."""
        found: list[tuple[Capacity, int]] = []
        for name, vcs in self._hosts[host]:
            async with self.fence.switch(name) as switch:
                vppbs = (await switch.virtual_switches([vcs]))[0].vppbs
                bound = (BindingStatus.BOUND_PORT, BindingStatus.BOUND_LD)
                for one in vppbs:
                    if one.status not in bound:
                        continue
                    at = one.ld if one.status == BindingStatus.BOUND_LD else 0
                    try:
                        regions = (await switch.port(one.port).dc_regions(at)).regions
                    except CommandRefused:
                        continue  # it has no dynamic capacity
                    if not regions:
                        continue
                    block = next(
                        (each.block_size for each in regions if not each.attributes.shareable),
                        regions[0].block_size,
                    )
                    rounded = -(-size // block) * block
                    found.append((Capacity(name, one.port, at, uuid4(), rounded), rounded))
        if not found:
            reasons.append(f"{host} has no device with dynamic capacity")
        for place, rounded in found:
            yield place, rounded

    # -- leases --------------------------------------------------------------------------------------------------

    def renew(self, number: int) -> None:
        """Its lease begins anew. Raises `NoSuchGrant`, and `LeaseEnded` where it has run out already."""
        grant = self._one(number)
        if grant.state != "granted" or grant.until <= self._now():
            raise LeaseEnded(f"grant {number} of {grant.host}: its lease has run out; the memory is gone")
        grant.until = self._now() + grant.lease

    def heard_of(self, host: str) -> None:
        """A client of the host has given a sign of life: the leases of all that it has begin anew."""
        now = self._now()
        for grant in self._all.values():
            if grant.host == host and grant.state == "granted" and grant.until > now:
                grant.until = now + grant.lease

    async def release(self, number: int) -> None:
        """The host is through with it: it is taken back, as if its lease had run out now. Raises `NoSuchGrant`, and
        `GrantError` where it is held."""
        grant = self._one(number)
        async with self._changing:
            if self._all.get(number) is not grant:
                return
            if grant.state == "granted":
                grant.state, grant.reason = "ending", "it was given back"
            await self._end(grant)
        if number in self._all:
            raise GrantError(f"grant {number} of {grant.host} is held: {grant.reason}")

    def _one(self, number: int) -> Grant:
        if number not in self._all:
            raise NoSuchGrant(
                f"there is no grant {number}; there are {', '.join(map(str, self._all)) or 'none'}"
            )
        return self._all[number]

    # -- what is due ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on where a server before was: what was being given or taken is taken, what is no host's any more is let
        go of, and leases of the others begin anew."""
        async with self._changing:
            for grant in self.all:
                if grant.state == "granting":
                    grant.state, grant.reason = "ending", "its server died as it was given"
                elif grant.state == "granted" and not await self._is_there(grant):
                    grant.state, grant.reason = "ending", "its host has it no more: the fabric was made anew"
                grant.until = self._now() + (grant.lease if grant.state == "granted" else 0)
        await self.look()

    async def _is_there(self, grant: Grant) -> bool:
        try:
            if isinstance(grant.place, Binding):
                return await self.fence.bound(grant.place)
            return bool(await self.fence.has(grant.place))
        except FmError as error:
            log.warning("grant %d of %s: %s", grant.number, grant.host, error)
            return True  # it is not known to be gone

    async def look(self) -> float | None:
        """Take from hosts what their leases do not cover any more. Returns in how many seconds the next is due, None
        where there is none."""
        for grant in self.all:
            if grant.until > self._now() or grant.state == "granting":
                continue
            async with self._changing:
                if self._all.get(grant.number) is not grant or grant.until > self._now():
                    continue
                if grant.state == "granted":
                    grant.state, grant.reason = "ending", "its lease has run out"
                    self._say("lease-ended", grant)
                await self._end(grant)
        due = [one.until for one in self._all.values() if one.state != "granting"]
        return max(min(due) - self._now(), 0.0) if due else None

    async def run(self) -> None:
        """Do what is due, until it is cancelled."""
        while True:
            self._sooner.clear()
            seconds = await self.look()
            try:
                async with asyncio.timeout(seconds):
                    await self._sooner.wait()
            except TimeoutError:
                pass

    async def _end(self, grant: Grant) -> None:
        """Take it from its host; what cannot be confirmed is held. The lock is held."""
        try:
            self._keep()
            await self._take(grant)
            del self._all[grant.number]
            try:
                self._keep()
            except OSError:
                self._all[grant.number] = grant
                raise
        except (FmError, OSError) as error:
            pause = min(FIRST_PAUSE * 2**grant.tries, LONGEST_PAUSE)
            grant.tries += 1
            grant.until = self._now() + pause
            again, grant.reason = grant.reason == str(error), str(error)
            grant.state = "held"
            if not again:
                self._say("held", grant)
                log.warning("grant %d of %s is held: %s", grant.number, grant.host, error)
            return
        self._say("fenced", grant)

    async def _take(self, grant: Grant) -> None:
        place = grant.place
        if isinstance(place, Capacity):
            await self.fence.release(place)
            return
        assert place.ld is not None, "of a grant"
        await self.fence.unbind(place)
        await self.fence.empty(Port(place.switch, place.port), place.ld)

    # -- what outlives the server ----------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            kept = json.loads(self._page.read_text(encoding="utf-8"))
            if kept["format"] != FORMAT:
                raise GrantError(f"{self._page}: format {kept['format']}, this version reads {FORMAT}")
            for one in map(Grant.read, kept["grants"]):
                self._all[one.number] = one
            self._next = max([int(kept["next"]), *(number + 1 for number in self._all)])
        except FileNotFoundError:
            return
        except OSError as error:
            raise GrantError(f"{self._page}: {error.strerror}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise GrantError(f"{self._page}: these are no grants: {error!r}") from error

    def _keep(self) -> None:
        """Raises `OSError`: then what was there stands."""
        grants = [one.plain() for one in self.all]
        replace(self._page, json.dumps({"format": FORMAT, "next": self._next, "grants": grants}) + "\n")

    def _say(self, kind: str, grant: Grant) -> None:
        reason = {"reason": grant.reason} if grant.reason else {}
        self._tell(kind, grant.host, grant=grant.number, size=grant.size, place=str(grant.place), **reason)


async def _devices(switch: Switch, kind: ConnectedDeviceType) -> list[tuple[int, Device]]:
    """What is in the switch's ports of that kind, by port."""
    ports = [one.port for one in await switch.ports() if one.connected_device_type == kind]
    return [(port, switch.port(port)) for port in ports]
