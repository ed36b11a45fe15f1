"""What a guest is to be: processors, memory, CXL bridges and ports, and windows of shared memory.

A plan holds no live object. Device sockets are paths somebody else listens on; a window's bytes are a file somebody
else made, of the window's size, that QEMU maps shared. Every name becomes a QEMU id and is unique in the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from softcxl.fabric.layout import device_memory_base
from softcxl.lab.errors import PlanError
from softcxl.spec.acpi.cedt import InterleaveArithmetic

GiB = 1 << 30
MiB = 1 << 20
WINDOW_UNIT = 256 * MiB
"""A CFMWS's base and size are multiples of this (CXL 3.1 §9.18.1.3)."""

ANY_MEMORY = 0b1110
"""`WindowRestrictions` for host-only coherent memory, volatile and persistent."""

MOST_BRIDGES = 16
"""QEMU sets 1 MiB aside for bridges' registers, 64 KiB for each."""

FIRST_BUS = 12
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True)
class Endpoint:
    """A device behind a vfio-user socket; `functions` are the sockets of those that it has beside function 0, in the
    order of their numbers."""

    name: str
    socket: Path
    functions: tuple[Path, ...] = ()


@dataclass(frozen=True)
class DownstreamPort:
    """A switch's port; empty until something is plugged in."""

    name: str
    below: Endpoint | None = None


@dataclass(frozen=True)
class Switch:
    """One of QEMU's CXL switches: an upstream port and its downstream ports, numbered in this order."""

    name: str
    ports: tuple[DownstreamPort, ...]


@dataclass(frozen=True)
class RootPort:
    """A root port; empty until something is plugged in."""

    name: str
    below: Endpoint | Switch | None = None


@dataclass(frozen=True)
class Bridge:
    """A CXL host bridge. `bus` is its PCI bus number and its ACPI UID; ports are numbered in this order."""

    name: str
    bus: int
    ports: tuple[RootPort, ...]


@dataclass(frozen=True)
class Piece:
    """Part of a window's bytes: `size` from the window's byte `offset` on are those of `backing` from byte `start` on.
    All are multiples of 2 MiB, as QEMU places memory."""

    offset: int
    size: int
    backing: Path | int
    start: int = 0


