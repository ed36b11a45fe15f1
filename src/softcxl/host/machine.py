"""The machine that an operating system runs on: everything it can touch, and nothing else.

`softcxl.switch` has one made of live ports and devices; whatever has these methods will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Machine(Protocol):
    """Configuration space, memory-mapped registers, CXL memory, and what ACPI says."""

    @property
    def tables(self) -> Mapping[str, bytes]:
        """The ACPI tables by signature (MCFG, CEDT, and if there are any SRAT, HMAT), with their checksums."""

    @property
    def host_bridges(self) -> Sequence[tuple[int, int]]:
        """(ACPI _UID, root bus number) of each CXL host bridge, in the order of the namespace."""

    @property
    def mmio_ranges(self) -> Sequence[tuple[int, int]]:
        """(base, size in bytes) of the addresses that BARs and bridges' windows may be given."""

    def config_read(self, bus: int, device: int, function: int, offset: int, size: int) -> bytes:
        """Configuration space; all ones where no function answers."""

    def config_write(self, bus: int, device: int, function: int, offset: int, data: bytes) -> None:
        """Write configuration space; dropped where no function answers."""

    def mmio_read(self, address: int, size: int) -> bytes:
        """Registers at a host physical address; all ones where nothing claims it."""

    def mmio_write(self, address: int, data: bytes) -> None:
        """Write registers; dropped where nothing claims the address."""

    def load(self, hpa: int, size: int) -> bytes:
        """CXL memory, through every decoder on the way. Raises what goes wrong there, poison among it."""

    def store(self, hpa: int, data: bytes) -> None:
        """Write CXL memory, through every decoder on the way."""


@runtime_checkable
class Mapped(Protocol):
    """A machine whose CXL memory can be mapped, as a processor would map it: bulk access without routing.

    One that can change while it is used counts, in `changes`, whatever may lead addresses elsewhere.
    """

    def view(self, hpa: int, size: int) -> NDArray[np.uint8] | None:
        """The bytes of a range of host addresses, live and writable; None unless committed decoders of devices
        that answer map all of it, and it rests in one file."""

    def poisoned(self, hpa: int, size: int) -> Sequence[int]:
        """The host addresses of the poisoned 64-byte lines that the range meets, in order."""
