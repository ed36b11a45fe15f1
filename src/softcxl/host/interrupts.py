"""Message-signalled interrupts of memory devices: each is given a message of its own, by configuration space alone."""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any

from softcxl.spec.pci.capability import CapabilityId

if TYPE_CHECKING:
    from softcxl.host.machine import Machine
    from softcxl.host.memdev import Memdev

_ADDRESS = 0xFEE0_0000
"""Where x86 takes messages."""

_FIRST_DATA = 32
_MSI_ENABLE, _MSI_WIDE, _MULTIPLE_ENABLE = 1 << 0, 1 << 7, 0b111 << 4
_MSIX_ENABLE, _MSIX_MASK = 1 << 15, 1 << 14
_ENTRY = 16


class Interrupts:
    """Who has interrupted since it was last asked. On a machine that delivers no interrupts nobody ever does."""

    def __init__(self, machine: Machine) -> None:
        self._memdevs: dict[int, Memdev] = {}
        self._messages: deque[int] = deque()
        self._numbers = count(_FIRST_DATA)
        self._delivers = hasattr(machine, "interrupted")
        if self._delivers:
            target: Any = machine
            self._before = target.interrupted
            target.interrupted = self._note

    def _note(self, interrupt: Any) -> None:
        # With locks held, on whatever thread: it is noted, and served when it is asked for.
        self._messages.append(interrupt.data)
        self._before(interrupt)

    def take(self) -> list[Memdev]:
        """Those that have interrupted, once each, in order."""
        found: dict[Memdev, None] = {}
        while self._messages:
            memdev = self._memdevs.get(self._messages.popleft())
            if memdev is not None:
                found[memdev] = None
        return list(found)

    def connect(self, memdev: Memdev) -> bool:
        """Have the device send its messages here. False if it or the machine cannot."""
        if not self._delivers:
            return False
        # after a reset it keeps its message
        data = next((data for data, one in self._memdevs.items() if one is memdev), 0) or next(self._numbers)
        for kind, at in memdev.node.config.capabilities():
            if kind == CapabilityId.MSI:
                self._msi(memdev, at, data)
            elif kind == CapabilityId.MSIX:
                self._msix(memdev, at, data)
            else:
                continue
            self._memdevs[data] = memdev
            return True
        return False

    def _msi(self, memdev: Memdev, at: int, data: int) -> None:
        config = memdev.node.config
        control = config.read(at + 2, 2)
        config.write(at + 4, _ADDRESS)
        if control & _MSI_WIDE:
            config.write(at + 8, 0)
        config.write(at + (12 if control & _MSI_WIDE else 8), data, 2)
        config.write(at + 2, control & ~_MULTIPLE_ENABLE | _MSI_ENABLE, 2)

    def _msix(self, memdev: Memdev, at: int, data: int) -> None:
        config = memdev.node.config
        control, table = config.read(at + 2, 2), config.read(at + 4)
        base = memdev.node.bars[table & 0b111].address + (table & ~0b111)
        for entry in range((control & 0x7FF) + 1):
            words = (_ADDRESS, 0, data, 0)  # address, its upper half, data, not masked
            for number, word in enumerate(words):
                config.machine.mmio_write(base + _ENTRY * entry + 4 * number, word.to_bytes(4, "little"))
        config.write(at + 2, control & ~_MSIX_MASK | _MSIX_ENABLE, 2)
