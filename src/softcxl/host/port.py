"""Ports: the root of CXL, host bridges, switches, endpoints; and the downstream ports that lead from one to the next.

Names and numbers are those that Linux gives (drivers/cxl/core/port.c): the root is number 0, host bridges follow in
the order of ACPI's namespace, then whatever each memory device brings with it, from the top down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.enumerate import Node
from softcxl.host.registers import HdmRegisters

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev


@dataclass(eq=False, slots=True)
class Dport:
    """A way down: a host bridge of the root (`id` is its _UID), or a root or downstream port (its port number)."""

    id: int
    name: str
    alias: str | None = None
    node: Node | None = None

    def __repr__(self) -> str:
        return f"<dport {self.name}>"


@dataclass(eq=False, slots=True)
class Root:
    """The root of CXL: what ACPI describes."""

    provider: str = "ACPI.CXL"
    dports: dict[int, Dport] = field(default_factory=dict)
    decoders: list[RootDecoder] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    number: int = 0
    depth: int = 0
    name: str = "root0"


@dataclass(eq=False, slots=True)
class Port:
    """A host bridge, or a switch by its upstream port. `host` is the name of the device that it is a port of."""

    number: int
    host: str
    parent: Root | Port
    parent_dport: Dport
    hdm: HdmRegisters | None
    dports: dict[int, Dport] = field(default_factory=dict)
    decoders: list[PortDecoder] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"port{self.number}"

    @property
    def depth(self) -> int:
        return self.parent.depth + 1

    @property
    def committed(self) -> int:
        """How many of its decoders are committed, counted from the first without a gap."""
        return next((at for at, one in enumerate(self.decoders) if not one.committed), len(self.decoders))

    def walk(self) -> Iterator[Port]:
        """This port and those below it."""
        yield self
        for one in self.ports:
            yield from one.walk()

    def dport_towards(self, endpoint: Endpoint) -> Dport:
        """Which of its downstream ports leads to an endpoint below it."""
        below: Port | Endpoint = endpoint
        while below.parent is not self:
            assert isinstance(below.parent, Port)
            below = below.parent
        return below.parent_dport

    def __repr__(self) -> str:
        return f"<{self.name} of {self.host}>"


@dataclass(eq=False, slots=True)
class Endpoint:
    """The port of a memory device, with its decoders."""

    number: int
    memdev: Memdev
    parent: Port
    parent_dport: Dport
    hdm: HdmRegisters
    decoders: list[EndpointDecoder] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"endpoint{self.number}"

    @property
    def depth(self) -> int:
        return self.parent.depth + 1

    @property
    def committed(self) -> int:
        """How many of its decoders are committed, counted from the first without a gap."""
        return next((at for at, one in enumerate(self.decoders) if not one.committed), len(self.decoders))

    @property
    def ancestors(self) -> list[Port]:
        """The ports above it, from its own up to the host bridge's."""
        found = [self.parent]
        while isinstance(found[-1].parent, Port):
            found.append(found[-1].parent)
        return found

    @property
    def bridge(self) -> Dport:
        """The host bridge above it, as a downstream port of the root."""
        return self.ancestors[-1].parent_dport

    def __repr__(self) -> str:
        return f"<{self.name} of {self.memdev.name}>"
