"""Global Persistent Flush (CXL 3.1 §9.8): power fails, and who holds data that must stay has some time to save them.

A Type 3 device has nothing to do in phase 1, which is for caches. In phase 2 it saves what is on its way to the media;
each port above waits as long as software has told it to, and then goes on with the power off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from softcxl.device.type3 import Type3
from softcxl.spec.cxl.dvsec import GpfPhase2Duration
from softcxl.spec.cxl.port import GpfPhaseControl
from softcxl.switch.port import CxlLink
from softcxl.switch.upstream import UpstreamPort

_UNITS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Seconds of each `TimeScale`."""


def flush(port: CxlLink, allowed: float = math.inf) -> Iterator[Type3]:
    """Phase 2 at a port and all below it, of which those above wait `allowed` seconds: the devices that are too late.

    Each has its dirty shutdown counted, if its state was dirty.
    """
    if port.cxl is None or port.cxl.gpf is None:
        return
    allowed = min(allowed, _timeout(port.cxl.gpf.phase2_control))
    below = port.beyond
    if isinstance(below, UpstreamPort):
        for other in below.ports.values():
            yield from flush(other, allowed)
    elif isinstance(below, Type3) and _duration(below.gpf.phase2_duration) > allowed:
        below.shutdown.power_lost(saved=False)
        yield below


def _timeout(control: GpfPhaseControl) -> float:
    return control.timeout_base * _seconds(control.timeout_scale)


def _duration(duration: GpfPhase2Duration) -> float:
    return duration.time_base * _seconds(duration.time_scale)


def _seconds(scale: int) -> float:
    """Of one unit; scales that the standard keeps for later have no time."""
    return _UNITS[scale] if scale < len(_UNITS) else 0.0
