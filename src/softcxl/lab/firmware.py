"""What a machine's firmware leaves for the kernel: ACPI tables of CXL and of distances, and programmed decoders.

QEMU writes a CEDT of its own, for windows of its own, and an SRAT in which our windows are nothing but more RAM. The
guest's kernel takes ours instead, from an uncompressed cpio archive before the initramfs (Linux
Documentation/admin-guide/acpi/initrd_table_override.rst, CONFIG_ACPI_TABLE_UPGRADE): they have the same OEM ids and a
higher revision.
"""

from __future__ import annotations

from dataclasses import dataclass

from softcxl.fabric.layout import device_memory_base
from softcxl.lab import affinity, cpio
from softcxl.lab.errors import MonitorError, PlanError
from softcxl.lab.plan import BridgeDecoder, GiB, GuestPlan, Window
from softcxl.lab.qtest import Qtest
from softcxl.memory.interleave import encode_granularity, encode_ways
from softcxl.spec.acpi.cedt import Cedt, Cfmws, Chbs, Cxims, InterleaveArithmetic, WindowRestrictions
from softcxl.spec.acpi.hmat import Hmat
from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.spec.acpi.srat import Srat
from softcxl.spec.cxl.component import (
    CACHE_MEM_OFFSET,
    COMPONENT_BLOCK_SIZE,
    ComponentCapabilityHeader,
    ComponentCapabilityId,
    CxlCapabilityHeader,
)
from softcxl.spec.cxl.hdm import DECODER_OFFSET, DECODER_STRIDE, DecoderControl, HdmGlobalControl

TABLE_FOLDER = "kernel/firmware/acpi"
_QEMU_REVISION = 1
_BASE_LOW, _BASE_HIGH, _SIZE_LOW, _SIZE_HIGH, _CONTROL, _TARGETS_LOW, _TARGETS_HIGH = range(0, 0x1C, 4)


def tables(plan: GuestPlan) -> bytes:
    """The cpio archive with the plan's CEDT, SRAT and HMAT; empty for one without bridges. Raises PlanError."""
    if not plan.bridges:
        return b""
    names = TABLE_FOLDER.split("/")
    folders = [cpio.directory("/".join(names[: depth + 1])) for depth in range(len(names))]
    made = {"cedt": cedt(plan), "srat": srat(plan), "hmat": hmat(plan)}
    return cpio.archive(
        [*folders, *(cpio.file(f"{TABLE_FOLDER}/{name}.aml", table) for name, table in made.items())]
    )


def bridge_registers(plan: GuestPlan) -> dict[int, int]:
    """Where each bridge's component registers are, by bus: guest physical addresses of 64 KiB blocks.

    QEMU puts them after the area for memory devices, in the reverse of the command line's order, because it walks a
    list that grows at its head (hw/i386/pc.c, hw/cxl/cxl-host.c). Seen in Linux for one to four bridges.
    """
    base = device_memory_base(plan.memory)
    if plan.windows:
        # QEMU allows for aligning every DIMM to 1 GiB
        base = max(window.base + window.size for window in plan.windows) + plan.slots * GiB
    order = reversed(plan.bridges)
    return {bridge.bus: base + index * COMPONENT_BLOCK_SIZE for index, bridge in enumerate(order)}


def cedt(plan: GuestPlan) -> bytes:
    """The table's bytes (CXL 3.1 §9.18.1): a CHBS for each bridge, CXIMS, and a CFMWS for each window."""
    blocks = bridge_registers(plan)
    structures = b"".join(Chbs(uid=bridge.bus, base=blocks[bridge.bus]).pack() for bridge in plan.bridges)
    structures += b"".join(_cxims(granularity, maps) for granularity, maps in _xor_maps(plan).items())
    structures += b"".join(_cfmws(window) for window in plan.windows)
    return _summed(Cedt(header=_header("CEDT", 1), structures=structures).pack())


def srat(plan: GuestPlan) -> bytes:
    """The table's bytes (ACPI 6.5 §5.2.16): what is near what, see `softcxl.lab.affinity`."""
    return _summed(Srat(header=_header("SRAT", 3), structures=affinity.srat(plan)).pack())


def hmat(plan: GuestPlan) -> bytes:
    """The table's bytes (ACPI 6.5 §5.2.28): how far what is, see `softcxl.lab.affinity`."""
    return _summed(Hmat(header=_header("HMAT", 2), structures=affinity.hmat(plan)).pack())


