"""Viral, as it goes from link to link (CXL 3.1 §12.4): what may hold bad data is told, and told of, before they spread.

A port passes it on where its Viral Enable is set, and notes it in its status: up to the root port, and from a switch's
upstream port down to all that is below. What the host does then is its own affair.
"""

from __future__ import annotations

from softcxl.device.endpoint import Endpoint
from softcxl.pci.function import Function
from softcxl.switch.port import CxlLink
from softcxl.switch.upstream import UpstreamPort


def rise(function: Function) -> None:
    """What is at the lower end of a link has become viral: those above hear of it, and all below them."""
    port = _above(function)
    if not isinstance(port, CxlLink) or port.cxl is None or not port.cxl.take_viral():
        return
    upstream = _above(port)
    if isinstance(upstream, UpstreamPort) and upstream.cxl.take_viral():
        for other in upstream.ports.values():
            if other is not port:
                sink(other)
        rise(upstream)


def sink(port: CxlLink) -> None:
    """A port has heard of it from above: what is below hears of it, too."""
    if port.cxl is None or not port.cxl.take_viral():
        return
    below = port.beyond
    if isinstance(below, Endpoint):
        below.enter_viral(told=True)
    elif isinstance(below, UpstreamPort) and below.cxl.take_viral():
        for other in below.ports.values():
            sink(other)


def enable(port: CxlLink) -> None:
    """Set Viral Enable in a port and in all below it that is capable, as platform firmware does."""
    if port.cxl is not None:
        port.cxl.extensions.control.viral_enable = True
    below = port.beyond
    if isinstance(below, Endpoint):
        below.dvsec.control.viral_enable = True
    elif isinstance(below, UpstreamPort):
        below.cxl.extensions.control.viral_enable = True
        for other in below.ports.values():
            enable(other)


def _above(function: Function) -> Function | None:
    return None if function.seat is None else function.seat.bus.bridge
