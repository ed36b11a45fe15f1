"""What a switch tells of itself: latency and bandwidth between its ports, in SSLBIS entries of its CDAT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softcxl.device.cdat import Cdat
from softcxl.spec.cxl.cdat import SSLBIS_UPSTREAM_PORT, LatencyBandwidthType, Sslbe, Sslbis

_PS_PER_NS, _MB_PER_GB = 1000, 1000


@dataclass(frozen=True, slots=True)
class SwitchPerformance:
    """Between the upstream port and any downstream port: latency in ns, bandwidth in GB/s."""

    latency: int = 50
    bandwidth: int = 32


def switch_cdat(ports: Sequence[int], performance: SwitchPerformance | None = None) -> Cdat:
    """The table of a switch whose downstream ports have these numbers."""
    told = performance or SwitchPerformance()
    measures = (
        (LatencyBandwidthType.READ_LATENCY, _PS_PER_NS, told.latency),
        (LatencyBandwidthType.WRITE_LATENCY, _PS_PER_NS, told.latency),
        (LatencyBandwidthType.READ_BANDWIDTH, _MB_PER_GB, told.bandwidth),
        (LatencyBandwidthType.WRITE_BANDWIDTH, _MB_PER_GB, told.bandwidth),
    )
    tables = []
    for data_type, unit, value in measures:
        entries = [Sslbe(port_x=SSLBIS_UPSTREAM_PORT, port_y=port, value=value) for port in ports]
        length = Sslbis.__layout__.size + sum(len(entry.pack()) for entry in entries)
        tables.append(
            Sslbis(length=length, data_type=data_type, entry_base_unit=unit, entries=entries).pack()
        )
    return Cdat(tables)
