"""The Coherent Device Attribute Table, made from what the device is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from softcxl.device.capacity import Capacity
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.spec.cxl.cdat import (
    LAST_ENTRY,
    CdatHeader,
    Dsemts,
    Dslbis,
    Dsmas,
    DsmasFlags,
    EfiMemoryType,
    LatencyBandwidthType,
    ReadEntryRequest,
    ReadEntryResponse,
)
from softcxl.wire import WireError

_PS_PER_NS, _MB_PER_GB = 1000, 1000


@dataclass(frozen=True, slots=True)
class Performance:
    """What the device says of its memory: latencies in ns, bandwidths in GB/s."""

    read_latency: int = 150
    write_latency: int = 250
    read_bandwidth: int = 32
    write_bandwidth: int = 16


class Cdat:
    """A table of `entries`, and the DOE protocol that reads it (CXL 3.1 §8.1.11)."""

    def __init__(self, entries: Sequence[bytes] = ()) -> None:
        self._sequence = 0
        self.publish(entries)

    def publish(self, entries: Sequence[bytes]) -> None:
        """Make the table anew; its sequence number tells that it is another one."""
        length = CdatHeader.__layout__.size + sum(map(len, entries))
        header = CdatHeader(length=length, revision=2, checksum=0, sequence=self._sequence)
        header.checksum = -sum(header.pack() + b"".join(entries)) % 256
        self.entries = [header.pack(), *entries]
        self._sequence += 1

    def exchange(self, body: bytes) -> bytes | None:
        """Answer one Table Access request; None, which is no response, to one that asks for what is not there."""
        try:
            request = ReadEntryRequest.unpack(body)
        except WireError:
            return None
        handle = request.entry_handle
        if request.request_code or request.table_type or handle >= len(self.entries):
            return None
        following = handle + 1 if handle + 1 < len(self.entries) else LAST_ENTRY
        return ReadEntryResponse(entry_handle=following, entry=self.entries[handle]).pack()


class CdatTable(Cdat):
    """The table of a device with `capacity`, and dynamic capacity in `regions`."""

    def __init__(
        self,
        capacity: Capacity,
        regions: Sequence[DynamicRegion] = (),
        performance: Performance | None = None,
    ) -> None:
        self.performance = performance or Performance()
        self.regions = tuple(regions)
        super().__init__(self._entries(capacity))

    def build(self, capacity: Capacity) -> None:
        """Make the table anew, for another capacity or other `regions`."""
        self.publish(self._entries(capacity))

    def _entries(self, capacity: Capacity) -> list[bytes]:
        entries: list[bytes] = []
        parts = (
            (0, capacity.volatile, False),
            (capacity.volatile, capacity.persistent, True),
        )
        for handle, (base, size, persistent) in enumerate(part for part in parts if part[1]):
            entries += _range(
                handle, base, size, int(DsmasFlags.make(non_volatile=persistent)), self.performance
            )
        for one in self.regions:
            entries += _range(one.handle, one.base, one.length, int(one.attributes), self.performance)
        return entries


@lru_cache(maxsize=1024)
def _range(handle: int, base: int, size: int, flags: int, told: Performance) -> tuple[bytes, ...]:
    """The entries of one range; devices of one kind all have the same."""
    properties = DsmasFlags(flags)
    kind = EfiMemoryType.RESERVED if properties.non_volatile else EfiMemoryType.SPECIFIC_PURPOSE
    measures = (
        (LatencyBandwidthType.READ_LATENCY, _PS_PER_NS, told.read_latency),
        (LatencyBandwidthType.WRITE_LATENCY, _PS_PER_NS, told.write_latency),
        (LatencyBandwidthType.READ_BANDWIDTH, _MB_PER_GB, told.read_bandwidth),
        (LatencyBandwidthType.WRITE_BANDWIDTH, _MB_PER_GB, told.write_bandwidth),
    )
    return (
        Dsmas(handle=handle, flags=properties, dpa_base=base, dpa_length=size).pack(),
        *(
            Dslbis(handle=handle, data_type=data_type, entry_base_unit=unit, entry0=value).pack()
            for data_type, unit, value in measures
        ),
        Dsemts(handle=handle, memory_type=kind, dpa_offset=0, dpa_length=size).pack(),
    )
