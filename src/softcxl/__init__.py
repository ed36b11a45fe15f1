"""SoftCXL: a CXL fabric in software.

>>> import softcxl
>>> with softcxl.Fabric.loads('''
... devices: {mem0: {volatile: 256MiB}}
... ''') as fabric:
...     fabric.devices["mem0"].capacity.total
268435456

`Fabric` makes a topology live, `boot` starts Linux over it, `connect` goes to a pool of memory, `Type3` and `command`
are what a device of one's own is made with. Everything else is in the packages below, each with one job;
`docs/architecture.md` has the map.
"""

from __future__ import annotations

# As type checkers take it; what is imported here everybody waits for, whatever of this he wants
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from softcxl.device.cci import Background, CommandError, CommandSet, command
    from softcxl.device.type3 import Type3
    from softcxl.fabric.build import Fabric
    from softcxl.fabric.errors import SoftCXLError
    from softcxl.fabric.topology import Topology, load, loads
    from softcxl.lab.boot import boot
    from softcxl.pool.session import connect

_HOMES = {
    "Background": "softcxl.device.cci",
    "CommandError": "softcxl.device.cci",
    "CommandSet": "softcxl.device.cci",
    "Fabric": "softcxl.fabric.build",
    "SoftCXLError": "softcxl.fabric.errors",
    "Topology": "softcxl.fabric.topology",
    "Type3": "softcxl.device.type3",
    "boot": "softcxl.lab.boot",
    "command": "softcxl.device.cci",
    "connect": "softcxl.pool.session",
    "load": "softcxl.fabric.topology",
    "loads": "softcxl.fabric.topology",
}

__all__ = [
    "Background",
    "CommandError",
    "CommandSet",
    "Fabric",
    "SoftCXLError",
    "Topology",
    "Type3",
    "__version__",
    "boot",
    "command",
    "connect",
    "load",
    "loads",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that the command line starts fast."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'softcxl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
