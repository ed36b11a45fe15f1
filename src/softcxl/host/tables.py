"""ACPI tables as an operating system reads them: checked, and taken apart into what it wants to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from softcxl.host.errors import TableError
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import decode_granularity, decode_ways
from softcxl.memory.xor import apply, maps_for
from softcxl.spec.acpi.cedt import (
    CHBS_LENGTH_COMPONENT,
    CedtStructureHeader,
    CedtType,
    Cfmws,
    Chbs,
    Cxims,
    CxlVersion,
    InterleaveArithmetic,
    WindowRestrictions,
)
from softcxl.spec.acpi.mcfg import Mcfg
from softcxl.spec.acpi.sdt import SdtHeader
from softcxl.wire import WireError

_UNIT = 256 << 20


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """A CFMWS: `size` bytes of host addresses from `base`, interleaved over the bridges whose _UIDs are `targets`.

    `maps` are the XOR maps that it uses, empty for modulo arithmetic (and for 1 and 3 ways, which have none).
    """

    number: int
    base: int
    size: int
    targets: tuple[int, ...]
    granularity: int
    xor: bool
    maps: tuple[int, ...]
    restrictions: WindowRestrictions
    qtg: int

    @property
    def ways(self) -> int:
        return len(self.targets)

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.base + self.size

    def target(self, hpa: int) -> int:
        """The interleave position, an index into `targets`, that an address goes to (CXL 3.1 §9.18.1.3)."""
        return apply(self.maps, hpa) // self.granularity % self.ways


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a CEDT says: the component registers of each bridge by _UID, and the windows in the table's order."""

    bridges: Mapping[int, int]
    windows: tuple[FixedWindow, ...]


def checked(tables: Mapping[str, bytes], signature: str) -> bytes:
    """The table of that signature. Raises `TableError` where it is missing, short, or its checksum is wrong."""
    table = tables.get(signature)
    if table is None:
        raise TableError(f"the firmware has no {signature} table")
    if len(table) < SdtHeader.__layout__.size:
        raise TableError(f"{signature}: {len(table)} bytes are less than a table's header")
    header = SdtHeader.unpack_from(table)
    if header.signature != signature:
        raise TableError(f"{signature}: its signature is {header.signature!r}")
    if not SdtHeader.__layout__.size <= header.length <= len(table):
        raise TableError(f"{signature}: its length field says {header.length} of {len(table)} bytes")
    table = table[: header.length]
    if sum(table) & 0xFF:
        raise TableError(f"{signature}: the bytes add up to {sum(table) & 0xFF:#04x}, not to zero")
    return table


def ecam(tables: Mapping[str, bytes]) -> list[tuple[int, int, int]]:
    """(base, first bus, last bus) of each range of configuration space in segment 0, from the MCFG."""
    try:
        allocations = Mcfg.unpack(checked(tables, "MCFG")).allocations
    except WireError as error:
        raise TableError(f"MCFG: {error}") from None
    return [(one.base, one.start_bus, one.end_bus) for one in allocations if one.segment == 0]


def discover(tables: Mapping[str, bytes]) -> Discovery:
    """What the CEDT says. Raises `TableError`, as an operating system would rather not guess."""
    bridges: dict[int, int] = {}
    maps: dict[int, tuple[int, ...]] = {}
    windows: list[Cfmws] = []
    try:
        for kind, data in _structures(checked(tables, "CEDT")):
            if kind == CedtType.CHBS:
                chbs = Chbs.unpack_from(data)
                if (
                    chbs.cxl_version == CxlVersion.CXL_2_0
                    and chbs.length == CHBS_LENGTH_COMPONENT
                    and chbs.base
                ):
                    bridges.setdefault(chbs.uid, chbs.base)
            elif kind == CedtType.CXIMS:
                cxims = Cxims.unpack_from(data)
                maps[decode_granularity(cxims.granularity)] = tuple(cxims.maps)
            elif kind == CedtType.CFMWS:
                windows.append(Cfmws.unpack(data))
    except (WireError, GeometryError) as error:
        raise TableError(f"CEDT: {error}") from None
    return Discovery(bridges, tuple(_window(number, one, maps) for number, one in enumerate(windows)))


def _structures(table: bytes) -> Iterator[tuple[int, bytes]]:
    offset = SdtHeader.__layout__.size
    while offset < len(table):
        header = CedtStructureHeader.unpack_from(table, offset)
        if not CedtStructureHeader.__layout__.size <= header.record_length <= len(table) - offset:
            raise TableError(f"CEDT: the structure at {offset:#x} has a length of {header.record_length:#x}")
        yield header.type, table[offset : offset + header.record_length]
        offset += header.record_length


def _window(number: int, given: Cfmws, maps: Mapping[int, tuple[int, ...]]) -> FixedWindow:
    where = f"CEDT: window {number} at {given.base_hpa:#x}"
    try:
        ways, granularity = decode_ways(given.interleave_ways), decode_granularity(given.granularity)
        if given.interleave_arithmetic not in list(InterleaveArithmetic):
            raise TableError(f"{where}: interleave arithmetic {given.interleave_arithmetic} is unknown")
        xor = given.interleave_arithmetic == InterleaveArithmetic.XOR
        used = maps_for(ways, maps.get(granularity, ())) if xor else ()
    except GeometryError as error:
        raise TableError(f"{where}: {error}") from None
    if ways != len(given.targets):
        raise TableError(f"{where}: {ways} ways, and {len(given.targets)} targets")
    if given.base_hpa % _UNIT or not given.window_size or given.window_size % (_UNIT * ways):
        raise TableError(
            f"{where}: {given.window_size:#x} bytes are not aligned to 256 MiB for each of {ways} targets"
        )
    # With one way the granularity says nothing, and a region may have any.
    return FixedWindow(
        number=number,
        base=given.base_hpa,
        size=given.window_size,
        targets=tuple(given.targets),
        granularity=granularity if ways > 1 else 256,
        xor=xor,
        maps=used,
        restrictions=given.restrictions,
        qtg=given.qtg_id,
    )
