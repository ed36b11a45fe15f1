"""Downstream ports: a link, the slot at its end, containment of errors; and root ports, where messages end.

A slot has an attention button, a power controller and indicators, and devices may be pulled without notice. Every
command to it completes at once.
"""

from __future__ import annotations

from typing import ClassVar

from softcxl.pci.aer import Kind, Message
from softcxl.pci.bridge import Bridge
from softcxl.pci.function import Function
from softcxl.spec.pci.bridge import (
    DownstreamPortContainment,
    DpcReason,
    DpcReasonExtension,
    DpcTrigger,
    PortExpress,
    RootErrorReporting,
    SlotControl,
    SlotStatus,
)
from softcxl.spec.pci.express import PortType
from softcxl.spec.pci.extended import AdvancedErrorReporting
from softcxl.wire import Reset, on_write

_EVENTS = (
    (SlotStatus.attention_button_pressed.mask, SlotControl.attention_button_pressed_enable.mask),
    (SlotStatus.presence_detect_changed.mask, SlotControl.presence_detect_changed_enable.mask),
    (SlotStatus.command_completed.mask, SlotControl.command_completed_enable.mask),
    (SlotStatus.link_state_changed.mask, SlotControl.link_state_changed_enable.mask),
)


class DownstreamPort(Bridge):
    """A port with a link below it, to whatever is in its slot. `slot` is the slot's physical number."""

    def __init__(
        self,
        *,
        vendor_id: int,
        device_id: int,
        port_type: PortType = PortType.DOWNSTREAM_PORT,
        port_number: int = 0,
        slot: int = 0,
    ) -> None:
        super().__init__(
            vendor_id=vendor_id, device_id=device_id, port_type=port_type, port_number=port_number
        )
        self.express.capabilities.slot_implemented = True
        features = self.express.slot_capabilities
        features.attention_button_present = features.power_controller_present = True
        features.attention_indicator_present = features.power_indicator_present = True
        features.hot_plug_surprise = features.hot_plug_capable = True
        features.physical_slot_number = slot
        self.dpc = self.add_extended(DownstreamPortContainment)
        self._up = self._cut = False
        self.beyond: Function | None = None  # function 0 at the other end of a link that is up
        self._show_link()

    # -- the slot ------------------------------------------------------------------------------------------------

    @property
    def occupant(self) -> Function | None:
        """Function 0 of what is in the slot."""
        return self._below.functions.get(0)

    @property
    def present(self) -> bool:
        """Something is in the slot."""
        return self.occupant is not None

    def plug(self, function: Function, number: int = 0) -> None:
        """Have a function in the slot from the start: nobody is told. Raises `ValueError` where one is there."""
        with self.below.lock, self.lock:
            self.below.plug(function, 0, number)
            self.express.slot_status.presence_detect = True
            self._up = self._can_be_up()
            self._show_link()
            self.rerouted()

    def insert(self, function: Function, reset: Reset = Reset.COLD) -> None:
        """Push a device into the slot of a running machine: it starts cold, or with the `reset` that is given where
        it had power already, and the slot tells.

        Raises `ValueError` where the slot is taken, or the function is plugged in elsewhere.
        """
        with self.below.lock, self.lock:
            self.below.plug(function)
            function.reset(reset)
            self.express.slot_status.presence_detect = True
            self._event(presence_detect_changed=True)
            self._settle()

    def remove(self, reset: Reset = Reset.COLD) -> list[Function]:
        """Pull out what is in the slot, whoever uses it; returns its functions. They have no power then, or, where
        it keeps them, the `reset` that is given. Raises `ValueError` for an empty slot."""
        with self.below.lock, self.lock:
            pulled = list(self.below)
            if not pulled:
                raise ValueError("the slot is empty")
            for function in pulled:
                self.below.unplug(function)
            self.express.slot_status.presence_detect = False
            self._event(presence_detect_changed=True)
            self._settle()
        for function in pulled:
            function.reset(reset)
        return pulled

    def press(self) -> None:
        """Push the attention button: a request to software to stop, or begin, using the slot."""
        with self.below.lock, self.lock:
            self._event(attention_button_pressed=True)

    def cut(self, broken: bool = True) -> None:
        """Break the link, as a cable that is pulled or lanes that fail while the device stays powered; or mend it."""
        with self.below.lock, self.lock:
            self._cut = broken
            self._settle()

    def _event(self, **events: bool) -> None:
        status = self.express.slot_status
        for name, happened in events.items():
            setattr(status, name, happened)
        control = int(self.express.slot_control)
        told = sum(mask for mask in (getattr(SlotStatus, name).mask for name in events))
        enabled = any(told & event and control & enable for event, enable in _EVENTS)
        if enabled and self.express.slot_control.hot_plug_interrupt_enable:
            self.interrupt(0)

    @on_write(PortExpress.slot_control)
    def _command_slot(self, old: int, new: int) -> None:
        off = SlotControl.power_off.mask
        if new & off and not old & off:
            self._settle()
            self.powered_off()
        elif old & off and not new & off:
            self._settle()
        self._event(command_completed=True)

    def powered_off(self) -> None:
        """Software has turned the slot's power off: what is in it starts cold when it is turned on again."""
        self.reset_below(Reset.COLD)

    # -- the link ------------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        return self._up

    @property
    def link_up(self) -> bool:
        """The link carries requests."""
        return self._up

    @property
    def disable_masked(self) -> bool:
        """Whether Link Disable is without effect."""
        return False

    def _can_be_up(self) -> bool:
        return (
            self.present
            and not self._cut
            and not self.held_in_reset
            and not (self.express.link_control.link_disable and not self.disable_masked)
            and not self.express.slot_control.power_off
            and not self.dpc.status.triggered
        )

    def _settle(self) -> None:
        """Take the link down or up as what governs it says. What is below is reset as it goes down."""
        up = self._can_be_up()
        if up == self._up:
            return
        self._up = up
        self._show_link()
        if not up:
            self.reset_below(Reset.HOT)
        self.rerouted()
        self._event(link_state_changed=True)

    def _show_link(self) -> None:
        self.beyond = self.occupant if self._up else None
        status = self.express.link_status
        status.data_link_layer_active = self._up
        status.negotiated_link_width = self.express.link_capabilities.max_link_width if self._up else 0

    @on_write(PortExpress.link_control)
    def _control_link(self, old: int, new: int) -> None:
        control = self.express.link_control
        retrain, control.retrain_link = control.retrain_link, False
        if retrain and self._up:
            self.rerouted()  # it comes up again as it was
        self._settle()

    def _secondary_bus_reset(self, old: int, new: int) -> None:
        self._settle()

    def on_reset(self, kind: Reset) -> None:
        present = self.present
        super().on_reset(kind)
        self.express.slot_status.presence_detect = present
        self._up = self._can_be_up()
        self._show_link()
        self.rerouted()

    # -- containment ---------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """A message that triggers containment ends here (PCIe 6.0 §6.2.11)."""
        with self.lock:
            if self._contained(message.kind):
                self.header.secondary_status.received_system_error = True
                reason = DpcReason.ERR_FATAL if message.kind is Kind.FATAL else DpcReason.ERR_NONFATAL
                self._contain(reason, message.source)
                return
        super().receive(message)

    def emit(self, message: Message) -> None:
        with self.lock:
            if self._contained(message.kind):
                self._contain(DpcReason.UNMASKED_UNCORRECTABLE, 0)
        super().emit(message)

    def _contained(self, kind: Kind) -> bool:
        trigger = self.dpc.control.trigger_enable
        fatal = kind is Kind.FATAL and trigger in (DpcTrigger.FATAL, DpcTrigger.NON_FATAL_OR_FATAL)
        return fatal or (kind is Kind.NON_FATAL and trigger is DpcTrigger.NON_FATAL_OR_FATAL)

    def _contain(
        self, reason: DpcReason, source: int, extension: DpcReasonExtension = DpcReasonExtension.PIO_ERROR
    ) -> None:
        status = self.dpc.status
        if status.triggered:
            return
        status.triggered = True
        status.reason, status.reason_extension = reason, extension
        self.dpc.error_source.value = source
        self._settle()
        if self.dpc.control.interrupt_enable:
            status.interrupt_status = True
            self.interrupt(0)

    @on_write(DownstreamPortContainment.control)
    def _control_containment(self, old: int, new: int) -> None:
        control = self.dpc.control
        asked, control.software_trigger = control.software_trigger, False
        if asked and control.trigger_enable is not DpcTrigger.DISABLED:
            self._contain(DpcReason.EXTENSION, 0, DpcReasonExtension.SOFTWARE)

    @on_write(DownstreamPortContainment.status)
    def _release(self, old: int, new: int) -> None:
        self._settle()


