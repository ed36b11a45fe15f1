"""The ACPI tables that a machine's firmware hands to its operating system, as bytes.

>>> bridge = Bridge(uid=7, bus=0x40, registers=0xFE00_0000)
>>> window = Window(base=4 << 30, size=1 << 30, targets=(7,))
>>> made = tables([bridge], [window], ecam=0xB000_0000)
>>> sorted(made), sum(made["CEDT"]) % 256
(['CEDT', 'HMAT', 'MCFG', 'SRAT'], 0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softcxl.host.errors import TableError
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import encode_granularity, encode_ways
from softcxl.memory.xor import maps_for
from softcxl.spec.acpi.cedt import Cedt, Cfmws, Chbs, Cxims, InterleaveArithmetic, WindowRestrictions
from softcxl.spec.acpi.hmat import Hmat, HmatDataType, LatencyAndBandwidth
from softcxl.spec.acpi.mcfg import Mcfg, McfgAllocation
from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.spec.acpi.srat import (
    AffinityFlags,
    GenericPortAffinity,
    MemoryAffinity,
    MemoryAffinityFlags,
    ProcessorAffinity,
    Srat,
)

UNIT = 256 << 20
"""Windows begin and end at multiples of 256 MiB (CXL 3.1 §9.18.1.3)."""

BRIDGE_HID = "ACPI0016"
VOLATILE_AND_PERSISTENT = WindowRestrictions.make(host_only=True, volatile=True, persistent=True)

HOME = 0
"""The proximity domain of all processors and of ordinary memory."""

FIRST_PORT = 100
"""The proximity domain of the first host bridge. Operating systems number windows from the highest domain that has
memory or processors on; those of ports lie beyond."""

RAM_LATENCY, PORT_LATENCY = 100, 20
"""In ns: to ordinary memory, and to a host bridge's root ports."""

RAM_BANDWIDTH, PORT_BANDWIDTH = 128, 64
"""In GB/s, in either direction."""

_PS_IN_NS, _MB_IN_GB = 1000, 1000


@dataclass(frozen=True, slots=True)
class Bridge:
    """A CXL host bridge: its _UID, the root bus below it, and where its component registers are (CHBCR)."""

    uid: int
    bus: int
    registers: int


@dataclass(frozen=True, slots=True)
class Window:
    """A fixed memory window: `size` bytes from `base`, dealt out to the bridges whose _UIDs are `targets`.

    `granularity` is in bytes. With `xor` arithmetic `maps` are its XOR maps, the lowest position bit first.
    """

    base: int
    size: int
    targets: tuple[int, ...]
    granularity: int = 256
    xor: bool = False
    maps: tuple[int, ...] = ()
    restrictions: int = int(VOLATILE_AND_PERSISTENT)
    qtg: int = 0


def tables(
    bridges: Sequence[Bridge],
    windows: Sequence[Window],
    *,
    ecam: int,
    memory: Sequence[tuple[int, int]] = ((0, 1 << 30),),
    cpus: int = 1,
) -> dict[str, bytes]:
    """All tables of a machine, by signature. `memory` are the (base, size) ranges of its ordinary RAM."""
    return {
        "MCFG": mcfg(ecam),
        "CEDT": cedt(bridges, windows),
        "SRAT": srat(bridges, memory, cpus),
        "HMAT": hmat(bridges),
    }


def mcfg(base: int, start_bus: int = 0, end_bus: int = 255) -> bytes:
    """The MCFG of one segment, whose ECAM begins at `base`."""
    allocation = McfgAllocation(base=base, start_bus=start_bus, end_bus=end_bus)
    return seal(Mcfg(header=_header("MCFG", 1), allocations=[allocation]).pack())


def cedt(bridges: Sequence[Bridge], windows: Sequence[Window]) -> bytes:
    """The CEDT (CXL 3.1 §9.18.1): a CHBS for each bridge, a CXIMS for each granularity of an XOR window, a CFMWS
    for each window. Raises `TableError` for a window that cannot be said in one, or contradicts another."""
    for number, window in enumerate(windows):
        _check(number, window, bridges, windows[:number])
    structures = [Chbs(uid=bridge.uid, base=bridge.registers).pack() for bridge in bridges]
    structures += [_cxims(granularity, maps) for granularity, maps in _maps(windows).items()]
    structures += [_cfmws(window) for window in windows]
    return seal(Cedt(header=_header("CEDT", 1), structures=b"".join(structures)).pack())


def srat(bridges: Sequence[Bridge], memory: Sequence[tuple[int, int]], cpus: int) -> bytes:
    """The SRAT (ACPI 6.5 §5.2.16): processors, ordinary memory, and each host bridge as a generic port."""
    here = AffinityFlags.make(enabled=True)
    structures = [ProcessorAffinity(domain_low=HOME, apic_id=one, flags=here).pack() for one in range(cpus)]
    structures += [
        MemoryAffinity(domain=HOME, base=base, size=size, flags=MemoryAffinityFlags.make(enabled=True)).pack()
        for base, size in memory
    ]
    structures += [
        GenericPortAffinity(domain=domain, hid=BRIDGE_HID, uid=bridge.uid, flags=here).pack()
        for domain, bridge in enumerate(bridges, FIRST_PORT)
    ]
    return seal(Srat(header=_header("SRAT", 3), structures=b"".join(structures)).pack())


