"""Memory-mapped registers as drivers use them: located, mapped, read and written a word at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from softcxl.host.enumerate import Node
from softcxl.host.errors import CommitError, ProbeError
from softcxl.host.machine import Machine
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import decode_granularity, decode_ways, encode_granularity, encode_ways
from softcxl.spec.cxl.component import (
    CACHE_MEM_OFFSET,
    ComponentCapabilityHeader,
    ComponentCapabilityId,
    CxlCapabilityHeader,
)
from softcxl.spec.cxl.dvsec import DvsecId, RegisterBlockId, RegisterBlockOffsetLow
from softcxl.spec.cxl.hdm import (
    DECODER_COUNTS,
    DECODER_OFFSET,
    DECODER_STRIDE,
    DecoderControl,
    HdmCapability,
    HdmDecoders,
    HdmGlobalControl,
    PortDecoder,
)

_POLLS = 64
"""Looks at a decoder's control register before its commit has failed. Linux gives it 20 ms."""

_LOCATOR_ENTRIES = 0x0C


@dataclass(frozen=True, slots=True)
class Registers:
    """Registers from host physical address `base` on; `name` says whose they are in messages."""

    machine: Machine
    base: int
    name: str

    def read(self, offset: int, size: int = 4) -> int:
        """The little-endian word of `size` bytes at `offset`."""
        return int.from_bytes(self.machine.mmio_read(self.base + offset, size), "little")

    def write(self, offset: int, value: int, size: int = 4) -> None:
        """Write a word of `size` bytes."""
        self.machine.mmio_write(self.base + offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def at(self, offset: int) -> Registers:
        """Those from `offset` on."""
        return Registers(self.machine, self.base + offset, self.name)

    def component(self, wanted: ComponentCapabilityId) -> Registers | None:
        """A capability of the component register block that begins here."""
        header = CxlCapabilityHeader(self.read(CACHE_MEM_OFFSET))
        if int(header) in (0, 0xFFFFFFFF):
            return None
        for number in range(1, header.array_size + 1):
            entry = self.read(CACHE_MEM_OFFSET + 4 * number)
            # Its capability ID may be one that nobody here knows.
            if entry & 0xFFFF == wanted:
                return self.at(CACHE_MEM_OFFSET + ComponentCapabilityHeader(entry).pointer)
        return None


def located(node: Node) -> dict[int, Registers]:
    """The register blocks that a function's Register Locator names, by `RegisterBlockId`. Raises `ProbeError`."""
    config = node.config
    locator = config.require(DvsecId.REGISTER_LOCATOR)
    length = config.read(locator + 4) >> 20
    found: dict[int, Registers] = {}
    for entry in range(locator + _LOCATOR_ENTRIES, locator + length - 7, 8):
        low = config.read(entry)
        kind, bar = low >> 8 & 0xFF, node.bars.get(low & RegisterBlockOffsetLow.bar.mask)
        if kind == RegisterBlockId.EMPTY:
            continue
        offset = config.read(entry + 4) << 32 | low & RegisterBlockOffsetLow.offset_low.mask
        if bar is None or offset >= bar.size:
            raise ProbeError(
                f"{node.name}: its register block {kind} is at {offset:#x} of a BAR that is not there"
            )
        found.setdefault(kind, Registers(config.machine, bar.address + offset, node.name))
    return found


@dataclass(frozen=True, slots=True)
class Setting:
    """What a decoder's registers say. `target` is the target list of a port, or the DPA skip of a device."""

    base: int = 0
    size: int = 0
    ways: int = 1
    granularity: int = 256
    target: int = 0
    committed: bool = False
    locked: bool = False

    def unused(self) -> Setting:
        """As it is after a reset: without addresses; what it was interleaved by stays, as Linux shows it."""
        return replace(self, base=0, size=0, committed=False, locked=False)

    @property
    def targets(self) -> tuple[int, ...]:
        """Port numbers by position."""
        return tuple(self.target.to_bytes(8, "little")[: self.ways])


class HdmRegisters:
    """The HDM decoder capability at `registers`, of a port or of a device."""

    def __init__(self, registers: Registers) -> None:
        self.registers = registers
        self.capability = HdmCapability(registers.read(0))
        encoded = self.capability.decoder_count
        if encoded >= len(DECODER_COUNTS):
            raise ProbeError(
                f"{registers.name}: its HDM decoder capability says count {encoded}, which is reserved"
            )
        self.count = DECODER_COUNTS[encoded]
        self.target_count = self.capability.target_count

    def enable(self) -> None:
        """Have the decoders of a device decode, in place of its DVSEC ranges."""
        offset = HdmDecoders.global_control.__layout__.offset
        control = HdmGlobalControl(self.registers.read(offset))
        if not control.hdm_decoder_enable:
            control.hdm_decoder_enable = True
            self.registers.write(offset, int(control))

    def read(self, number: int) -> Setting:
        """What decoder `number` is set to. Raises `ProbeError` where it holds reserved values."""
        at = self._at(number)
        control = DecoderControl(at.read(_CONTROL))
        if not control.committed:
            return Setting()
        try:
            ways, granularity = (
                decode_ways(control.interleave_ways),
                decode_granularity(control.interleave_granularity),
            )
        except GeometryError as error:
            raise ProbeError(f"{self.registers.name}: HDM decoder {number}: {error}") from None
        return Setting(
            base=_wide(at, _BASE_LOW),
            size=_wide(at, _SIZE_LOW),
            ways=ways,
            granularity=granularity,
            target=_wide(at, _TARGET_LOW),
            committed=True,
            locked=control.lock_on_commit,
        )

    def commit(self, number: int, setting: Setting) -> None:
        """Write a decoder and commit it. Raises `CommitError` where it answers with its error bit, or not."""
        at = self._at(number)
        for offset, value in (
            (_BASE_LOW, setting.base),
            (_SIZE_LOW, setting.size),
            (_TARGET_LOW, setting.target),
        ):
            at.write(offset + 4, value >> 32)
            at.write(offset, value)
        control = DecoderControl(at.read(_CONTROL) & ~DecoderControl.error_not_committed.mask)
        control.interleave_ways = encode_ways(setting.ways)
        control.interleave_granularity = encode_granularity(setting.granularity)
        control.host_only = control.commit = True
        at.write(_CONTROL, int(control))
        for _ in range(_POLLS):
            answer = DecoderControl(at.read(_CONTROL))
            if answer.error_not_committed:
                break
            if answer.committed:
                return
        answer.commit = False
        at.write(_CONTROL, int(answer))
        raise CommitError(
            f"{self.registers.name}: HDM decoder {number} refused {setting.size:#x} bytes at {setting.base:#x},"
            f" {setting.ways} ways at {setting.granularity}, target or skip {setting.target:#x}"
        )

    def reset(self, number: int) -> None:
        """Take a decoder out of effect, and clear its range."""
        at = self._at(number)
        control = DecoderControl(at.read(_CONTROL))
        control.commit = False
        at.write(_CONTROL, int(control))
        for offset in (_SIZE_LOW, _BASE_LOW):
            at.write(offset + 4, 0)
            at.write(offset, 0)

    def _at(self, number: int) -> Registers:
        return self.registers.at(DECODER_OFFSET + DECODER_STRIDE * number)

    def problem(self, ways: int, granularity: int) -> str:
        """Why these decoders cannot be so interleaved; nothing if they can (CXL 3.1 §8.2.4.20.1)."""
        capability, power = self.capability, ways & -ways
        if ways % 3 == 0 and not capability.interleave_3_6_12:
            return f"it is not capable of {ways} ways (3, 6 and 12)"
        if ways == 16 and not capability.interleave_16:
            return "it is not capable of 16 ways"
        shift = granularity.bit_length() - 1
        for bit in range(shift, shift + power.bit_length() - 1):
            if not (
                capability.interleave_11_8 if bit < 12 else capability.interleave_14_12 if bit < 15 else False
            ):
                return f"{ways} ways at {granularity} need address bit {bit}, on which it cannot interleave"
        return ""


_BASE_LOW = PortDecoder.base_low.__layout__.offset
_SIZE_LOW = PortDecoder.size_low.__layout__.offset
_CONTROL = PortDecoder.control.__layout__.offset
_TARGET_LOW = PortDecoder.target_list_low.__layout__.offset


def _wide(at: Registers, low: int) -> int:
    return at.read(low + 4) << 32 | at.read(low)
