"""The topology file: which devices, switches and hosts there are, and who is plugged into what.

`load` reads a YAML file, `loads` a string, `validate` takes a `Topology` made in Python; each returns a
`Topology` that holds, with the defaults filled in, or raises `TopologyError` with every problem found.

>>> fabric = loads('''
... devices: {mem0: {volatile: 256MiB}}
... hosts: {alpha: {bridges: {hb0: {ports: [mem0]}}}}
... ''')
>>> fabric.devices["mem0"].volatile
268435456
>>> loads("devices: {mem0: {volatile: 100MiB}}")  # doctest: +ELLIPSIS
Traceback (most recent call last):
softcxl.fabric.errors.TopologyError: <topology>:1:28: devices.mem0.volatile: 100MiB is not ...
"""

from __future__ import annotations

from pathlib import Path

from msgspec import inspect

from softcxl.fabric import limits, pool_rules, regions, rules
from softcxl.fabric.errors import Problem, TopologyError
from softcxl.fabric.keys import (
    Bridge,
    FirmwareRegion,
    Host,
    LogicalDevice,
    MultiLogicalDevice,
    Pool,
    PoolAccess,
    PoolMemory,
    Switch,
    SwitchCci,
    Topology,
    Type3,
    VirtualSwitch,
    Window,
)
from softcxl.fabric.reader import Reader

__all__ = [
    "Bridge",
    "FirmwareRegion",
    "Host",
    "LogicalDevice",
    "MultiLogicalDevice",
    "Pool",
    "PoolAccess",
    "PoolMemory",
    "Problem",
    "Switch",
    "SwitchCci",
    "Topology",
    "TopologyError",
    "Type3",
    "VirtualSwitch",
    "Window",
    "load",
    "loads",
    "validate",
]


def load(path: str | Path) -> Topology:
    """The topology in the file `path`. TopologyError also where the file cannot be read."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TopologyError([Problem(str(path), 0, 0, "", f"cannot be read: {reason}")]) from error
    return loads(text, str(path), path.parent)


def loads(text: str | bytes, name: str = "<topology>", folder: str | Path = ".") -> Topology:
    """The topology in `text`; `name` stands for the file in messages, relative paths start at `folder`."""
    reader = Reader(name)
    topology = reader.read(text, Topology)
    if topology is None:
        raise TopologyError(reader.problems)
    return _settled(topology, reader, Path(folder), trusted=True)


def validate(topology: Topology, name: str = "<topology>", folder: str | Path = ".") -> Topology:
    """`topology` made in Python, checked as a file would be, with the defaults filled in."""
    return _settled(topology, Reader(name), Path(folder), trusted=False)


def _settled(topology: Topology, reader: Reader, folder: Path, trusted: bool) -> Topology:
    """`trusted`: the Python types are right, as a reader's always are, whatever the values."""
    reader.judge(limits.faults(topology, inspect.type_info(Topology)))
    if trusted or not reader.problems:
        # One after the other: a rule keeps silent about what an earlier one found fault with.
        for rule in (rules.devices, rules.ports, rules.windows, regions.regions, pool_rules.pool):
            reader.judge(rule(topology))
    if reader.problems:
        raise TopologyError(reader.problems)
    return rules.filled(topology, folder.absolute())
