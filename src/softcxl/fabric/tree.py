"""A topology as a tree: for people to read, for programs as JSON.

>>> from softcxl.fabric.topology import loads
>>> text = "devices: {m: {volatile: 256MiB, serial: 7}}\\nhosts: {h: {bridges: {b: {ports: [m]}}}}"
>>> print(tree(loads(text), "one device"))
one device
└── host h: 1GiB of RAM, 1 CPU
    └── bridge b
        └── port 0: m: 256MiB volatile, serial 0x7
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from softcxl.fabric.keys import (
    FirmwareRegion,
    Host,
    LogicalDevice,
    MultiLogicalDevice,
    PoolAccess,
    PoolMemory,
    SwitchCci,
    Topology,
    Type3,
    Window,
    split,
)
from softcxl.wire.sizes import format_size


@dataclass
class Node:
    """One line of the tree: what `kind` of thing, its `name`, some `facts`, and what hangs below it.

    Kinds: fabric, host, bridge, switch, virtual switch, device, empty (a port without anything), window, region,
    spare (the group of what is not plugged in). `port` is the number of the port that it is plugged into, or None.
    """

    kind: str
    name: str
    facts: str = ""
    port: int | None = None
    children: list[Node] = field(default_factory=list)

    @property
    def title(self) -> str:
        """`port 0: `, kind and name, without the facts."""
        title = (
            self.name if self.kind in ("fabric", "device", "empty", "spare") else f"{self.kind} {self.name}"
        )
        return title if self.port is None else f"port {self.port}: {title}"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """The tree drawn in text, a line at a time."""
        yield f"{self.title}: {self.facts}" if self.facts else self.title
        for child in self.children:
            last = child is self.children[-1]
            for number, line in enumerate(child.lines()):
                branch = ("└── " if last else "├── ") if number == 0 else ("    " if last else "│   ")
                yield branch + line


def tree(topology: Topology, name: str = "fabric") -> Node:
    """The whole fabric below one root called `name`: hosts, shared switches, then what is not plugged in anywhere."""
    root = Node("fabric", name)
    plugged: set[str] = set()
    for host_name, host in topology.hosts.items():
        root.children.append(_host(topology, host_name, host, plugged))
    root.children += [_shared(topology, one, plugged) for one in topology.shared]
    switches = [
        one
        for one in topology.switches
        if one not in _downstream(topology) and one not in plugged and one not in topology.shared
    ]
    headed = {split(name)[0] for name in plugged if name in topology.single}
    root.children += [_plug(topology, name, None, plugged) for name in topology.pools if name in headed]
    spare = [_plug(topology, name, None, plugged) for name in switches]
    spare += [_plug(topology, name, None, plugged) for name in topology.devices if name not in plugged]
    if spare:
        root.children.append(Node("spare", "not plugged in", children=spare))
    return root


def to_json(topology: Topology) -> bytes:
    """The topology as JSON: the file's keys, sizes in bytes, defaults filled in."""
    return msgspec.json.encode(topology)


def _downstream(topology: Topology) -> set[str | None]:
    return {port for switch in topology.switches.values() for port in switch.ports}


def _host(topology: Topology, name: str, host: Host, plugged: set[str]) -> Node:
    cpus = f"{host.cpus} CPU{'s' if host.cpus > 1 else ''}"
    node = Node("host", name, f"{format_size(host.memory)} of RAM, {cpus}")
    for bridge_name, bridge in host.bridges.items():
        below = [_plug(topology, port, at, plugged) for at, port in enumerate(bridge.ports)]
        node.children.append(Node("bridge", bridge_name, children=below))
    node.children += [
        Node("window", str(at), _window(topology, window)) for at, window in enumerate(host.windows)
    ]
    node.children += [Node("region", str(at), _region(region)) for at, region in enumerate(host.regions)]
    return node


