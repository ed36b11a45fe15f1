"""What a door serves, and what it gives in return: the whole contract between a function and the outside.

A function (a BAR, a config space, interrupts) need not know sockets, and a door need not know PCI.
`pci.Function` satisfies `Port` by its shape alone.

Threads: a door calls a port from its own thread, one call at a time. A port calls its bus from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence


class RegionShape(Protocol):
    """What a door reads of a region: `Region`, or anything that has the same attributes."""

    @property
    def size(self) -> int: ...
    @property
    def readable(self) -> bool: ...
    @property
    def writable(self) -> bool: ...
    @property
    def mappable(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def fd(self) -> int | None: ...
    @property
    def start(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Region:
    """One BAR, ROM or config space.

    `size` is in bytes. `mappable` holds (offset, size) pairs, page-aligned and in order, of what a guest may
    map as memory: accesses there reach the file `fd` (which holds the region from its offset `start`) and never the
    port.
    """

    size: int
    readable: bool = True
    writable: bool = True
    mappable: tuple[tuple[int, int], ...] = ()
    fd: int | None = None
    start: int = 0


@runtime_checkable
class Bus(Protocol):
    """What a function can do to the machine it is plugged into, from `attach` until `detach`."""

    def interrupt(self, kind: int, vector: int) -> None:
        """Fire vector `vector` of type `kind` (INTx 0, MSI 1, MSI-X 2, error 3, request 4). Never fails: a
        vector that the guest has not set up is ignored."""

    def dma_read(self, address: int, size: int) -> bytes:
        """`size` bytes of guest memory. Raises `OSError` (EFAULT not mapped, EACCES not readable, ETIMEDOUT
        and ENOTCONN no answer).

        Memory that the guest's machine does not share takes a message to it. QEMU does not answer one while
        an access of its guest waits for us: inside `Port.read` and `Port.write` use shared memory only.
        """

    def dma_write(self, address: int, data: bytes) -> None:
        """Store `data` in guest memory. Raises `OSError` as `dma_read` does."""


@runtime_checkable
class Port(Protocol):
    """A function as a door sees it."""

    def regions(self) -> Sequence[RegionShape | None]:
        """Indices 0-5 the BARs, 6 the ROM, 7 config space, 8 VGA; None where there is none."""

    def irqs(self) -> Sequence[int]:
        """How many vectors there are of INTx, MSI, MSI-X, error and request."""

    def read(self, region: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; both are inside the region."""

    def write(self, region: int, offset: int, data: bytes) -> None:
        """Store `data` at `offset`; all of it is inside the region."""

    def reset(self) -> None:
        """The guest's machine resets the function, or resets itself: QEMU sends the same message (DEVICE_RESET)
        for both, so a port takes it for the stronger, a conventional reset. A function-level reset by the guest
        alone is a write to configuration space."""

    def attach(self, bus: Bus) -> None:
        """A guest has come; `bus` is good until `detach`."""

    def detach(self) -> None:
        """The guest has gone. The device keeps its state."""
