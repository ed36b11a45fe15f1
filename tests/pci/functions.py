"""Functions to try things on."""

from __future__ import annotations

from softcxl.pci.function import Function
from softcxl.wire import RegisterFile


class Plain(Function):
    """A function with a BAR of 64 KiB of plain memory at BAR 0, and nothing else of its own."""

    def __init__(self, interrupts: str = "msi") -> None:
        super().__init__(
            vendor_id=0x1234, device_id=0x5678, class_code=0x0B4000, revision=3, interrupts=interrupts
        )
        memory = RegisterFile(0x10000)
        memory.ram(0, 0x10000)
        self.add_bar(0, memory)
        self.finish()
