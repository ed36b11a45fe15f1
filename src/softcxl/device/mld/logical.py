"""A logical device: what a host sees of an MLD, a memory device like any other, with a configuration space, registers,
decoders, a mailbox, event logs and resets of its own."""

from __future__ import annotations

import enum
import logging
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from softcxl.device.decoder import Nowhere
from softcxl.device.mld.errors import LdInUse, LogicalDeviceError, NoSuchLd
from softcxl.device.mld.qos import LdTelemetry
from softcxl.device.type3 import Type3
from softcxl.memory.errors import MemoryFault
from softcxl.spec.command.qos import COMMANDS as SLD_QOS
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.device.mld.device import MultiLogicalDevice

log = logging.getLogger(__name__)

SERIAL_SHIFT: Final = 48
"""LD n has the device's serial number with n + 1 added without carry to its upper 16 bits."""


class OnUnbind(enum.Enum):
    """What becomes of a logical device's contents when it is unbound."""

    CLEAR = "clear"
    """As if its power had gone: volatile memory has lost its contents, persistent memory keeps them."""
    KEEP = "keep"
    """All contents stay, for whoever is next."""
    ERASE = "erase"
    """Nothing is left of it, in persistent memory and labels neither."""


class LogicalDevice(Type3):
    """Logical device `ld` of `mld`. Made by `MultiLogicalDevice` alone.

    Its power is that of the MLD: what would be a cold reset of a device in a slot of its own is a hot reset of it.
    """

    def __init__(self, mld: MultiLogicalDevice, ld: int, **options: Any) -> None:
        self.mld, self.ld = mld, ld
        self.holder: str | None = None
        """Who has it bound, for people: a vPPB of a virtual switch."""
        self._powering = False
        super().__init__(f"{mld.name}.{ld}", serial=mld.serial ^ ld + 1 << SERIAL_SHIFT, **options)
        for command in SLD_QOS:  # an MLD's are the fabric manager's
            del self.cci.handlers[command.opcode]
        self.capacity_commands.identify().qos_telemetry.assign(0)
        self.qos: LdTelemetry = LdTelemetry(mld.qos, ld, self.lock)
        self.traffic = self.qos

    def make_lock(self) -> threading.RLock:
        """One lock for all logical devices of an MLD, and for what they share."""
        return self.mld.lock

    def owns(self, media: ExitStack) -> None:
        """What it closes when it is closed."""
        self._owned.push(media)

    def _watch_traffic(self, watch: bool) -> None:
        self.qos.monitor = self.cpmu if watch else None

    # -- binding -------------------------------------------------------------------------------------------------

    @property
    def in_use(self) -> bool:
        """It is bound, or a machine has it plugged in, or a door to it is a host's: its allocation stays."""
        lent = not isinstance(self.decoders.host, Nowhere)
        return self.holder is not None or self.attached or self.seat is not None or lent

    def bind(self, holder: str) -> None:
        """It is bound to `holder` from now on. Raises `LdInUse` where it is bound already, `NoSuchLd` where a fabric
        manager has given its memory to others meanwhile, `LogicalDeviceError` where its allocation could not be kept
        and still cannot."""
        with self.lock:
            if self.mld.logical.get(self.ld) is not self:
                raise NoSuchLd(f"{self.name} is another one now, or has no memory")
            if self.holder is not None:
                raise LdInUse(f"{self.name} is bound to {self.holder}")
            try:
                self.mld.settle()
            except OSError as error:
                raise LogicalDeviceError(f"{self.name}: its allocation cannot be kept: {error}") from error
            self.holder = holder

    def unbind(self, *, used: bool = True) -> None:
        """It is bound to nobody any more: it is reset, its contents are what the MLD's `on_unbind` says, and no window
        of a host shows them; all stays as it is where nobody has `used` it since."""
        try:
            if used:
                self._let_go()
        finally:
            with self.lock:
                self.holder = None

    def _let_go(self) -> None:
        policy = self.mld.on_unbind
        with self.lock:
            try:
                if policy is OnUnbind.ERASE:
                    self.erase()
            except OSError as error:
                log.error("%s is not all erased: %s", self.name, error)
            if policy is OnUnbind.KEEP:
                self.reset(Reset.HOT)
            else:
                self.power_cycle()
        try:
            self.space.go_home()  # without the lock: what is kept takes time, and other hosts go on
        except MemoryFault as error:
            log.error("%s stays in the windows of who had it: %s", self.name, error)

    def erase(self) -> None:
        """Leave nothing of what it holds: bytes, labels, poison, extents, passphrases. Raises `OSError`, and then
        something may be left. The lock is held."""
        self.cci.reset()
        if self.mld.dynamic is not None:
            self.mld.dynamic.deprive(self.ld)
        self.media.wipe()
        self.security.forget()

    # -- resets --------------------------------------------------------------------------------------------------

    def power_cycle(self) -> None:
        """A cold reset, as when the power of the MLD goes and comes."""
        with self.lock:
            self._powering = True
            try:
                self.on_reset(Reset.COLD)
            finally:
                self._powering = False

    def on_reset(self, kind: Reset) -> None:
        super().on_reset(Reset.HOT if kind is Reset.COLD and not self._powering else kind)
