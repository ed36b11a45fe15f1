"""A memory device of your own: another firmware revision, a vendor command, and a register that does something.

``vendor-device.yaml`` beside this file plugs it into a host: ``softcxl vm run vendor-device.yaml -- cxl list -vvv``.
"""

from __future__ import annotations

from typing import Any

from softcxl.device.cci import command
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import NO_EFFECT, Command
from softcxl.spec.command.memory import IDENTIFY_MEMORY_DEVICE, IdentifyMemoryDevice
from softcxl.wire import RW, Block, Record, Register, at, bit, on_write, u16, u32


class LedControl(Register, width=32):
    """LED Control Register."""

    locate = bit(0, RW, "the locate LED shines")


class Led(Block):
    """The LED's registers, a vendor-specific device capability."""

    control = at(0x00, LedControl)


class BlinkRequest(Record, size=2):
    """Blink input payload."""

    times: int = u16("at most 1000")


class BlinkResponse(Record, size=4):
    """Blink output payload."""

    total: int = u32("times that the LED has been lit")


BLINK = Command(0xC000, "Blink", BlinkRequest, BlinkResponse, NO_EFFECT, "vendor")


class VendorDevice(Type3):
    """A memory device with an LED."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.lit = 0
        self.led = self.device_registers.add(0x200, 0x8000, 1, Led, hooks=self)

    @command(IDENTIFY_MEMORY_DEVICE)
    def identify(self) -> IdentifyMemoryDevice:
        return self.capacity_commands.identify().replace(fw_revision="acme 2.1")

    @command(BLINK)
    def blink(self, request: BlinkRequest) -> BlinkResponse:
        self.lit += request.times
        return BlinkResponse(total=self.lit)

    @on_write(Led.control.locate)
    def _switch(self, old: int, new: int) -> None:
        self.lit += new and not old