@dataclass(frozen=True)
class Window:
    """A fixed memory window: `size` bytes at guest physical address `base`, interleaved over `targets`.

    `backing` is a path, or a file descriptor of this process, of a file of `size` bytes; QEMU shares it. Or it is
    pieces, and what is between them is nobody's.
    `targets` are bridge buses in interleave order; `granularity` in bytes; `restrictions` the bits of a
    `WindowRestrictions`. `xor_maps` are the CXIMS maps of an XOR window, in order.
    """

    name: str
    base: int
    size: int
    backing: Path | int | tuple[Piece, ...]
    targets: tuple[int, ...]
    granularity: int = 256
    arithmetic: InterleaveArithmetic = InterleaveArithmetic.MODULO
    restrictions: int = ANY_MEMORY
    qtg: int = 0
    xor_maps: tuple[int, ...] = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The files behind it, at least one."""
        return self.backing if isinstance(self.backing, tuple) else (Piece(0, self.size, self.backing),)


@dataclass(frozen=True)
class BridgeDecoder:
    """A host-bridge HDM decoder that firmware has programmed before the kernel starts.

    `ports` are the interleaved root ports' numbers, in position order; `granularity` in bytes.
    """

    bridge: int
    base: int
    size: int
    granularity: int
    ports: tuple[int, ...]
    lock: bool = False


@dataclass(frozen=True)
class GuestPlan:
    """One virtual machine. `memory` in bytes, a multiple of 1 MiB."""

    name: str = "guest"
    memory: int = GiB
    cpus: int = 1
    bridges: tuple[Bridge, ...] = ()
    windows: tuple[Window, ...] = ()
    decoders: tuple[BridgeDecoder, ...] = ()

    @property
    def slots(self) -> int:
        """How many DIMMs it has: one for each file of a window."""
        return sum(len(window.pieces) for window in self.windows)

    @property
    def switched(self) -> bool:
        """There are switches in it."""
        return any(isinstance(port.below, Switch) for bridge in self.bridges for port in bridge.ports)

    def check(self) -> None:
        """Raise PlanError for the first thing in the plan that cannot be."""
        if self.memory < 256 * MiB or self.memory % MiB:
            raise PlanError(
                f"{self.name}: memory is {self.memory} bytes; 256 MiB or more in whole MiB are needed."
            )
        if self.cpus < 1:
            raise PlanError(f"{self.name}: {self.cpus} processors; at least one is needed.")
        seen: set[str] = set()
        for name in self._names():
            if not _NAME.match(name):
                raise PlanError(
                    f"{self.name}: the name {name!r} is not a letter followed by letters, digits, '.', '_', '-'."
                )
            if name in seen:
                raise PlanError(f"{self.name}: the name {name!r} is used twice.")
            seen.add(name)
        self._check_buses()
        self._check_windows()

    def _names(self) -> Iterator[str]:
        yield from (window.name for window in self.windows)
        for bridge in self.bridges:
            yield bridge.name
            for port in bridge.ports:
                yield port.name
                match port.below:
                    case Endpoint(name=name):
                        yield name
                    case Switch(name=name, ports=ports):
                        yield name
                        for downstream in ports:
                            yield downstream.name
                            if downstream.below is not None:
                                yield downstream.below.name

    def _check_buses(self) -> None:
        if len(self.bridges) > MOST_BRIDGES:
            raise PlanError(
                f"{self.name}: {len(self.bridges)} host bridges; QEMU has room for {MOST_BRIDGES}."
            )
        taken: dict[int, str] = {}
        for bridge in self.bridges:
            if not bridge.ports:
                raise PlanError(f"{self.name}: the bridge {bridge.name} has no ports.")
            last = bridge.bus + buses(bridge.ports) - 1
            if bridge.bus < 1 or last > 255:
                raise PlanError(
                    f"{self.name}: the bridge {bridge.name} needs PCI buses {bridge.bus} to {last}; there are 1 to 255."
                )
            for bus in range(bridge.bus, last + 1):
                if bus in taken:
                    raise PlanError(
                        f"{self.name}: the bridges {taken[bus]} and {bridge.name} both need PCI bus {bus}."
                    )
                taken[bus] = bridge.name

    def _check_windows(self) -> None:
        known = {bridge.bus for bridge in self.bridges}
        below = device_memory_base(self.memory)
        for window in sorted(self.windows, key=lambda window: window.base):
            if window.size <= 0 or window.size % WINDOW_UNIT or window.base % WINDOW_UNIT:
                raise PlanError(
                    f"{self.name}: the window {window.name} is {window.size:#x} bytes at {window.base:#x};"
                    " both must be multiples of 256 MiB."
                )
            if window.base < below:
                raise PlanError(
                    f"{self.name}: the window {window.name} begins at {window.base:#x},"
                    f" and only from {below:#x} on there is room."
                )
            below = window.base + window.size
            strangers = [target for target in window.targets if target not in known]
            if strangers or not window.targets:
                raise PlanError(
                    f"{self.name}: the window {window.name} has the targets {list(window.targets)};"
                    f" bridges are {sorted(known)}."
                )


def buses(ports: Sequence[RootPort]) -> int:
    """How many PCI bus numbers a bridge with these ports takes, its own included."""
    return 1 + sum(2 + len(port.below.ports) if isinstance(port.below, Switch) else 1 for port in ports)


def bus_numbers(bridges: Sequence[Sequence[RootPort]]) -> list[int]:
    """A bus number for each bridge, given its ports, so that none overlaps the next. Raises PlanError past bus 255."""
    numbers: list[int] = []
    bus = FIRST_BUS
    for ports in bridges:
        numbers.append(bus)
        bus += buses(ports)
    if bus > 256:
        raise PlanError(
            f"The bridges and switches need {bus - FIRST_BUS} PCI bus numbers; there are {256 - FIRST_BUS}."
        )
    return numbers
