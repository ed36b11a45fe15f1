"""A CXL host bridge: root ports on a root bus, and component registers at an address that ACPI tells (CHBS)."""

from __future__ import annotations

import threading

from softcxl.device.component import ComponentRegisters
from softcxl.memory.interleave import ADDRESS_LIMIT
from softcxl.pci.bus import LogicalBus
from softcxl.spec.cxl.component import COMPONENT_BLOCK_SIZE, RAS_VERSION, ComponentCapabilityId, Ras
from softcxl.switch.decoder import PortDecoders, Route
from softcxl.switch.port import CxlLink, CxlRootPort
from softcxl.wire import RegisterFile, Reset

MAX_PORTS = 32
"""Root ports of a host bridge: one device number each on its root bus."""


_ONLY = (
    Route(-1, 0, ADDRESS_LIMIT, 256, 8, 0, (0,)),
)  # of a bridge without decoders: all go to its one port


class HostBridge:
    """The host bridge `name`, of the ACPI _UID `uid`, with `ports` root ports, numbered from 0.

    It has `decoders` HDM decoders; a bridge with one port may have none, and passes every address on to it.
    `registers` is its component register block. Raises `ValueError` for what cannot be.
    """

    def __init__(self, name: str, ports: int, *, uid: int = 0, decoders: int = 8) -> None:
        if not 1 <= ports <= MAX_PORTS:
            raise ValueError(f"{name}: {ports} root ports; a host bridge has 1 to {MAX_PORTS}")
        if not decoders and ports > 1:
            raise ValueError(f"{name}: without HDM decoders a host bridge has one root port, not {ports}")
        self.name, self.uid = name, uid
        self.lock = threading.RLock()
        self.bus = LogicalBus()
        self.registers = RegisterFile(COMPONENT_BLOCK_SIZE)
        self.component = ComponentRegisters(self.registers)
        self.ras = self.component.add(ComponentCapabilityId.RAS, RAS_VERSION, Ras)
        self.decoders = (
            PortDecoders(self.component, decoders, range(ports), self.lock, self.bus.changed)
            if decoders
            else None
        )
        self.registers.seal()
        self.ports: dict[int, CxlLink] = {}
        for number in range(ports):
            port = self.ports[number] = CxlRootPort(
                f"{name} port {number}", port_number=number, slot=number + 1
            )
            self.bus.plug(port, number)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Where addresses go, as the committed decoders say."""
        return _ONLY if self.decoders is None else self.decoders.routes

    def reset(self, kind: Reset) -> None:
        """Reset the bridge, its root ports and all below them."""
        for port in self.ports.values():
            port.reset(kind)
        with self.lock:
            self.registers.reset(kind)
            if self.decoders is not None:
                self.decoders.reset()