def _header(signature: str, revision: int) -> SdtHeader:
    # Linux takes a table for QEMU's if the ids are QEMU's, and the one with the higher revision wins
    return SdtHeader(
        signature=signature,
        revision=revision,
        oem_id="BOCHS ",
        oem_table_id="BXPC    ",
        oem_revision=_QEMU_REVISION + 1,
        creator_id="SCXL",
        creator_revision=1,
    )


def _summed(table: bytes) -> bytes:
    """A table with its length and checksum filled in."""
    header = SdtHeader.unpack_from(table, 0)
    header.length = len(table)
    header.checksum = -sum(header.pack() + table[SdtHeader.__layout__.size :]) & 0xFF
    return header.pack() + table[SdtHeader.__layout__.size :]


def program(qtest: Qtest, plan: GuestPlan) -> None:
    """Write and commit the plan's host-bridge decoders, while the processors are stopped. Raises MonitorError."""
    blocks = bridge_registers(plan)
    used: dict[int, int] = {}
    for decoder in plan.decoders:
        index = used.get(decoder.bridge, 0)
        used[decoder.bridge] = index + 1
        _commit(_Decoders.find(qtest, blocks[decoder.bridge]), index, decoder)


@dataclass(frozen=True)
class _Decoders:
    """A component's HDM decoder capability, found through its capability array."""

    qtest: Qtest
    base: int

    @classmethod
    def find(cls, qtest: Qtest, block: int) -> _Decoders:
        array = block + CACHE_MEM_OFFSET
        count = CxlCapabilityHeader(qtest.read32(array)).array_size
        for entry in range(1, count + 1):
            header = ComponentCapabilityHeader(qtest.read32(array + 4 * entry))
            if header.capability_id == ComponentCapabilityId.HDM_DECODER:
                return cls(qtest, array + header.pointer)
        raise MonitorError(f"The host bridge whose registers are at {block:#x} has no HDM decoders.")


def _commit(decoders: _Decoders, index: int, decoder: BridgeDecoder) -> None:
    qtest = decoders.qtest
    at = decoders.base + DECODER_OFFSET + index * DECODER_STRIDE
    targets = int.from_bytes(bytes(decoder.ports), "little")
    control = DecoderControl.make(
        interleave_granularity=encode_granularity(decoder.granularity),
        interleave_ways=encode_ways(len(decoder.ports)),
        lock_on_commit=decoder.lock,
        commit=True,
        host_only=True,
    )
    qtest.write32(decoders.base + 4, int(HdmGlobalControl.make(hdm_decoder_enable=True)))
    for offset, value in (
        (_BASE_LOW, decoder.base),
        (_BASE_HIGH, decoder.base >> 32),
        (_SIZE_LOW, decoder.size),
        (_SIZE_HIGH, decoder.size >> 32),
        (_TARGETS_LOW, targets),
        (_TARGETS_HIGH, targets >> 32),
        (_CONTROL, int(control)),
    ):
        qtest.write32(at + offset, value)
    if not DecoderControl(qtest.read32(at + _CONTROL)).committed:
        raise MonitorError(f"The decoder {index} of the bridge on bus {decoder.bridge} did not commit.")


def _cfmws(window: Window) -> bytes:
    record = Cfmws(
        record_length=Cfmws.__layout__.size + 4 * len(window.targets),
        base_hpa=window.base,
        window_size=window.size,
        interleave_ways=encode_ways(len(window.targets)),
        interleave_arithmetic=window.arithmetic,
        granularity=encode_granularity(window.granularity),
        restrictions=WindowRestrictions(window.restrictions),
        qtg_id=window.qtg,
        targets=list(window.targets),
    )
    return record.pack()


def _cxims(granularity: int, maps: tuple[int, ...]) -> bytes:
    record = Cxims(
        record_length=Cxims.__layout__.size + 8 * len(maps),
        granularity=encode_granularity(granularity),
        map_count=len(maps),
        maps=list(maps),
    )
    return record.pack()


def _xor_maps(plan: GuestPlan) -> dict[int, tuple[int, ...]]:
    """The maps to declare, by granularity. A window finds its CXIMS by granularity alone, so two must agree."""
    declared: dict[int, tuple[int, ...]] = {}
    for window in plan.windows:
        if window.arithmetic != InterleaveArithmetic.XOR or not window.xor_maps:
            continue
        known = declared.get(window.granularity, ())
        shorter, longer = sorted((known, window.xor_maps), key=len)
        if longer[: len(shorter)] != shorter:
            raise PlanError(
                f"{plan.name}: the window {window.name} has other XOR maps than an earlier one of the same granularity,"
                f" {window.granularity}; ACPI tells them apart by granularity only."
            )
        declared[window.granularity] = longer
    return declared