def _plug(topology: Topology, name: str | None, port: int | None, plugged: set[str]) -> Node:
    if name is None:
        return Node("empty", "empty", port=port)
    plugged.add(name)
    if name in topology.devices:
        return _device(name, topology.devices[name], port)
    if name in topology.single:
        return Node("device", name, _sizes(topology.single[name]), port)
    if name in topology.virtual:
        switch, number = topology.virtual[name]
        bound = topology.switches[switch].virtual[name].ports
        below = [_bound(topology, one, vppb) for vppb, one in enumerate(bound)]
        return Node("virtual switch", name, f"VCS {number} of {switch}", port, below)
    ports = topology.switches[name].ports
    below = [_plug(topology, one, number, plugged) for number, one in enumerate(ports)]
    return Node("switch", name, port=port, children=below)


def _shared(topology: Topology, name: str, plugged: set[str]) -> Node:
    switch = topology.switches[name]
    below = [_plug(topology, one, number, plugged) for number, one in enumerate(switch.ports)]
    first = len(below)
    below += [Node("upstream", f"of {one}", port=number) for number, one in enumerate(switch.virtual, first)]
    return Node("switch", name, f"shared, {len(switch.virtual)} virtual switches", children=below)


def _bound(topology: Topology, name: str | None, vppb: int) -> Node:
    """What a vPPB is bound to at first."""
    if name is None:
        return Node("empty", "empty", port=vppb)
    device, ld = split(name)
    key = topology.devices[device]
    if not isinstance(key, MultiLogicalDevice):
        return _device(name, key, vppb)
    own = key.logical_devices[ld or 0]
    return Node("device", name, _sizes(own), vppb)


def _device(
    name: str, key: Type3 | MultiLogicalDevice | SwitchCci | PoolAccess | PoolMemory, port: int | None
) -> Node:
    if isinstance(key, SwitchCci):
        return Node("device", name, f"mailbox CCI of {key.switch}", port)
    if isinstance(key, PoolAccess):
        return Node("device", name, "access to the pool", port)
    if isinstance(key, PoolMemory):
        serial = "" if key.serial is None else f", serial {key.serial:#x}"
        return Node("device", name, f"the pool's memory{serial}", port)
    if isinstance(key, Type3):
        return Node("device", name, _facts(key), port)
    facts = [_sizes(key), f"{len(key.logical_devices)} logical devices"]
    if key.dynamic:
        facts.append(f"{format_size(sum(one.length for one in key.dynamic))} dynamic")
    if key.heads > 1:
        facts.append(f"{key.heads} heads")
    if key.serial is not None:
        facts.append(f"serial {key.serial:#x}")
    below = [
        Node("device", f"{name}.{number}", _sizes(one) or "nothing")
        for number, one in enumerate(key.logical_devices)
    ]
    return Node("device", name, ", ".join(facts), port, below)


def _sizes(key: Type3 | MultiLogicalDevice | LogicalDevice) -> str:
    return ", ".join(
        f"{format_size(size)} {kind}"
        for size, kind in ((key.volatile, "volatile"), (key.persistent, "persistent"))
        if size
    )


def _facts(device: Type3) -> str:
    facts = [
        f"{format_size(size)} {kind}"
        for size, kind in ((device.volatile, "volatile"), (device.persistent, "persistent"))
        if size
    ]
    if device.dynamic:
        facts.append(f"{format_size(sum(one.length for one in device.dynamic))} dynamic")
    if device.label_storage:
        facts.append(f"{format_size(device.label_storage)} of labels")
    if device.serial is not None:
        facts.append(f"serial {device.serial:#x}")
    if device.model:
        facts.append(f"class {device.model}")
    return ", ".join(facts)


def _interleaved(names: list[str], granularity: int | None) -> str:
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names)} ({len(names)}-way, {format_size(granularity or 0)} each)"


def _window(topology: Topology, window: Window) -> str:
    arithmetic = ", xor" if window.arithmetic == "xor" else ""
    qtg = f", QTG {window.qtg}" if window.qtg else ""
    over = _interleaved(window.targets, window.granularity)
    what = "pool's memory, as that" if window.shared in topology.pool_memory else "dynamic capacity"
    shared = f", the {what} of {window.shared}" if window.shared else ""
    return f"{format_size(window.size)} over {over}{arithmetic}, {' and '.join(window.restrictions)}{qtg}{shared}"


def _region(region: FirmwareRegion) -> str:
    size = format_size(region.size or 0)
    over = _interleaved(region.devices, region.granularity)
    return f"{region.type}, {size} in window {region.window} over {over}"
