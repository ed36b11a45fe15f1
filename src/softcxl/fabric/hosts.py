"""The hosts of a live fabric as somebody acts on them: which one, booted when it is first needed, one act at a time."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from softcxl.fabric.build import Fabric
from softcxl.fabric.endpoints import endpoints, serial_lines
from softcxl.fabric.errors import BuildError, NoSuchHost
from softcxl.fabric.visitor import Visitor
from softcxl.host.system import System
from softcxl.memory.assembled import Assembled
from softcxl.memory.media import Medium
from softcxl.transport.vfio_user import Door

log = logging.getLogger(__name__)


class Verb(Protocol):
    """Something that can be done to a host, with its arguments: a dataclass of plain types.

    One that has `of_fabric` is done to the fabric: no host is needed, and none is kept from others meanwhile. One that
    `waits` does not keep its host from others.
    """

    def perform(self, call: Call) -> None:
        """Do it. What it says goes through `call`; what cannot be is raised."""


class Caller(Protocol):
    """Who has asked for something that may take long."""

    leaving: list[Callable[[], None]]
    """Called once, when he has gone."""

    def gone(self) -> bool:
        """Whether he has."""


class Hosts:
    """The hosts of `fabric`, which `name` stands for in messages; doors to their devices open in `folder`.

    A host is driven in this process, by the operating system that `system` boots, or from outside, by who comes
    through its doors; which of the two is settled when either is first asked for. From any thread.
    """

    def __init__(self, fabric: Fabric, name: str, folder: Path | None = None) -> None:
        self.fabric = fabric
        self.name = name
        self._folder = folder
        self._changing = threading.Lock()
        self._locks = {host: threading.Lock() for host in fabric.hosts}
        self._attending = ThreadPoolExecutor(1, "softcxl-slots")
        self._systems: dict[str, System] = {}
        self._doors: dict[str, ExitStack] = {}
        self.visitors: dict[str, Visitor] = {}
        self._lines: dict[str, Path] = {}
        """The guests that are there, or may come through the doors that are open, by host."""
        self.manager: dict[str, Any] = {}
        """Where a fabric manager comes in, for people and programs: nothing where none can."""
        self.leases: Any = None
        """The leases of memory that hosts have for themselves (`softcxl.fm.pool.leases`), None where there are none."""

    def host(self, given: str | None) -> str:
        """The name of the host that is meant, the first one if None. Raises `NoSuchHost`."""
        names = list(self._locks)
        if not names:
            raise NoSuchHost(f"{self.name}: no host is in it")
        if given is not None and given not in names:
            raise NoSuchHost(f"{given!r} is no host of {self.name}; there are {', '.join(names)}")
        return names[0] if given is None else given

    def perform(
        self,
        verb: Verb,
        host: str | None,
        out: Callable[[str | bytes], None],
        err: Callable[[str], None],
        caller: Caller | None = None,
    ) -> None:
        """Do something to a host, and nothing else to it meanwhile. Raises what the verb raises, and `NoSuchHost`."""
        if getattr(verb, "of_fabric", False):
            verb.perform(Call(self, host or "", out, err, caller))
            return
        name = self.host(host)
        call = Call(self, name, out, err, caller)
        if getattr(verb, "waits", False):
            verb.perform(call)
            return
        with self._locks[name]:
            verb.perform(call)

    def system(self, host: str) -> System:
        """The operating system of that host, booted when first asked for. Raises `BuildError` while a door is open."""
        with self._changing:
            if host not in self._systems:
                live = self.fabric.hosts[host]
                self._systems[host] = live.boot()
                if live.virtual:
                    live.attention.append(lambda: self._attend(host))
            return self._systems[host]

    def _attend(self, host: str) -> None:
        """See to the host's slots, when whoever acts on it now has done."""
        self._attending.submit(self._service, host)

    def _service(self, host: str) -> None:
        with self._locks[host]:
            try:
                self.service(host)
            except Exception:
                log.exception("%s: its slots cannot be seen to; a bug of SoftCXL", host)

    def service(self, host: str) -> None:
        """Have the host's operating system see to slots of its virtual switches. Whoever calls has the host to
        himself."""
        if self.fabric.hosts[host].virtual:
            for event in self._systems[host].service_slots():
                log.info("%s: %s", host, event)

    def open_doors(self, host: str) -> dict[str, Door]:
        """The vfio-user doors of a host's devices, by device, opened where they are not open yet.

        Raises `BuildError` for a host that has been booted in this process, or where a socket cannot be made.
        """
        if self._folder is None:
            raise BuildError(f"{self.name}: doors are opened by a server, which stays (softcxl serve)")
        with self._changing:
            if host not in self._doors:
                with ExitStack() as stack:
                    stack.enter_context(self.fabric.doors(host, self._folder))
                    self.visitors[host] = stack.enter_context(Visitor(self.fabric, host, self._folder))
                    stack.callback(self.visitors.pop, host)
                    if endpoints(self.fabric):
                        line = serial_lines(self.fabric, self._folder / f"{host}-mctp.sock")
                        self._lines[host] = stack.enter_context(line)
                    self._doors[host] = stack.pop_all()
            live = self.fabric.hosts[host]
            own = {name: self.fabric.open_doors[name] for name in live.functions}
            return own | self.visitors[host].doors

    def line(self, host: str) -> Path | None:
        """Where serial ports of a host's guest connect, to reach MCTP endpoints. None where there is none to reach."""
        return self._lines.get(host)

    def has_doors(self, host: str) -> bool:
        """Whether the doors of a host's devices are open."""
        return host in self._doors

    def close_doors(self, host: str) -> None:
        """Close the doors of a host's devices, whoever is there."""
        with self._changing, self._doors.pop(host, ExitStack()):
            pass

    def close(self) -> None:
        """Close all doors, and see to no slots any more."""
        for host in list(self._doors):
            self.close_doors(host)
        for live in self.fabric.hosts.values():
            live.attention.clear()
        self._attending.shutdown()


