"""A CXL switch: an upstream port with HDM decoders, and downstream ports. Switches may hang below switches."""

from __future__ import annotations

from softcxl.pci.bridge import Bridge
from softcxl.pci.doe import DoeMailbox
from softcxl.spec.cxl.cdat import DATA_OBJECT_TYPE_CDAT
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from softcxl.spec.pci.express import PortType
from softcxl.spec.pci.extended import DeviceSerialNumber
from softcxl.switch.cdat import SwitchPerformance, switch_cdat
from softcxl.switch.decoder import PortDecoders, Route
from softcxl.switch.port import UPSTREAM_PORT_ID, CxlDownstreamPort, CxlLink, CxlRegisters
from softcxl.wire import Reset

MAX_PORTS = 32
"""Downstream ports of a switch here: one device number each on its internal bus."""


class UpstreamPort(Bridge):
    """The upstream port of the switch `name` with `ports` downstream ports, numbered from 0 on its internal bus.

    It has `decoders` HDM decoders, its component registers in BAR 0, and a DOE that tells the switch's CDAT.
    """

    def __init__(
        self,
        name: str,
        ports: int,
        *,
        decoders: int = 8,
        serial: int = 0,
        performance: SwitchPerformance | None = None,
    ) -> None:
        if not 1 <= ports <= MAX_PORTS:
            raise ValueError(f"{name}: {ports} downstream ports; a switch has 1 to {MAX_PORTS}")
        self.name = name
        super().__init__(vendor_id=VENDOR_CXL, device_id=UPSTREAM_PORT_ID, port_type=PortType.UPSTREAM_PORT)
        link = self.express.link_capabilities
        link.surprise_down_error_reporting = link.data_link_layer_active_reporting = False
        self.add_extended(DeviceSerialNumber).serial_number.value = serial
        self.cxl = CxlRegisters(self, downstream=False)
        self.cxl.show_link(True)
        self.decoders = PortDecoders(self.cxl.component, decoders, range(ports), self.lock, self.rerouted)
        self.cdat = switch_cdat(range(ports), performance)
        self.doe = DoeMailbox(self, {(VENDOR_CXL, DATA_OBJECT_TYPE_CDAT): self.cdat.exchange})
        self.finish()
        self.ports: dict[int, CxlLink] = {}
        for number in range(ports):
            port = self.ports[number] = self.make_port(number)
            self.below.plug(port, number)

    def make_port(self, number: int) -> CxlLink:
        """The downstream port of that number, as it is made once."""
        return CxlDownstreamPort(f"{self.name} port {number}", port_number=number, slot=number + 1)

    @property
    def flex_bus(self) -> object:
        """The Flex Bus DVSEC, by which the port above knows that the link can run CXL."""
        return self.cxl.flex_bus

    @property
    def routes(self) -> tuple[Route, ...]:
        """Where addresses go, as the committed decoders say."""
        return self.decoders.routes

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        self.cxl.component.file.reset(kind)
        self.decoders.reset(kind)
