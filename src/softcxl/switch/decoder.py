"""HDM decoders of a host bridge or of a switch's upstream port: which port below an address goes on to.

The rules of a commit are those of CXL 3.1 §8.2.4.20.12. One that breaks a rule sets Error Not Committed, changes
nothing else, and leaves its reason in `PortDecoders.refusals`. Ports interleave over 1, 2, 4 or 8 targets; 3, 6, 12
and 16 ways are for devices and windows (CXL 3.1 §8.2.4.20.1).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from softcxl.device.component import ComponentRegisters
from softcxl.device.decoder import UNIT, CommitError
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import (
    ADDRESS_LIMIT,
    decode_granularity,
    decode_ways,
    encode_granularity,
    encode_ways,
)
from softcxl.spec.cxl.component import ComponentCapabilityId
from softcxl.spec.cxl.hdm import (
    DECODER_COUNTS,
    DECODER_OFFSET,
    DECODER_STRIDE,
    HDM_VERSION,
    DecoderControl,
    PortDecoder,
)
from softcxl.spec.cxl.hdm import HdmDecoders as HdmRegisters
from softcxl.wire import on_write

log = logging.getLogger(__name__)

MAX_TARGETS = 8
"""Targets that a decoder's registers can name."""

_COMMIT = DecoderControl.commit.mask


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


class _Decoder:
    """One decoder: its registers and the hook on its commit bit."""

    def __init__(self, owner: PortDecoders, number: int) -> None:
        self.owner, self.number = owner, number
        self.registers: PortDecoder
        self.route: Route | None = None

    @on_write(PortDecoder.control)
    def changed(self, old: int, new: int) -> None:
        if not new & _COMMIT:
            if old & _COMMIT:
                self.owner.decommit(self)
        elif self.route is not None:
            self.registers.control.assign(old)  # a committed decoder takes no new geometry
        elif not old & _COMMIT:
            self.owner.commit(self)


