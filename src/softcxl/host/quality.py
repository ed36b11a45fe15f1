"""QoS classes: which windows suit a device's memory, as ACPI and Linux (drivers/cxl/core/cdat.c) have it.

A platform names a class for a performance (ACPI0017's _DSM, CXL 3.1 §9.18.3); one without a policy of its own names
class 0 always, as QEMU's does, and so does this. A class is kept where a window of that class exists and leads to the
device, and where the SRAT says of the way to its host bridge at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from softcxl.host.port import Endpoint, Root
from softcxl.host.tables import checked
from softcxl.spec.acpi.srat import GenericPortAffinity, Srat, SratType

PLATFORM_CLASS = 0


def generic_ports(tables: Mapping[str, bytes]) -> frozenset[int]:
    """The _UIDs of the host bridges that the SRAT has as generic ports. Raises `TableError` for a damaged one."""
    if "SRAT" not in tables:
        return frozenset()
    structures = Srat.unpack(checked(tables, "SRAT")).structures
    found, offset = set(), 0
    while offset + 2 <= len(structures) and structures[offset + 1] >= 2:
        kind, length = structures[offset], structures[offset + 1]
        if kind == SratType.GENERIC_PORT and length == GenericPortAffinity.__layout__.size:
            found.add(GenericPortAffinity.unpack_from(structures, offset).uid)
        offset += length
    return frozenset(found)


def class_of(root: Root, endpoint: Endpoint, ports: frozenset[int]) -> int | None:
    """The QoS class of a device's memory, None where there is none."""
    bridge = endpoint.bridge
    if bridge.id not in ports:
        return None
    leads = any(bridge in one.targets for one in root.decoders)
    suits = any(one.window.qtg == PLATFORM_CLASS for one in root.decoders)
    return PLATFORM_CLASS if leads and suits else None
