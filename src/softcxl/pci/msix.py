"""The MSI-X table and pending bits, in a BAR of their own (PCIe 6.0 §7.7.2)."""

from __future__ import annotations

from softcxl.spec.pci.capability import Msix, MsixEntry
from softcxl.wire import RegisterFile, Reset

_PAGE = 0x1000
_PENDING = 0x800  # the table's 16 entries end at 100h, its largest possible 2048 would need more pages


class MsixTable:
    """`vectors` table entries and pending bits in `file`, which BAR `bar` maps whole.

    The machine that plugs the function in delivers the messages and keeps to itself what is masked (QEMU lays
    its own table over this one), so no pending bit is ever seen set here.
    """

    def __init__(self, capability: Msix, bar: int, vectors: int) -> None:
        self.file = RegisterFile(_PAGE)
        self.entries = [
            self.file.place(number * MsixEntry.__layout__.size, MsixEntry) for number in range(vectors)
        ]
        capability.control.table_size = vectors - 1
        capability.table.bar = capability.pending.bar = bar
        capability.table.offset = 0
        capability.pending.offset = _PENDING >> 3

    def reset(self, kind: Reset) -> None:
        """Every reset masks all vectors."""
        self.file.reset(kind)