def hmat(bridges: Sequence[Bridge]) -> bytes:
    """The HMAT (ACPI 6.5 §5.2.28): latency and bandwidth from the processors to memory and to each bridge."""
    latencies = [RAM_LATENCY, *[PORT_LATENCY] * len(bridges)]
    bandwidths = [RAM_BANDWIDTH, *[PORT_BANDWIDTH] * len(bridges)]
    structures = [
        _distances(kind, unit, entries)
        for kind, unit, entries in (
            (HmatDataType.READ_LATENCY, _PS_IN_NS, latencies),
            (HmatDataType.WRITE_LATENCY, _PS_IN_NS, latencies),
            (HmatDataType.READ_BANDWIDTH, _MB_IN_GB, bandwidths),
            (HmatDataType.WRITE_BANDWIDTH, _MB_IN_GB, bandwidths),
        )
    ]
    return seal(Hmat(header=_header("HMAT", 2), structures=b"".join(structures)).pack())


def seal(table: bytes) -> bytes:
    """A table with its length and checksum filled in."""
    size = SdtHeader.__layout__.size
    header = SdtHeader.unpack_from(table).replace(length=len(table), checksum=0)
    header.checksum = -sum(header.pack() + table[size:]) & 0xFF
    return header.pack() + table[size:]


def _header(signature: str, revision: int) -> SdtHeader:
    return SdtHeader(
        signature=signature,
        revision=revision,
        oem_id="SCXL",
        oem_table_id="SOFTCXL",
        oem_revision=1,
        creator_id="SCXL",
        creator_revision=1,
    )


def _check(number: int, window: Window, bridges: Sequence[Bridge], before: Sequence[Window]) -> None:
    where, ways = f"window {number}", len(window.targets)
    known = {bridge.uid for bridge in bridges}
    for uid in window.targets:
        if uid not in known:
            raise TableError(
                f"{where}: no host bridge has _UID {uid}; there are {', '.join(map(str, sorted(known))) or 'none'}"
            )
    try:
        encode_ways(ways)
        encode_granularity(window.granularity)
    except GeometryError as error:
        raise TableError(f"{where}: {error}") from None
    if window.base % UNIT:
        raise TableError(f"{where}: its base {window.base:#x} is not a multiple of 256 MiB")
    if window.size <= 0 or window.size % (UNIT * ways):
        raise TableError(f"{where}: its size {window.size:#x} is not a multiple of {ways} x 256 MiB")
    for index, other in enumerate(before):
        if window.base < other.base + other.size and other.base < window.base + window.size:
            raise TableError(f"{where} at {window.base:#x} overlaps window {index} at {other.base:#x}")


def _cfmws(window: Window) -> bytes:
    return Cfmws(
        record_length=Cfmws.__layout__.size + 4 * len(window.targets),
        base_hpa=window.base,
        window_size=window.size,
        interleave_ways=encode_ways(len(window.targets)),
        interleave_arithmetic=InterleaveArithmetic.XOR if window.xor else InterleaveArithmetic.MODULO,
        granularity=encode_granularity(window.granularity),
        restrictions=WindowRestrictions(window.restrictions),
        qtg_id=window.qtg,
        targets=list(window.targets),
    ).pack()


def _cxims(granularity: int, maps: tuple[int, ...]) -> bytes:
    return Cxims(
        record_length=Cxims.__layout__.size + 8 * len(maps),
        granularity=encode_granularity(granularity),
        map_count=len(maps),
        maps=list(maps),
    ).pack()


def _maps(windows: Sequence[Window]) -> dict[int, tuple[int, ...]]:
    """The maps to declare, by granularity. A window finds its CXIMS by granularity alone, so two must agree."""
    declared: dict[int, tuple[int, ...]] = {}
    for number, window in enumerate(windows):
        if not window.xor:
            continue
        try:
            maps_for(len(window.targets), window.maps)
        except GeometryError as error:
            raise TableError(f"window {number}: {error}") from None
        if not window.maps:
            continue
        shorter, longer = sorted((declared.get(window.granularity, ()), window.maps), key=len)
        if longer[: len(shorter)] != shorter:
            raise TableError(
                f"window {number} has other XOR maps than an earlier one of the same granularity,"
                f" {window.granularity}: a CXIMS is found by granularity only"
            )
        declared[window.granularity] = longer
    return declared


def _distances(kind: HmatDataType, unit: int, entries: list[int]) -> bytes:
    record = LatencyAndBandwidth(
        data_type=kind,
        entry_base_unit=unit,
        initiators=[HOME],
        targets=[HOME, *range(FIRST_PORT, FIRST_PORT + len(entries) - 1)],
        entries=entries,
    )
    record.length = len(record.pack())
    return record.pack()
