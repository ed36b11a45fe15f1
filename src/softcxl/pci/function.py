"""A PCI Express endpoint function: configuration space with its capabilities, BARs, interrupts and resets.

A function is plugged in by giving it to a door (`softcxl.transport`) or a bridge; it sees offsets, never
addresses or sockets. All accesses hold the function's one lock.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from softcxl.pci.msix import MsixTable
from softcxl.pci.region import CONFIG_REGION, MSI, MSIX, REGION_COUNT, Bar, Bus, Region, Registers, Silence
from softcxl.spec.pci.capability import Msi, Msix, PowerManagement
from softcxl.spec.pci.express import PciExpress, PortType
from softcxl.spec.pci.header import CONFIG_SPACE_SIZE, BarType, CommonHeader, Type0Header
from softcxl.wire import Block, DeclarationError, RangeError, Register, RegisterFile, Reset, on_write

if TYPE_CHECKING:
    from softcxl.pci.aer import Message
    from softcxl.pci.bus import LogicalBus, Seat

B = TypeVar("B", bound=Block)

_FIRST_CAPABILITY, _FIRST_EXTENDED = 0x40, 0x100
_MSIX_BAR = 4
_FIRST_BAR = CommonHeader.bar0.__layout__.offset
_PAIR = struct.Struct("<Q")  # of registers, of a 64-bit BAR


def unheard(message: Message) -> None:
    """Of an error message that nobody overhears."""


class Part(Protocol):
    """Something of a function that has state of its own to reset."""

    def reset(self, kind: Reset) -> None:
        """Return to what a reset of this kind leaves. The function's lock is held."""