def _files(medium: Medium) -> dict[str, Any]:
    """The file that a window's memory is mapped from; of the pool's memory the pieces."""
    if not isinstance(medium, Assembled):
        return {"file": str(medium.path or f"/proc/{os.getpid()}/fd/{medium.fd}")}
    pieces = [
        {
            "offset": one.offset,
            "size": one.size,
            "file": f"/proc/{os.getpid()}/fd/{one.fd}",
            "start": one.start,
        }
        for one in medium.pieces
    ]
    return {"file": None, "pieces": pieces}


def traffic(door: Door) -> dict[str, int]:
    """What has gone through a door, for people: accesses that took a message, and interrupts."""
    counts = door.traffic
    return {"reads": counts.reads, "writes": counts.writes, "interrupts": counts.interrupts}


class Call:
    """One verb at work on one host: what it acts on, and where what it says goes."""

    def __init__(
        self,
        hosts: Hosts,
        host: str,
        out: Callable[[str | bytes], None],
        err: Callable[[str], None],
        caller: Caller | None = None,
    ) -> None:
        self.hosts = hosts
        self.host = host
        self.caller = caller
        self.out = out
        """Takes text, or bytes of an attribute that is none, as they are to be on stdout."""
        self._err = err

    @cached_property
    def system(self) -> System:
        """The host's operating system. What it could not use is complained of, every time."""
        system = self.hosts.system(self.host)
        self.hosts.service(self.host)  # what was bound before is there by now
        for problem in system.problems:
            self.complain(f"{self.host}: {problem}")
        return system

    def say(self, line: object) -> None:
        """A line on stdout."""
        self.out(f"{line}\n")

    def complain(self, sentence: str) -> None:
        """A line on stderr."""
        self._err(f"softcxl: {sentence}\n")

    def doors(self, *, begins: bool = False) -> dict[str, Any]:
        """The host's doors, opened, and what else a client on this machine needs for a guest: the files behind the
        windows, and where firmware's regions are. The machine that `begins` with them has orders of what changes from
        now on; whoever only looks takes none from one that is on its way."""
        opened = not self.hosts.has_doors(self.host)
        doors = self.hosts.open_doors(self.host)
        live, line = self.hosts.fabric.hosts[self.host], self.hosts.line(self.host)
        visitor = self.hosts.visitors[self.host]
        return {
            "host": self.host,
            "opened": opened,
            "devices": {
                name: {
                    "socket": str(door.path),
                    "connected": door.connected,
                    "traffic": traffic(door),
                }
                for name, door in doors.items()
            },
            "virtual": visitor.begin() if begins else visitor.bound,
            "serial": str(line) if line else None,
            "windows": [
                {
                    "window": one.name,
                    "base": one.base,
                    "size": one.window.size,
                    **_files(one.medium),
                }
                for one in live.memory.windows
            ],
            "regions": [
                {"base": one.hpa, "size": one.size, "granularity": one.granularity} for one in live.regions
            ],
        }
