"""A PCI-PCI bridge: what root ports and switches' ports have in common.

Requests are routed by the registers as they stand: bus numbers, memory windows, Memory Space Enable. What a write
to them changes is seen by the next request.
"""

from __future__ import annotations

from typing import ClassVar

from softcxl.pci.aer import Kind, Message
from softcxl.pci.bus import LogicalBus
from softcxl.pci.function import Function
from softcxl.spec.pci.bridge import CLASS_PCI_BRIDGE, WINDOW_UNIT, PortExpress, Type1Header
from softcxl.spec.pci.express import PortType
from softcxl.spec.pci.extended import AdvancedErrorReporting
from softcxl.spec.pci.header import CommonHeader
from softcxl.wire import Reset, on_write

_BRIDGE_LAYOUT = 1


class Bridge(Function):
    """A bridge of the kind `port_type`, with the bus `below` it. `port_number` stands in its link capabilities.

    Subclasses add capabilities in their `__init__`, and end it with `finish`.
    """

    header_block: ClassVar[type[CommonHeader]] = Type1Header
    express_block = PortExpress
    aer_block: ClassVar[type[AdvancedErrorReporting]] = AdvancedErrorReporting
    bars = (0,)
    header: Type1Header
    express: PortExpress

    def __init__(self, *, vendor_id: int, device_id: int, port_type: PortType, port_number: int = 0) -> None:
        self._below = LogicalBus(self)
        self._buses: tuple[int, int] | None = None
        self._windows: tuple[tuple[int, int], ...] | None = None
        super().__init__(vendor_id=vendor_id, device_id=device_id, class_code=CLASS_PCI_BRIDGE)
        self.header.header_type.assign(_BRIDGE_LAYOUT)
        self.express.capabilities.port_type = port_type
        self.express.link_capabilities.port_number = port_number
        self.aer = self.add_extended(self.aer_block)

    @property
    def below(self) -> LogicalBus:
        """The secondary bus."""
        return self._below

    @property
    def port_number(self) -> int:
        """The port's number within its component, by which decoders name it."""
        return self.express.link_capabilities.port_number

    # -- routing -------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Requests pass to the bus below: it is not held in reset."""
        return not self.held_in_reset

    @property
    def held_in_reset(self) -> bool:
        """Secondary Bus Reset is set, and has effect."""
        return self.header.bridge_control.secondary_bus_reset and not self.reset_masked

    @property
    def reset_masked(self) -> bool:
        """Whether Secondary Bus Reset is without effect."""
        return False

    @property
    def secondary(self) -> int:
        """The number of the bus below."""
        return self._bus_numbers()[0]

    def forwarded_buses(self) -> tuple[int, int] | None:
        return self._bus_numbers() if self.open else None

    def forwarded_addresses(self) -> tuple[tuple[int, int], ...]:
        return self.windows() if self.open else ()

    def _bus_numbers(self) -> tuple[int, int]:
        if self._buses is None:
            header = self.header
            self._buses = header.secondary_bus.value, header.subordinate_bus.value
        return self._buses

    def windows(self) -> tuple[tuple[int, int], ...]:
        """The address ranges forwarded down, as (first, one past the last): none without Memory Space Enable."""
        if self._windows is None:
            header = self.header
            ranges = (
                (int(header.memory_base), int(header.memory_limit), 0, 0),
                (
                    int(header.prefetchable_base),
                    int(header.prefetchable_limit),
                    int(header.prefetchable_base_upper),
                    int(header.prefetchable_limit_upper),
                ),
            )
            bounds = (
                (
                    base_high << 32 | (base & 0xFFF0) << 16,
                    (limit_high << 32 | (limit & 0xFFF0) << 16) + WINDOW_UNIT,
                )
                for base, limit, base_high, limit_high in ranges
            )
            enabled = header.command.memory_space_enable
            self._windows = tuple(one for one in bounds if one[0] < one[1]) if enabled else ()
        return self._windows

    def rerouted(self) -> None:
        self._buses = self._windows = None
        super().rerouted()

    def reclaimed(self) -> None:
        self._windows = None
        super().reclaimed()

    @on_write(Type1Header.secondary_bus)
    @on_write(Type1Header.subordinate_bus)
    def _renumbered(self, old: int, new: int) -> None:
        self.rerouted()

    @on_write(Type1Header.memory_base)
    @on_write(Type1Header.memory_limit)
    @on_write(Type1Header.prefetchable_base)
    @on_write(Type1Header.prefetchable_limit)
    @on_write(Type1Header.prefetchable_base_upper)
    @on_write(Type1Header.prefetchable_limit_upper)
    def _moved(self, old: int, new: int) -> None:
        self.reclaimed()

    # -- reset ---------------------------------------------------------------------------------------------------

    @on_write(Type1Header.bridge_control.secondary_bus_reset)
    def _secondary_bus_reset(self, old: int, new: int) -> None:
        if old == new or self.reset_masked:
            return
        self.rerouted()
        if new:
            self.reset_below(Reset.HOT)

    def reset_below(self, kind: Reset) -> None:
        """Reset everything on the bus below, and on buses below that."""
        for function in list(self.below):
            function.reset(kind)

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        if not kind.of_function:
            self.reset_below(kind)

    # -- errors --------------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """An error message has come from below: forward it where that is enabled (PCIe 6.0 §6.2.6)."""
        with self.lock:
            if message.kind is not Kind.CORRECTABLE:
                self.header.secondary_status.received_system_error = True
            if not self.header.bridge_control.serr_enable:
                return
        self.forward(message)

    def forward(self, message: Message) -> None:
        """Pass a message from below on. One of uncorrectable errors needs an enable of this port's, too."""
        control = self.express.device_control
        enabled = {
            Kind.CORRECTABLE: True,
            Kind.NON_FATAL: self.header.command.serr_enable or control.non_fatal_error_reporting,
            Kind.FATAL: self.header.command.serr_enable or control.fatal_error_reporting,
        }
        if enabled[message.kind] and self.seat is not None:
            self.seat.bus.message(message)
