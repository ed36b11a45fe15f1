"""/sys/devices/system/memory and node: CXL memory that is system RAM, by blocks and by NUMA node.

The host's own memory is not here: a host in this process has none to speak of.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from softcxl.host.blocks import BLOCK_SIZE, ZONES, MemoryBlock, NumaNode
from softcxl.host.errors import BusyError
from softcxl.host.sysfs.node import BOTH, Attribute, Directory, Entry, Link, SysfsError, boolean, value

if TYPE_CHECKING:
    from softcxl.host.system import System

_MEMORY, _NODE = "devices/system/memory", "devices/system/node"


def _blocks(system: System) -> list[MemoryBlock]:
    return [block for one in system.numa_nodes for block in one.blocks]


def memory_bus(system: System) -> Directory:
    """/sys/bus/memory."""
    return Directory(
        lambda: {
            "devices": Directory(lambda: {one.name: Link(f"{_MEMORY}/{one.name}") for one in _blocks(system)})
        }
    )


def node_bus(system: System) -> Directory:
    """/sys/bus/node."""
    return Directory(
        lambda: {
            "devices": Directory(lambda: {one.name: Link(f"{_NODE}/{one.name}") for one in system.numa_nodes})
        }
    )


def memory(system: System) -> Directory:
    """/sys/devices/system/memory (Linux drivers/base/memory.c)."""

    def entries() -> Mapping[str, Entry]:
        blocks = _blocks(system)
        return {
            "auto_online_blocks": value("offline"),
            "block_size_bytes": value(f"{blocks[0].size if blocks else BLOCK_SIZE:x}"),
            **{one.name: _block(one) for one in blocks},
        }

    return Directory(entries)


def _block(block: MemoryBlock) -> Directory:
    node = f"node{block.region.target_node}"
    return Directory(
        lambda: {
            node: Link(f"{_NODE}/{node}"),
            "online": Attribute(lambda: str(int(bool(block.zone))), _online(block), BOTH),
            "phys_device": value(0),
            "phys_index": value(f"{block.number:08x}"),
            "removable": value(1),
            "state": Attribute(lambda: block.state, _state(block), BOTH),
            "subsystem": Link("bus/memory"),
            "uevent": Attribute(lambda: "", mode=BOTH),
            "valid_zones": value(block.zone or "Normal Movable"),
        },
        device=True,
    )


def _online(block: MemoryBlock) -> Callable[[str], None]:
    return lambda text: _change(block, "online" if boolean(text) else "offline")


def _state(block: MemoryBlock) -> Callable[[str], None]:
    return lambda text: _change(block, text.strip())


def _change(block: MemoryBlock, wish: str) -> None:
    if wish != "offline" and wish not in ZONES:
        raise SysfsError(errno.EINVAL, f"{wish!r} is none of offline, {', '.join(ZONES)}")
    if (wish == "offline") == (not block.zone):
        # the driver core says that nothing was to be done, and the memory code makes that an error
        raise SysfsError(errno.EINVAL, f"{block.name} is {block.state}")
    try:
        if wish == "offline":
            block.offline()
        else:
            block.online(wish)
    except BusyError as error:
        raise SysfsError(errno.EBUSY, str(error)) from None


def nodes(system: System) -> Directory:
    """/sys/devices/system/node (Linux drivers/base/node.c)."""

    def entries() -> Mapping[str, Entry]:
        found = system.numa_nodes
        there = [0, *(one.number for one in found)]
        with_memory = [0, *(one.number for one in found if one.online_size)]
        normal = [
            0,
            *(one.number for one in found if any(block.zone == "Normal" for block in one.blocks)),
        ]
        last = len(system.root.decoders)
        return {
            "has_cpu": value("0"),
            "has_memory": value(ranges(with_memory)),
            "has_normal_memory": value(ranges(normal)),
            "online": value(ranges(there)),
            "possible": value(ranges(range(last + 1))),
            **{one.name: _node(one) for one in found},
        }

    return Directory(entries)


def _node(node: NumaNode) -> Directory:
    return Directory(
        lambda: {
            "cpulist": value(""),
            "meminfo": value(f"Node {node.number} MemTotal:{node.online_size >> 10:15} kB"),
            "subsystem": Link("bus/node"),
            **{one.name: Link(f"{_MEMORY}/{one.name}") for one in node.blocks},
        },
        device=True,
    )


def ranges(numbers: list[int] | range) -> str:
    """Numbers in order as the kernel lists them: 0-1,3."""
    found: list[list[int]] = []
    for one in numbers:
        if found and found[-1][1] == one - 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in found)
