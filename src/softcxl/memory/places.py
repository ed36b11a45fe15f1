"""Values that say where a device's bytes rest and which decoders show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softcxl.memory.interleave import Interleave
    from softcxl.memory.media import Medium
    from softcxl.memory.stripe import Stripe
    from softcxl.memory.window import Window


@dataclass(frozen=True, slots=True)
class Shared:
    """Memory that several devices have: for each of them its addresses from `start` on are the bytes of `medium`, in
    order from its first one."""

    start: int
    medium: Medium

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.start + self.medium.size

    def shows(self, commitment: Commitment, origin: int) -> bool:
        """Whether a decoder may be committed over it: `origin` is where in its window's file the region begins. It
        stays in place, so only a window of the same file can show it, each byte at its place."""
        return (
            commitment.window.medium is self.medium
            and commitment.interleave.ways == 1
            and origin == commitment.dpa - self.start
        )


@dataclass(frozen=True, slots=True)
class Part:
    """DPA `start` to `end` and its place: a stripe of a window's file, or home if both are None.

    The addresses of a part at home are all the device's own, or all shared ones.
    """

    start: int
    end: int
    window: Window | None
    stripe: Stripe | None


@dataclass(frozen=True, slots=True)
class Commitment:
    """A committed decoder: `size` bytes of HPA from `hpa`, of which this device gives those of `position`."""

    window: Window
    hpa: int
    size: int
    interleave: Interleave
    position: int
    dpa: int

    @property
    def dpa_end(self) -> int:
        """The first DPA after the device's share."""
        return self.dpa + self.size // self.interleave.ways

    def meets(self, other: Commitment) -> bool:
        """Whether the two have an HPA, or a DPA of the device, in common."""
        return (other.dpa < self.dpa_end and self.dpa < other.dpa_end) or (
            other.window is self.window
            and other.hpa < self.hpa + self.size
            and self.hpa < other.hpa + other.size
        )

    def __str__(self) -> str:
        last = self.hpa + self.size - 1
        return f"DPA {self.dpa:#x} to {self.dpa_end - 1:#x} at HPA {self.hpa:#x} to {last:#x}"
