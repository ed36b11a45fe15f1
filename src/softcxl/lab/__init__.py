"""Real Linux kernels in QEMU over devices that live in this process.

`setup` fetches what a guest is made of, `status` says what is there; `boot` makes a guest of a live fabric's host.
Below it, `Guest` boots a `GuestPlan` and runs commands in it.
"""

from softcxl.lab.boot import Machine, boot
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
from softcxl.lab.setup import Finding, Status, setup, status

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
    "boot",
    "bus_numbers",
    "runtime_folder",
    "setup",
    "socket_path",
    "status",
]
