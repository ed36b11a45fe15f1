"""Real Linux kernels in QEMU over devices that live in this process.

`softcxl.lab.setup` fetches what a guest is made of, `softcxl.boot` makes a guest of a live fabric's host, and
`softcxl.lab.limits` says beforehand what of a topology cannot be one. Below them, `Guest` boots a `GuestPlan` and
runs commands in it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softcxl.lab.boot import Machine
    from softcxl.lab.guest import Guest, Result
    from softcxl.lab.parts import Kernel, Parts, Qemu, Tools
    from softcxl.lab.plan import (
        Bridge,
        BridgeDecoder,
        DownstreamPort,
        Endpoint,
        GuestPlan,
        RootPort,
        Switch,
        Window,
        bus_numbers,
    )
    from softcxl.lab.runtime import runtime_folder, socket_path
    from softcxl.lab.setup import Finding, Status, status

_HOMES = {
    "Bridge": "softcxl.lab.plan",
    "BridgeDecoder": "softcxl.lab.plan",
    "bus_numbers": "softcxl.lab.plan",
    "DownstreamPort": "softcxl.lab.plan",
    "Endpoint": "softcxl.lab.plan",
    "Finding": "softcxl.lab.setup",
    "Guest": "softcxl.lab.guest",
    "GuestPlan": "softcxl.lab.plan",
    "Kernel": "softcxl.lab.parts",
    "Machine": "softcxl.lab.boot",
    "Parts": "softcxl.lab.parts",
    "Qemu": "softcxl.lab.parts",
    "Result": "softcxl.lab.guest",
    "RootPort": "softcxl.lab.plan",
    "runtime_folder": "softcxl.lab.runtime",
    "socket_path": "softcxl.lab.runtime",
    "Status": "softcxl.lab.setup",
    "status": "softcxl.lab.setup",
    "Switch": "softcxl.lab.plan",
    "Tools": "softcxl.lab.parts",
    "Window": "softcxl.lab.plan",
}

__all__ = [
    "Bridge",
    "BridgeDecoder",
    "DownstreamPort",
    "Endpoint",
    "Finding",
    "Guest",
    "GuestPlan",
    "Kernel",
    "Machine",
    "Parts",
    "Qemu",
    "Result",
    "RootPort",
    "Status",
    "Switch",
    "Tools",
    "Window",
    "bus_numbers",
    "runtime_folder",
    "socket_path",
    "status",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `softcxl check` needs `limits` alone."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'softcxl.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
