"""What makes a port a CXL port: its DVSECs, and component registers in BAR 0."""

from __future__ import annotations

from softcxl.device.component import ComponentRegisters
from softcxl.device.ras import ProtocolErrors
from softcxl.pci.bridge import Bridge
from softcxl.pci.port import DownstreamPort, RootPort
from softcxl.spec.cxl.component import COMPONENT_BLOCK_SIZE
from softcxl.spec.cxl.dvsec import VENDOR_CXL, RegisterBlockId, RegisterLocatorDvsec
from softcxl.spec.cxl.port import FlexBusPortDvsec, PortExtensionsDvsec, PortGpfDvsec
from softcxl.wire import RegisterFile, Reset, on_write

ROOT_PORT_ID, UPSTREAM_PORT_ID, DOWNSTREAM_PORT_ID = 0x0010, 0x0011, 0x0012
"""Device IDs of our ports, of the vendor ID of the CXL Consortium."""

_COMPONENT_BAR = 0


class CxlRegisters:
    """The CXL DVSECs and component registers of `port` (CXL 3.1 Table 8-2): all have the port extensions, Flex Bus
    and Register Locator, downstream ports the GPF DVSEC too."""

    def __init__(self, port: Bridge, *, downstream: bool) -> None:
        self.extensions = port.add_extended(PortExtensionsDvsec)
        self.gpf = port.add_extended(PortGpfDvsec) if downstream else None
        self.flex_bus = port.add_extended(FlexBusPortDvsec)
        self.flex_bus.capability.mem_capable = self.flex_bus.capability.flit_68b_vh_capable = True
        self.locator = port.add_extended(RegisterLocatorDvsec)
        self.locator.block1_low.bar = _COMPONENT_BAR
        self.locator.block1_low.block_id = RegisterBlockId.COMPONENT
        self.locator.header1.length = 0x0C + 8
        self.component = ComponentRegisters(RegisterFile(COMPONENT_BLOCK_SIZE))
        self.ras = ProtocolErrors(port, self.component)
        port.parts.append(self.ras)
        port.add_bar(_COMPONENT_BAR, self.component.file)

    def take_viral(self) -> bool:
        """Note viral, and say whether it goes on from here: where it is enabled."""
        enabled = self.extensions.control.viral_enable
        if enabled:
            self.extensions.status.viral = True
        return enabled

    def show_link(self, up: bool) -> None:
        """What the link was trained to."""
        status = self.flex_bus.status
        status.io_enabled = status.mem_enabled = status.flit_68b_vh_enabled = up


class CxlLink(DownstreamPort):
    """A downstream port whose link can run CXL. `name` is for people.

    While it does, Secondary Bus Reset and Link Disable are without effect unless unmasked in the port extensions
    (CXL 3.1 §8.1.5.2).
    """

    name: str
    cxl: CxlRegisters | None = None

    @property
    def runs_cxl(self) -> bool:
        """The link has been trained to CXL: what is below has a Flex Bus DVSEC."""
        return getattr(self.occupant, "flex_bus", None) is not None

    @property
    def reset_masked(self) -> bool:
        return self.cxl is not None and self.runs_cxl and not self.cxl.extensions.control.unmask_sbr

    @property
    def disable_masked(self) -> bool:
        return self.cxl is not None and self.runs_cxl and not self.cxl.extensions.control.unmask_link_disable

    @on_write(PortExtensionsDvsec.control)
    def _unmask(self, old: int, new: int) -> None:
        self._settle()

    def _show_link(self) -> None:
        super()._show_link()
        if self.cxl is not None:
            self.cxl.show_link(self._up and self.runs_cxl)

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        if self.cxl is not None:
            self.cxl.component.file.reset(kind)


class CxlDownstreamPort(CxlLink):
    """A downstream port of a CXL switch."""

    def __init__(self, name: str, *, port_number: int, slot: int = 0) -> None:
        self.name = name
        super().__init__(
            vendor_id=VENDOR_CXL, device_id=DOWNSTREAM_PORT_ID, port_number=port_number, slot=slot
        )
        self.cxl = CxlRegisters(self, downstream=True)
        self.finish()


class CxlRootPort(CxlLink, RootPort):
    """A root port of a CXL host bridge."""

    def __init__(self, name: str, *, port_number: int, slot: int = 0) -> None:
        self.name = name
        RootPort.__init__(
            self, vendor_id=VENDOR_CXL, device_id=ROOT_PORT_ID, port_number=port_number, slot=slot
        )
        self.cxl = CxlRegisters(self, downstream=True)
        self.finish()