class RootPort(DownstreamPort):
    """A root port: error messages end here, and interrupt."""

    aer_block: ClassVar[type[AdvancedErrorReporting]] = RootErrorReporting
    aer: RootErrorReporting

    def __init__(self, *, vendor_id: int, device_id: int, port_number: int = 0, slot: int = 0) -> None:
        super().__init__(
            vendor_id=vendor_id,
            device_id=device_id,
            port_type=PortType.ROOT_PORT,
            port_number=port_number,
            slot=slot,
        )

    def emit(self, message: Message) -> None:
        with self.lock:
            if self._contained(message.kind):
                self._contain(DpcReason.UNMASKED_UNCORRECTABLE, 0)
        self.forward(message)

    def forward(self, message: Message) -> None:
        """Log it for the root, and interrupt where that is enabled (PCIe 6.0 §6.2.4.1.2)."""
        with self.lock:
            status, command = self.aer.root_status, self.aer.root_command
            if message.kind is Kind.CORRECTABLE:
                if status.correctable:
                    status.multiple_correctable = True
                else:
                    status.correctable = True
                    self.aer.error_source.correctable = message.source
                enabled = command.correctable_enable
            else:
                fatal = message.kind is Kind.FATAL
                if status.uncorrectable:
                    status.multiple_uncorrectable = True
                else:
                    status.uncorrectable = True
                    status.first_uncorrectable_fatal = fatal
                    self.aer.error_source.uncorrectable = message.source
                if fatal:
                    status.fatal = True
                else:
                    status.non_fatal = True
                enabled = command.fatal_enable if fatal else command.non_fatal_enable
            if enabled:
                self.interrupt(0)
