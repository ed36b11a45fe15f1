"""HDM decoders of a host bridge or of a switch's upstream port: which port below an address goes on to.

What software may commit is in `softcxl.device.commit`. Ports interleave over 1, 2, 4 or 8 targets; 3, 6, 12 and 16
ways are for devices and windows (CXL 3.1 §8.2.4.20.1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from softcxl.device.commit import CommitError, DecoderBank, Slot
from softcxl.device.component import ComponentRegisters
from softcxl.spec.cxl.hdm import HdmDecoders as HdmRegisters
from softcxl.spec.cxl.hdm import PortDecoder
from softcxl.wire import on_write

MAX_TARGETS = 8
"""Targets that a decoder's registers can name."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What a committed decoder does: addresses from `base` up to `end` go to `targets`, by turns of `granularity`
    bytes. `targets` are port numbers, by position."""

    decoder: int
    base: int
    end: int
    granularity: int
    shift: int
    mask: int
    targets: tuple[int, ...]

    @property
    def ways(self) -> int:
        return len(self.targets)


class PortDecoders(DecoderBank[PortDecoder, Route]):
    """The HDM decoder capability of a component with `count` decoders over `ports`, the numbers of its ports.

    `changed` is called whenever addresses go elsewhere than before. `lock` is the component's. Raises
    `ValueError` for a number of decoders that the capability cannot say.
    """

    block = PortDecoder
    kind = "port HDM decoder"

    def __init__(
        self,
        component: ComponentRegisters,
        count: int,
        ports: Collection[int],
        lock: AbstractContextManager[object],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(component, count, lock)
        self.ports = frozenset(ports)
        self.routes: tuple[Route, ...] = ()
        self._changed = changed
        self.target_count = min(MAX_TARGETS, 1 << (len(self.ports) - 1).bit_length())
        self.registers.capability.target_count = self.target_count

    @on_write(HdmRegisters.global_control)
    def _control(self, old: int, new: int) -> None:
        """Both bits are for devices alone: here they are hardwired to zero (CXL 3.1 §8.2.4.20.2)."""
        self.registers.global_control.assign(0)

    def settled(self) -> None:
        self.routes = tuple(route for route in self.effects if route.base < route.end)
        self._changed()

    def program(
        self,
        number: int,
        *,
        hpa: int,
        size: int,
        targets: Sequence[int],
        granularity: int = 256,
        lock: bool = False,
    ) -> None:
        """Set and commit a decoder as platform firmware does. Sizes in bytes.

        Raises `CommitError` where it is committed already or cannot be. Safe from any thread.
        """
        with self._lock:
            listed = int.from_bytes(bytes(targets[:MAX_TARGETS]), "little")
            self._set(number, hpa, size, len(targets), granularity, listed, lock)

    def assign_low(self, registers: PortDecoder, value: int) -> None:
        registers.target_list_low.assign(value & 0xFFFFFFFF)
        registers.target_list_high.assign(value >> 32)

    def check(self, decoder: Slot[PortDecoder, Route]) -> Route:
        registers, number = decoder.registers, decoder.number
        given, control = self._range(decoder), registers.control
        ways, granularity = given.ways, given.granularity
        if ways & ways - 1 or ways > self.target_count:
            raise CommitError(f"{ways} ways: a power of two up to {self.target_count} is possible")
        if control.back_invalidate or control.uio:
            raise CommitError("the component has neither back-invalidate nor UIO")
        listed = int(registers.target_list_high) << 32 | int(registers.target_list_low)
        targets = tuple(listed.to_bytes(MAX_TARGETS, "little")[:ways])
        if absent := sorted(set(targets) - self.ports):
            raise CommitError(f"target {absent[0]} is no port of this component: it has {sorted(self.ports)}")
        if len(set(targets)) < ways:
            raise CommitError(f"targets {list(targets)}: one port has two positions")
        self._in_place(number, given)
        shift = granularity.bit_length() - 1
        return Route(number, given.base, given.end, granularity, shift, ways - 1, targets)
