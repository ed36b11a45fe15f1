"""A CXL endpoint: the function, DVSECs and component registers that Type 1, 2 and 3 devices have alike."""

from __future__ import annotations

from collections.abc import Callable

from softcxl.device.component import ComponentRegisters
from softcxl.device.decoder import HdmDecoders
from softcxl.device.ras import ProtocolErrors
from softcxl.pci.function import Function
from softcxl.pci.region import SharedRegisters
from softcxl.spec.cxl.component import COMPONENT_BLOCK_SIZE
from softcxl.spec.cxl.dvsec import (
    DeviceDvsec,
    DeviceGpfDvsec,
    MediaType,
    MemoryClass,
    RegisterBlockId,
    RegisterLocatorDvsec,
    ResetTimeout,
)
from softcxl.spec.cxl.port import FlexBusPortDvsec
from softcxl.spec.pci.extended import AdvancedErrorReporting, DeviceSerialNumber
from softcxl.wire import Block, Register, RegisterFile, Reset, on_write

COMPONENT_BAR, DEVICE_BAR = 0, 2


class Endpoint(Function):
    """A CXL device's function 0. `memory` is its HDM in bytes (0: none), decoded by `decoders` HDM decoders, and
    `dynamic` how many bytes of device addresses for dynamic capacity follow it. `component_size` is that of the BAR
    which begins with the component registers, in bytes: more than their own where other blocks follow.

    A function-level reset leaves CXL.cache and CXL.mem alone, and with them the CXL DVSECs and the component
    registers (CXL 3.1 §9.5). A CXL Reset (§9.7) is one that ends CXL.cache and CXL.mem, too: what is locked until
    the next conventional reset, the DVSEC and decoders, it leaves as it is. It is over when the write returns;
    with `fail_cxl_reset` set it ends with CXL Reset Error, and clears no memory.

    While a device is `viral` (§12.4) its memory is not served, until a reset.
    """

    def __init__(
        self,
        *,
        vendor_id: int,
        device_id: int,
        class_code: int,
        serial: int,
        memory: int,
        decoders: int,
        dynamic: int = 0,
        cache: bool = False,
        interrupts: str = "msi",
        component_size: int = COMPONENT_BLOCK_SIZE,
    ) -> None:
        super().__init__(
            vendor_id=vendor_id, device_id=device_id, class_code=class_code, interrupts=interrupts
        )
        self.serial = serial
        self.viral = False
        self.fail_cxl_reset = False
        self.tell_viral: Callable[[], None] = lambda: (
            None
        )  # whoever is above, that the device has become viral
        self.aer = self.add_extended(AdvancedErrorReporting)
        self.add_extended(DeviceSerialNumber).serial_number.value = serial
        self.dvsec = self.add_extended(DeviceDvsec)
        self.flex_bus = self.add_extended(FlexBusPortDvsec)
        self.gpf = self.add_extended(DeviceGpfDvsec)
        self.locator = self.add_extended(RegisterLocatorDvsec)
        self._blocks_located = 0
        self._describe(memory, dynamic, cache)

        file = RegisterFile(component_size)
        self.component = ComponentRegisters(file)
        self.ras = ProtocolErrors(self, self.component)
        self.parts.append(self.ras)
        total = memory + dynamic
        self._decoders = HdmDecoders(self.component, decoders, total, self.lock) if total else None
        self.add_bar(COMPONENT_BAR, file)
        self.locate(RegisterBlockId.COMPONENT, COMPONENT_BAR)

    @property
    def decoders(self) -> HdmDecoders | None:
        """The HDM decoders, of a device with memory."""
        return self._decoders

    def locate(self, block_id: RegisterBlockId, bar: int, offset: int = 0) -> None:
        """Name a register block in the Register Locator."""
        self._blocks_located += 1
        low = getattr(self.locator, f"block{self._blocks_located}_low")
        low.bar, low.block_id, low.offset_low = bar, block_id, offset >> 16
        self.locator.header1.length = 0x0C + 8 * self._blocks_located

    def add_device_block(self, file: SharedRegisters, mappable: tuple[int, int] | None) -> None:
        """Map the device register block."""
        self.add_bar(DEVICE_BAR, file, [mappable] if mappable else [])
        self.locate(RegisterBlockId.DEVICE, DEVICE_BAR)

    @property
    def memory_enabled(self) -> bool:
        """The device answers CXL.mem requests."""
        return self.dvsec.control.mem_enable

    def _describe(self, memory: int, dynamic: int, cache: bool) -> None:
        dvsec = self.dvsec
        capable = memory + dynamic > 0
        dvsec.capability.mem_capable = capable
        dvsec.capability.cache_capable = cache
        dvsec.capability.hdm_count = 1 if capable else 0
        dvsec.capability.viral_capable = dvsec.capability.reset_capable = True
        dvsec.capability.reset_timeout = ResetTimeout.MS_10
        dvsec.capability.reset_mem_clear_capable = capable
        if capable:  # the range is the static capacity's, and may have no size
            dvsec.range1_size_high.memory_size_high = memory >> 32
            low = dvsec.range1_size_low
            low.memory_size_low = memory >> 28 & 0xF
            low.memory_info_valid = low.memory_active = True
            low.media_type, low.memory_class = MediaType.CDAT, MemoryClass.CDAT
        status = self.flex_bus.status
        capability = self.flex_bus.capability
        capability.io_capable = capability.mem_capable = True
        capability.cache_capable = cache
        status.io_enabled = status.mem_enabled = True
        status.cache_enabled = cache

    # -- viral -----------------------------------------------------------------------------------------------

    def enter_viral(self, *, told: bool = False) -> bool:
        """Become viral, as after an error that must not spread, and tell whoever is above, unless they have `told`.
        Returns whether it is: not while Viral_Enable is clear. Safe from any thread."""
        with self.lock:
            if self.dvsec.control.viral_enable:
                self.viral = self.dvsec.status.viral = True
            viral = self.viral
        if viral and not told:
            self.tell_viral()  # without the lock: the way up takes the machine's first, and then others' of this kind
        return viral

    # -- behaviour -----------------------------------------------------------------------------------------------

    @on_write(DeviceDvsec.lock.config_lock)
    def _lock_dvsec(self, old: int, new: int) -> None:
        if new:
            self.config.lock(self.dvsec)

    @on_write(DeviceDvsec.control2)
    def _initiate(self, old: int, new: int) -> None:
        """Both requests read as zero. The device has no cache to write back."""
        control, status = self.dvsec.control2, self.dvsec.status2
        asked, clear = control.initiate_reset, control.reset_mem_clear_enable
        control.initiate_cache_writeback = control.initiate_reset = False
        if asked:
            self.on_reset(Reset.CXL)
            if clear and not self.fail_cxl_reset:
                self.clear_volatile()
            status.reset_complete, status.reset_error = True, self.fail_cxl_reset

    def clear_volatile(self) -> None:
        """Forget what volatile memory holds. Devices that have any do."""

    def unreached(self, kind: Reset) -> list[Block | Register]:
        found = super().unreached(kind)
        if kind.of_function:
            found += [self.flex_bus, self.gpf, self.locator]
        if kind is Reset.FLR or (kind is Reset.CXL and self.dvsec.lock.config_lock):
            found.append(self.dvsec)
        return found

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(kind)
        if kind is Reset.FLR:
            return
        self.viral = False
        decoders = self._decoders
        self.component.file.reset(kind, decoders.unreached(kind) if decoders is not None else ())
        if decoders is not None:
            decoders.reset(kind)