class Function:
    """An endpoint function. `interrupts` is "msi" (one vector) or "msix" (16), the kind it signals with.

    Subclasses add capabilities, BARs and registers in their `__init__` and end it with `finish`. With MSI-X,
    BAR 4 holds the table and is taken. Those that never interrupt have another word in `vectors`. Raises `ValueError`
    for a kind of interrupt that is not there.
    """

    vectors: ClassVar = {"msi": 1, "msix": 16}
    header_block: ClassVar[type[CommonHeader]] = Type0Header
    express_block: ClassVar[type[PciExpress]] = PciExpress
    bars: ClassVar[tuple[int, ...]] = (0, 2, 4)  # where a 64-bit BAR may be

    def __init__(
        self, *, vendor_id: int, device_id: int, class_code: int, revision: int = 0, interrupts: str = "msi"
    ) -> None:
        if interrupts not in self.vectors:
            raise ValueError(f"interrupts: {interrupts!r} is neither 'msi' nor 'msix'")
        self.lock = self.make_lock()
        self.config = RegisterFile(CONFIG_SPACE_SIZE)
        self.interrupts = interrupts
        self.parts: list[Part] = []
        self._files: dict[int, RegisterFile] = {CONFIG_REGION: self.config}
        self._answers: Mapping[int, Registers] = self._files
        self._bars: dict[int, Bar] = {}
        self._bus: Bus | None = None
        self.seat: Seat | None = None
        self.overheard: Callable[[Message], None] = (
            unheard  # gets what error messages it sends, seated or not
        )
        self._claims: tuple[tuple[int, int, int], ...] | None = None
        self._capability_end, self._extended_end = _FIRST_CAPABILITY, _FIRST_EXTENDED
        self._last_capability: Block | None = None
        self._last_extended: Block | None = None
        self.header = self.config.place(0, self.header_block, hooks=self)
        self.header.vendor_id.value = vendor_id
        self.header.device_id.value = device_id
        self.header.revision_id.value = revision
        self.header.class_code.assign(class_code)
        self.power = self.add_capability(PowerManagement)
        self.express = self.add_capability(self.express_block)
        self.express.capabilities.port_type = PortType.ENDPOINT
        self.msi: Msi | None = None
        self.msix: Msix | None = None
        self.msix_table: MsixTable | None = None
        if interrupts == "msi":
            self.msi = self.add_capability(Msi)
        elif interrupts == "msix":
            self.msix = self.add_capability(Msix)
            table = self.msix_table = MsixTable(self.msix, _MSIX_BAR, self.vectors["msix"])
            self.add_bar(_MSIX_BAR, table.file)
            self.parts.append(table)

    # -- building --------------------------------------------------------------------------------------------

    def make_lock(self) -> threading.RLock:
        """The lock that accesses hold. Subclasses that are parts of one device share theirs."""
        return threading.RLock()

    def add_capability(self, block: type[B], *, size: int | None = None, hooks: object = None) -> B:
        """Append a capability to the list in the first 256 bytes; the function's own hooks are bound to it too.

        `size` (bytes) is for one that is longer than its block. Raises `DeclarationError` where it does not fit.
        """
        offset = self._capability_end
        size = size or block.__layout__.size
        if offset + size > _FIRST_EXTENDED:
            raise DeclarationError(f"{block.__name__}: {size:#x} bytes at {offset:#x} do not fit below 100h")
        placed = self._place(offset, block, hooks)
        if self._last_capability is None:
            self.header.capabilities_pointer.value = offset
        else:
            self._last_capability.header.next_pointer = offset  # type: ignore[attr-defined]
        self._last_capability = placed
        self._capability_end = offset + (size + 3 & ~3)
        return placed

    def add_extended(self, block: type[B], *, size: int | None = None, hooks: object = None) -> B:
        """Append an extended capability (from 100h on); otherwise as `add_capability`."""
        offset = self._extended_end
        size = size or block.__layout__.size
        if offset + size > CONFIG_SPACE_SIZE:
            raise DeclarationError(
                f"{block.__name__}: {size:#x} bytes at {offset:#x} do not fit configuration space"
            )
        placed = self._place(offset, block, hooks)
        if self._last_extended is not None:
            self._last_extended.header.next_offset = offset  # type: ignore[attr-defined]
        self._last_extended = placed
        self._extended_end = offset + (size + 3 & ~3)
        return placed

    def _place(self, offset: int, block: type[B], hooks: object) -> B:
        placed = self.config.place(offset, block, hooks=self)
        if hooks is not None and hooks is not self:
            self.config.listen(placed, hooks)
        return placed

    def add_bar(
        self,
        index: int,
        file: RegisterFile,
        mappable: Sequence[tuple[int, int]] = (),
        *,
        prefetchable: bool = False,
    ) -> Bar:
        """Map `file` at the 64-bit memory BAR `index` (0, 2 or 4; of a bridge 0). Its size is a power
        of two, at least 4 KiB.

        `mappable` are (offset, size) pairs, page-aligned, that a guest may map. One that is `prefetchable` may be
        placed above 4 GiB when there are bridges above. Raises `DeclarationError`.
        """
        if index not in self.bars or index in self._bars:
            allowed = ", ".join(map(str, self.bars))
            raise DeclarationError(f"BAR {index}: 64-bit BARs are {allowed}, each used once")
        if file.size < 4096 or file.size & (file.size - 1):
            raise DeclarationError(f"BAR {index}: {file.size:#x} is not a power of two of at least 4 KiB")
        bar = self._bars[index] = Bar(index, file, tuple(mappable), prefetchable)
        self._files[index] = file
        self._size_bars(0, 0)
        return bar

    def finish(self) -> None:
        """Take everything built so far for the state that resets return to."""
        for file in self._files.values():
            file.seal()

    # -- the port --------------------------------------------------------------------------------------------

    def regions(self) -> list[Region | None]:
        """Nine regions, by index: BARs 0 to 5, ROM, configuration space, VGA."""
        found: list[Region | None] = [None] * REGION_COUNT
        with self.lock:
            for index, bar in self._bars.items():
                found[index] = bar.region()
        found[CONFIG_REGION] = Region(self.config.size)
        return found

    def irqs(self) -> list[int]:
        """How many vectors of INTx, MSI, MSI-X, error and request there are."""
        count = self.vectors[self.interrupts]
        return [0, count if self.msi else 0, count if self.msix else 0, 0, 0]

    def read(self, region: int, offset: int, size: int) -> bytes:
        """Software's read: `size` bytes at `offset` of a region. Raises `RangeError` where there is nothing."""
        with self.lock:
            try:
                file = self._answers[region]
            except KeyError:
                raise RangeError(f"there is no region {region}") from None
            return file.read(offset, size)

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Software's write. Raises `RangeError` where there is nothing."""
        with self.lock:
            try:
                file = self._answers[region]
            except KeyError:
                raise RangeError(f"there is no region {region}") from None
            file.write(offset, data)

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """Reset the function; by default as the machine does it to all below a port when it resets itself."""
        with self.lock:
            self.on_reset(kind)

    @property
    def silent(self) -> bool:
        """The function does not answer."""
        return self._answers is not self._files

    def silence(self) -> None:
        """Stop answering, as one whose link or power is gone: reads find all ones, in what a guest has mapped, too."""
        with self._whole(), self.lock:
            self._answers = dict.fromkeys(self._files, Silence())
            for bar in self._bars.values():
                for offset, size in bar.mappable:
                    bar.file.poke(offset, b"\xff" * size)
            self.rerouted()

    def wake(self, kind: Reset = Reset.COLD) -> None:
        """Answer again, after a reset of that kind."""
        with self._whole(), self.lock:
            self._answers = self._files
            for bar in self._bars.values():
                for offset, size in bar.mappable:
                    bar.file.poke(offset, bytes(size))
            self.on_reset(kind)

    def _whole(self) -> AbstractContextManager[object]:
        """The lock of the machine that the function is in, which comes before its own."""
        return nullcontext() if self.seat is None else self.seat.bus.lock

    def attach(self, bus: Bus) -> None:
        """A machine has plugged the function in."""
        self._bus = bus

    def detach(self) -> None:
        """The machine has gone: no interrupt or DMA reaches it any more. State is kept."""
        self._bus = None

    @property
    def attached(self) -> bool:
        """A machine has the function plugged in."""
        return self._bus is not None

    def interrupt(self, vector: int) -> None:
        """Signal message `vector`. Whether it is enabled, masked or pending is the machine's to know."""
        bus = self._bus
        if bus is not None and self._answers is self._files:
            bus.interrupt(MSI if self.msi else MSIX, vector)

    # -- where it answers ------------------------------------------------------------------------------------

    def claims(self) -> tuple[tuple[int, int, int], ...]:
        """The memory addresses that BARs claim now, as (first, one past the last, BAR index): none unless Memory
        Space Enable is set."""
        if self._claims is None:
            found = []
            if self.header.command.memory_space_enable:
                for index, bar in self._bars.items():
                    (value,) = _PAIR.unpack_from(self.config.data, _FIRST_BAR + 4 * index)
                    base = value & ~0xF
                    found.append((base, base + bar.file.size, index))
            self._claims = tuple(found)
        return self._claims

    @property
    def below(self) -> LogicalBus | None:
        """The bus below, of a bridge."""
        return None

    def forwarded_buses(self) -> tuple[int, int] | None:
        """The first and last bus to which configuration requests pass through: none, unless it is a bridge."""
        return None

    def forwarded_addresses(self) -> Sequence[tuple[int, int]]:
        """The addresses, as (first, one past the last), to which memory requests pass through: none, unless it is a
        bridge."""
        return ()

    def emit(self, message: Message) -> None:
        """Send an error message up."""
        self.overheard(message)
        if self.seat is not None:
            self.seat.bus.message(message)

    def rerouted(self) -> None:
        """What the function forwards or claims has changed: whoever routes to it must look again."""
        self._claims = None
        if self.seat is not None:
            self.seat.bus.changed()

    def reclaimed(self) -> None:
        """What the function claims, or forwards, of memory addresses has changed, and nothing else."""
        self._claims = None
        if self.seat is not None:
            self.seat.bus.reclaimed()

    @on_write(CommonHeader.command)
    def _commanded(self, old: int, new: int) -> None:
        self.reclaimed()

    # -- behaviour -------------------------------------------------------------------------------------------

    def unreached(self, kind: Reset) -> list[Block | Register]:
        """What of configuration space a reset does not reach: of a function's own its link, which goes on
        (PCIe 6.0 §6.6.2). Subclasses extend it."""
        return [self.express.link_control] if kind.of_function else []

    def on_reset(self, kind: Reset) -> None:
        """Return registers to what `kind` leaves them. Subclasses extend it. The lock is held."""
        control = self.express.device_control
        payload = control.max_payload_size
        self.config.reset(kind, self.unreached(kind))
        if kind.of_function:
            control.max_payload_size = payload  # both ends of the link agreed on it, too
        for part in self.parts:
            part.reset(kind)
        self.rerouted()

    @on_write(CommonHeader.bar0)
    @on_write(CommonHeader.bar1)
    @on_write(Type0Header.bar2)
    @on_write(Type0Header.bar3)
    @on_write(Type0Header.bar4)
    @on_write(Type0Header.bar5)
    def _size_bars(self, old: int, new: int) -> None:
        """Keep of what was written the bits that a BAR of its size decodes."""
        data = self.config.data
        for index in self.bars:
            place, bar = _FIRST_BAR + 4 * index, self._bars.get(index)
            (value,) = _PAIR.unpack_from(data, place)
            value = (
                0 if bar is None else value & -bar.file.size | BarType.BITS_64 << 1 | bar.prefetchable << 3
            )
            _PAIR.pack_into(data, place, value)
        self.reclaimed()

    @on_write(Msi.mask)
    def _unmasked(self, old: int, new: int) -> None:
        """Messages that waited for their mask bits to clear are sent (PCIe 6.0 §6.1.4.5)."""
        assert self.msi is not None
        ready = self.msi.pending.vectors & ~new
        self.msi.pending.vectors &= new
        for vector in range(ready.bit_length()):
            if ready >> vector & 1:
                self.interrupt(vector)

    @on_write(PciExpress.device_control.initiate_function_level_reset)
    def _function_level_reset(self, old: int, new: int) -> None:
        if new:
            self.express.device_control.initiate_function_level_reset = False
            self.on_reset(Reset.FLR)
