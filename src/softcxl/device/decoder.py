"""HDM decoders of a device: what software may commit, and what a commit does.

The rules are those of CXL 3.1 §8.2.4.20.12. A commit that breaks one sets Error Not Committed, changes nothing
else, and leaves its reason in `HdmDecoders.refusals` for whoever debugs the software. Clearing the commit bit
clears the error, too; the next commit is the next time that the bit goes from zero to one.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from softcxl.device.component import ComponentRegisters
from softcxl.memory.errors import GeometryError, MemoryFault
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
    CoherencyModels,
    DecoderControl,
    DeviceDecoder,
)
from softcxl.spec.cxl.hdm import HdmDecoders as HdmRegisters
from softcxl.wire import on_write

log = logging.getLogger(__name__)

_COMMIT = DecoderControl.commit.mask

UNIT = 256 << 20
"""Base, size and skip are multiples of 256 MiB (CXL 3.1 §8.2.4.20.3)."""


class CommitError(Exception):
    """A decoder cannot be committed; the message says which rule stands against it."""


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


class _Decoder:
    """One decoder: its registers and the hook on its commit bit."""

    def __init__(self, owner: HdmDecoders, number: int) -> None:
        self.owner, self.number = owner, number
        self.registers: DeviceDecoder
        self.mapping: Mapping | None = None

    @on_write(DeviceDecoder.control)
    def changed(self, old: int, new: int) -> None:
        if not new & _COMMIT:
            if old & _COMMIT:
                self.owner.decommit(self)
        elif self.mapping is not None:
            self.registers.control.assign(old)  # a committed decoder takes no new geometry
        elif not old & _COMMIT:
            self.owner.commit(self)


class HdmDecoders:
    """The HDM decoder capability of a device with `count` decoders over `capacity` bytes of memory.

    `lock` is the function's. Raises `ValueError` for a number of decoders that the capability cannot say.
    """

    def __init__(
        self,
        component: ComponentRegisters,
        count: int,
        capacity: int,
        lock: AbstractContextManager[object],
    ) -> None:
        if count not in DECODER_COUNTS:
            raise ValueError(f"{count} HDM decoders: possible are {', '.join(map(str, DECODER_COUNTS))}")
        self.capacity = capacity
        self.host: Host = Nowhere()
        self.refusals: deque[str] = deque(maxlen=32)
        size = DECODER_OFFSET + DECODER_STRIDE * count
        self.registers = component.add(
            ComponentCapabilityId.HDM_DECODER, HDM_VERSION, HdmRegisters, size=size, hooks=self
        )
        capability = self.registers.capability
        capability.decoder_count = DECODER_COUNTS.index(count)
        capability.interleave_11_8 = capability.interleave_14_12 = True
        capability.interleave_3_6_12 = capability.interleave_16 = True
        capability.coherency_models = CoherencyModels.HOST_ONLY
        capability.poison_on_decode_error_capable = True
        self._file, self._lock = component.file, lock
        self.decoders = [_Decoder(self, number) for number in range(count)]
        for decoder in self.decoders:
            offset = self.registers.base + DECODER_OFFSET + DECODER_STRIDE * decoder.number
            decoder.registers = component.file.place(offset, DeviceDecoder, hooks=decoder)
            decoder.registers.control.host_only = True

    @property
    def mappings(self) -> list[Mapping]:
        """What is committed now, by decoder."""
        return [decoder.mapping for decoder in self.decoders if decoder.mapping is not None]

    @property
    def committed(self) -> bool:
        return any(decoder.mapping for decoder in self.decoders)

    @property
    def enabled(self) -> bool:
        """Decoders decode; until then the DVSEC ranges do."""
        return self.registers.global_control.hdm_decoder_enable

    def commit(self, decoder: _Decoder) -> None:
        """Put a decoder into effect as its registers say, or set its error bit."""
        control = decoder.registers.control
        control.committed = control.error_not_committed = False
        try:
            mapping = self._check(decoder)
            if mapping.size:
                self.host.commit(mapping)
        except (CommitError, MemoryFault) as refused:
            control.error_not_committed = True
            self.refusals.append(f"decoder {decoder.number}: {refused}")
            log.info("HDM decoder %d is not committed: %s", decoder.number, refused)
            return
        decoder.mapping = mapping
        control.committed = True
        # Nothing but the commit bit can be written while committed; with Lock On Commit that bit cannot, too.
        self._file.lock(decoder.registers)
        if not control.lock_on_commit:
            self._file.unlock(decoder.registers.control)

    def decommit(self, decoder: _Decoder) -> None:
        """Take a decoder out of effect. Software may do it in any order; order is asked of commits alone."""
        control = decoder.registers.control
        control.committed = control.error_not_committed = False
        mapping, decoder.mapping = decoder.mapping, None
        self._file.unlock(decoder.registers)
        if mapping is not None and mapping.size:
            self.host.release(mapping)

    def reset(self) -> None:
        """Forget every mapping; the registers are the file's to reset."""
        for decoder in self.decoders:
            mapping, decoder.mapping = decoder.mapping, None
            if mapping is not None and mapping.size:
                self.host.release(mapping)

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
            decoder = self.decoders[number]
            if decoder.mapping is not None:
                raise CommitError(f"decoder {number} is committed already")
            registers, control = decoder.registers, decoder.registers.control
            registers.base_low.assign(hpa & 0xF0000000)
            registers.base_high.assign(hpa >> 32)
            registers.size_low.assign(size & 0xF0000000)
            registers.size_high.assign(size >> 32)
            registers.dpa_skip_low.assign(skip & 0xF0000000)
            registers.dpa_skip_high.assign(skip >> 32)
            control.interleave_ways = encode_ways(ways)
            control.interleave_granularity = encode_granularity(granularity)
            control.lock_on_commit = lock
            control.commit = True
            self.registers.global_control.hdm_decoder_enable = True
            self.commit(decoder)
            if control.error_not_committed:
                raise CommitError(self.refusals[-1])

    def _check(self, decoder: _Decoder) -> Mapping:
        registers, number = decoder.registers, decoder.number
        hpa = int(registers.base_high) << 32 | int(registers.base_low)
        size = int(registers.size_high) << 32 | int(registers.size_low)
        skip = int(registers.dpa_skip_high) << 32 | int(registers.dpa_skip_low)
        control = registers.control
        try:
            ways = decode_ways(control.interleave_ways)
            granularity = decode_granularity(control.interleave_granularity)
        except GeometryError as error:
            raise CommitError(str(error)) from None
        if not control.host_only or control.back_invalidate or control.uio:
            raise CommitError("the device's memory is host-only coherent, without back-invalidate and UIO")
        if size % (UNIT * ways):
            raise CommitError(f"size {size:#x} is not a multiple of {ways} x 256 MiB")
        if hpa + size > ADDRESS_LIMIT:
            raise CommitError(f"host addresses end at {hpa + size:#x}, beyond 52 bits")
        if any(later.mapping is not None for later in self.decoders[number + 1 :]):
            raise CommitError(f"a decoder above {number} is committed: decoders are committed in order")
        dpa = skip
        if number:
            below = self.decoders[number - 1].mapping
            if below is None:
                raise CommitError(f"decoder {number - 1} is not committed: decoders are committed in order")
            dpa += below.dpa + below.dpa_size
        taken = max((lower.hpa + lower.size for lower in self.mappings if lower.size), default=0)
        if size and hpa < taken:
            raise CommitError(f"base {hpa:#x} is not above the decoders below it, which end at {taken:#x}")
        if dpa + size // ways > self.capacity:
            raise CommitError(
                f"device addresses {dpa:#x} to {dpa + size // ways:#x} do not fit {self.capacity:#x} bytes"
            )
        return Mapping(number, hpa, size, ways, granularity, dpa, skip)