class PortDecoders:
    """The HDM decoder capability of a component with `count` decoders over `ports`, the numbers of its ports.

    `changed` is called whenever addresses go elsewhere than before. `lock` is the component's. Raises
    `ValueError` for a number of decoders that the capability cannot say.
    """

    def __init__(
        self,
        component: ComponentRegisters,
        count: int,
        ports: Collection[int],
        lock: AbstractContextManager[object],
        changed: Callable[[], None],
    ) -> None:
        if count not in DECODER_COUNTS:
            raise ValueError(f"{count} HDM decoders: possible are {', '.join(map(str, DECODER_COUNTS))}")
        self.ports = frozenset(ports)
        self.refusals: deque[str] = deque(maxlen=32)
        self.routes: tuple[Route, ...] = ()
        size = DECODER_OFFSET + DECODER_STRIDE * count
        self.registers = component.add(
            ComponentCapabilityId.HDM_DECODER, HDM_VERSION, HdmRegisters, size=size, hooks=self
        )
        capability = self.registers.capability
        capability.decoder_count = DECODER_COUNTS.index(count)
        self.target_count = min(MAX_TARGETS, 1 << (len(self.ports) - 1).bit_length())
        capability.target_count = self.target_count
        capability.interleave_11_8 = capability.interleave_14_12 = True
        self._file, self._lock, self._changed = component.file, lock, changed
        self.decoders = [_Decoder(self, number) for number in range(count)]
        for decoder in self.decoders:
            offset = self.registers.base + DECODER_OFFSET + DECODER_STRIDE * decoder.number
            decoder.registers = component.file.place(offset, PortDecoder, hooks=decoder)

    @on_write(HdmRegisters.global_control)
    def _control(self, old: int, new: int) -> None:
        """Both bits are for devices alone: here they are hardwired to zero (CXL 3.1 §8.2.4.20.2)."""
        self.registers.global_control.assign(0)

    def commit(self, decoder: _Decoder) -> None:
        """Put a decoder into effect as its registers say, or set its error bit."""
        control = decoder.registers.control
        control.committed = control.error_not_committed = False
        try:
            route = self._check(decoder)
        except CommitError as refused:
            control.error_not_committed = True
            self.refusals.append(f"decoder {decoder.number}: {refused}")
            log.info("port HDM decoder %d is not committed: %s", decoder.number, refused)
            return
        decoder.route = route
        control.committed = True
        # Nothing but the commit bit can be written while committed; with Lock On Commit that bit cannot, too.
        self._file.lock(decoder.registers)
        if not control.lock_on_commit:
            self._file.unlock(decoder.registers.control)
        self._rerouted()

    def decommit(self, decoder: _Decoder) -> None:
        """Take a decoder out of effect."""
        control = decoder.registers.control
        control.committed = control.error_not_committed = False
        decoder.route = None
        self._file.unlock(decoder.registers)
        self._rerouted()

    def reset(self) -> None:
        """Forget every route; the registers are the file's to reset."""
        for decoder in self.decoders:
            decoder.route = None
        self._rerouted()

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
            decoder = self.decoders[number]
            if decoder.route is not None:
                raise CommitError(f"decoder {number} is committed already")
            registers, control = decoder.registers, decoder.registers.control
            registers.base_low.assign(hpa & 0xF0000000)
            registers.base_high.assign(hpa >> 32)
            registers.size_low.assign(size & 0xF0000000)
            registers.size_high.assign(size >> 32)
            listed = int.from_bytes(bytes(targets[:MAX_TARGETS]), "little")
            registers.target_list_low.assign(listed & 0xFFFFFFFF)
            registers.target_list_high.assign(listed >> 32)
            control.interleave_ways = encode_ways(len(targets))
            control.interleave_granularity = encode_granularity(granularity)
            control.lock_on_commit, control.host_only = lock, True
            control.commit = True
            self.commit(decoder)
            if control.error_not_committed:
                raise CommitError(self.refusals[-1])

    def _rerouted(self) -> None:
        routes = (decoder.route for decoder in self.decoders)
        self.routes = tuple(route for route in routes if route is not None and route.base < route.end)
        self._changed()

    def _check(self, decoder: _Decoder) -> Route:
        registers, number = decoder.registers, decoder.number
        base = int(registers.base_high) << 32 | int(registers.base_low)
        size = int(registers.size_high) << 32 | int(registers.size_low)
        control = registers.control
        try:
            ways = decode_ways(control.interleave_ways)
            granularity = decode_granularity(control.interleave_granularity)
        except GeometryError as error:
            raise CommitError(str(error)) from None
        if ways & ways - 1 or ways > self.target_count:
            raise CommitError(f"{ways} ways: a power of two up to {self.target_count} is possible")
        if control.back_invalidate or control.uio:
            raise CommitError("the component has neither back-invalidate nor UIO")
        if size % (UNIT * ways):
            raise CommitError(f"size {size:#x} is not a multiple of {ways} x 256 MiB")
        if base + size > ADDRESS_LIMIT:
            raise CommitError(f"host addresses end at {base + size:#x}, beyond 52 bits")
        listed = int(registers.target_list_high) << 32 | int(registers.target_list_low)
        targets = tuple(listed.to_bytes(MAX_TARGETS, "little")[:ways])
        if absent := sorted(set(targets) - self.ports):
            raise CommitError(f"target {absent[0]} is no port of this component: it has {sorted(self.ports)}")
        if len(set(targets)) < ways:
            raise CommitError(f"targets {list(targets)}: one port has two positions")
        self._in_order(number, base, size)
        return Route(number, base, base + size, granularity, granularity.bit_length() - 1, ways - 1, targets)

    def _in_order(self, number: int, base: int, size: int) -> None:
        if any(later.route is not None for later in self.decoders[number + 1 :]):
            raise CommitError(f"a decoder above {number} is committed: decoders are committed in order")
        if number and self.decoders[number - 1].route is None:
            raise CommitError(f"decoder {number - 1} is not committed: decoders are committed in order")
        taken = max((route.end for route in self.routes), default=0)
        if size and base < taken:
            raise CommitError(f"base {base:#x} is not above the decoders below it, which end at {taken:#x}")
