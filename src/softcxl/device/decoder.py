"""HDM decoders of a device: which of its addresses appear at which host addresses.

What software may commit, and what a commit does, is in `softcxl.device.commit`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from softcxl.device.commit import UNIT, CommitError, DecoderBank, Slot
from softcxl.device.component import ComponentRegisters
from softcxl.spec.cxl.hdm import CoherencyModels, DeviceDecoder

__all__ = ["UNIT", "CommitError", "HdmDecoders", "Host", "Mapping", "Nowhere"]


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a committed decoder maps: `size` bytes of host addresses from `hpa`, of which this device holds one
    part in `ways`, from its address `dpa` on. Sizes in bytes."""

    decoder: int
    hpa: int
    size: int
    ways: int
    granularity: int
    dpa: int
    skip: int

    @property
    def base(self) -> int:
        return self.hpa

    @property
    def end(self) -> int:
        return self.hpa + self.size

    @property
    def dpa_size(self) -> int:
        return self.size // self.ways


class Host(Protocol):
    """Where committed memory appears: told of each commit before it shows, and of each decommit after."""

    def commit(self, mapping: Mapping) -> None:
        """Make the device's bytes be at the mapping's host addresses. Raises `CommitError` to refuse."""

    def release(self, mapping: Mapping) -> None:
        """The mapping has ended."""


class Nowhere:
    """A host that accepts every mapping: a device on a bench."""

    def commit(self, mapping: Mapping) -> None: ...

    def release(self, mapping: Mapping) -> None: ...


class HdmDecoders(DecoderBank[DeviceDecoder, Mapping]):
    """The HDM decoder capability of a device with `count` decoders over `capacity` bytes of memory.

    `lock` is the function's. Raises `ValueError` for a number of decoders that the capability cannot say.
    """

    block = DeviceDecoder

    def __init__(
        self,
        component: ComponentRegisters,
        count: int,
        capacity: int,
        lock: AbstractContextManager[object],
    ) -> None:
        super().__init__(component, count, lock)
        self.capacity = capacity
        self.gap = range(0)
        """Addresses within the capacity that nothing is at."""
        self.host: Host = Nowhere()
        capability = self.registers.capability
        capability.interleave_3_6_12 = capability.interleave_16 = True
        capability.coherency_models = CoherencyModels.HOST_ONLY
        capability.poison_on_decode_error_capable = True
        for decoder in self.decoders:
            decoder.registers.control.host_only = True

    @property
    def mappings(self) -> list[Mapping]:
        """What is committed now, by decoder."""
        return self.effects

    @property
    def enabled(self) -> bool:
        """Decoders decode; until then the DVSEC ranges do."""
        return self.registers.global_control.hdm_decoder_enable

    def began(self, effect: Mapping) -> None:
        if effect.size:
            self.host.commit(effect)

    def ended(self, effect: Mapping) -> None:
        if effect.size:
            self.host.release(effect)

    def program(
        self,
        number: int,
        *,
        hpa: int,
        size: int,
        ways: int,
        granularity: int,
        skip: int = 0,
        lock: bool = False,
    ) -> None:
        """Set and commit a decoder as platform firmware does, and enable decoding. Sizes in bytes.

        Raises `CommitError` where it is committed already or cannot be. Safe from any thread.
        """
        with self._lock:
            self.registers.global_control.hdm_decoder_enable = True
            self._set(number, hpa, size, ways, granularity, skip, lock)

    def assign_low(self, registers: DeviceDecoder, value: int) -> None:
        registers.dpa_skip_low.assign(value & 0xF0000000)
        registers.dpa_skip_high.assign(value >> 32)

    def check(self, decoder: Slot[DeviceDecoder, Mapping]) -> Mapping:
        registers, number = decoder.registers, decoder.number
        given, control = self._range(decoder), registers.control
        if not control.host_only or control.back_invalidate or control.uio:
            raise CommitError("the device's memory is host-only coherent, without back-invalidate and UIO")
        self._in_place(number, given)
        skip = int(registers.dpa_skip_high) << 32 | int(registers.dpa_skip_low)
        below = self.decoders[number - 1].effect if number else None
        dpa = skip if below is None else skip + below.dpa + below.dpa_size
        end = dpa + given.size // given.ways
        if end > self.capacity:
            raise CommitError(f"device addresses {dpa:#x} to {end:#x} do not fit {self.capacity:#x} bytes")
        gap = self.gap
        if gap and dpa < gap.stop and gap.start < end:
            raise CommitError(
                f"device addresses {dpa:#x} to {end:#x}: there is no memory from {gap.start:#x} to {gap.stop:#x}"
            )
        return Mapping(number, given.base, given.size, given.ways, given.granularity, dpa, skip)
