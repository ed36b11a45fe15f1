"""What a machine's firmware says of distances: the structures of SRAT and HMAT.

With these a window is a NUMA node of its own, without processors, and the way to a host bridge has a latency and a
bandwidth. To both Linux adds what links, switches and the device's CDAT say, and so comes to a device's QoS class
(drivers/cxl/core/cdat.c).
"""

from __future__ import annotations

from collections.abc import Iterator

from softcxl.lab.plan import GiB, GuestPlan, MiB
from softcxl.spec.acpi.hmat import HmatDataType, LatencyAndBandwidth
from softcxl.spec.acpi.srat import (
    AffinityFlags,
    GenericPortAffinity,
    MemoryAffinity,
    MemoryAffinityFlags,
    ProcessorAffinity,
)

BRIDGE_HID = "ACPI0016"
HOME = 0
"""The proximity domain of all processors and of ordinary memory."""

FIRST_PORT = 100
"""The proximity domain of the first host bridge. Linux numbers windows from the highest domain that has memory or
processors on, so those of ports must lie beyond: there are at most 16 windows."""

RAM_LATENCY, PORT_LATENCY = 100, 20
"""In ns: to ordinary memory, and to a host bridge's root ports."""

RAM_BANDWIDTH, PORT_BANDWIDTH = 128, 64
"""In GB/s, in either direction."""

_NS, _GB = 1000, 1000  # entries' units, in ps and in MB/s
_LOW_GAP = (640 << 10, MiB)


def srat(plan: GuestPlan) -> bytes:
    """The SRAT's structures: each processor, the ranges of ordinary memory, and each host bridge as a port."""
    here = AffinityFlags.make(enabled=True)
    processors = (
        ProcessorAffinity(domain_low=HOME, apic_id=number, flags=here).pack() for number in range(plan.cpus)
    )
    memory = (
        MemoryAffinity(
            domain=HOME, base=start, size=end - start, flags=MemoryAffinityFlags.make(enabled=True)
        ).pack()
        for start, end in _ram(plan.memory)
    )
    ports = (
        GenericPortAffinity(domain=domain, hid=BRIDGE_HID, uid=bridge.bus, flags=here).pack()
        for domain, bridge in enumerate(plan.bridges, FIRST_PORT)
    )
    return b"".join((*processors, *memory, *ports))


def hmat(plan: GuestPlan) -> bytes:
    """The HMAT's structures: latency and bandwidth from the processors to memory and to each host bridge."""
    ports = len(plan.bridges)
    latencies = [RAM_LATENCY, *[PORT_LATENCY] * ports]
    bandwidths = [RAM_BANDWIDTH, *[PORT_BANDWIDTH] * ports]
    return b"".join(
        _distances(kind, unit, entries)
        for kind, unit, entries in (
            (HmatDataType.READ_LATENCY, _NS, latencies),
            (HmatDataType.WRITE_LATENCY, _NS, latencies),
            (HmatDataType.READ_BANDWIDTH, _GB, bandwidths),
            (HmatDataType.WRITE_BANDWIDTH, _GB, bandwidths),
        )
    )


def _distances(kind: HmatDataType, unit: int, entries: list[int]) -> bytes:
    targets = [HOME, *range(FIRST_PORT, FIRST_PORT + len(entries) - 1)]
    record = LatencyAndBandwidth(
        data_type=kind, entry_base_unit=unit, initiators=[HOME], targets=targets, entries=entries
    )
    record.length = len(record.pack())
    return record.pack()


def _ram(memory: int) -> Iterator[tuple[int, int]]:
    """Where q35 puts ordinary memory (hw/i386/pc_q35.c): as far as 2.75 GiB from 0, else 2 GiB, the rest from 4 GiB."""
    low = memory if memory < 0xB0000000 else 2 * GiB
    yield 0, _LOW_GAP[0]
    yield _LOW_GAP[1], low
    if memory > low:
        yield 4 * GiB, 4 * GiB + memory - low
