"""PCI enumeration through configuration space alone, as an operating system does it.

Buses are numbered depth first, BARs are sized by writing ones, bridges' windows are made as small as what is below
them allows (and as large as a hot-plug slot may need), and then everything is enabled. What firmware left in the
registers is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from softcxl.host.config import ABSENT, Config
from softcxl.host.errors import EnumerationError
from softcxl.host.machine import Machine
from softcxl.host.placement import Need, Pool, Stack, stacked
from softcxl.spec.pci.express import PortType

MIB = 1 << 20
SLOT_MEMORY = 2 * MIB
"""What the window of an empty hot-plug slot is given, as Linux does (pci=hpmmiosize)."""

BUSES = 256
"""Buses of a segment."""

_COMMAND, _CLASS, _HEADER_TYPE, _BARS = 0x04, 0x09, 0x0E, 0x10
_PRIMARY, _SECONDARY, _SUBORDINATE = 0x18, 0x19, 0x1A
_MEMORY_BASE, _PREFETCHABLE_BASE, _PREFETCHABLE_HIGH = 0x20, 0x24, 0x28
_SLOT_CAPABILITIES, _HOT_PLUG_CAPABLE = 0x14, 1 << 6
_SLOT_IMPLEMENTED = 1 << 8
_MEMORY_SPACE, _BUS_MASTER = 1 << 1, 1 << 2
_BRIDGE = 1


@dataclass(slots=True)
class Bar:
    """A memory BAR: `size` bytes, at `address` once it has one."""

    index: int
    size: int
    wide: bool
    prefetchable: bool
    address: int = 0


@dataclass(eq=False, slots=True)
class Node:
    """A function that was found. A bridge has `below` it what is on its secondary bus."""

    config: Config
    parent: Node | None
    class_code: int
    bridge: bool
    port_type: int | None
    reserve: int = 0  # bytes that its window has at least
    bars: dict[int, Bar] = field(default_factory=dict)
    below: list[Node] = field(default_factory=list)
    secondary: int = 0
    subordinate: int = 0
    windows: dict[bool, tuple[int, int]] = field(default_factory=dict)  # by prefetchable: base, size
    needs: dict[bool, Stack] = field(
        default_factory=dict
    )  # by prefetchable: of what is below, once it is known

    @property
    def name(self) -> str:
        return self.config.name

    def walk(self) -> Iterator[Node]:
        """This function and all below it, depth first."""
        yield self
        for one in self.below:
            yield from one.walk()

    def __repr__(self) -> str:
        return f"<{'bridge' if self.bridge else 'function'} {self.name}>"


@dataclass(eq=False, slots=True)
class RootBus:
    """The bus below a host bridge, whose _UID is `uid`."""

    uid: int
    number: int
    last: int
    below: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"pci{self.number >> 8:04x}:{self.number & 0xFF:02x}"

    def walk(self) -> Iterator[Node]:
        """Every function of the hierarchy, depth first."""
        for one in self.below:
            yield from one.walk()


def enumerate_all(machine: Machine) -> list[RootBus]:
    """Find, number, place and enable everything below the machine's host bridges.

    Raises `EnumerationError` where there are not enough buses or addresses, or a function contradicts itself.
    """
    bridges = machine.host_bridges
    starts = sorted(number for _, number in bridges)
    if len(set(starts)) != len(starts):
        raise EnumerationError(f"two host bridges have the same root bus: {', '.join(map(hex, starts))}")
    roots = []
    for uid, number in bridges:
        segment_end = (number // BUSES + 1) * BUSES
        later = [start for start in starts if number < start < segment_end]
        roots.append(RootBus(uid, number, (later[0] if later else segment_end) - 1))
    for root in roots:
        root.below, _ = _scan(machine, root.number, None, root.last)
    try:
        places = _reserved(roots, Pool(machine.mmio_ranges))
    except EnumerationError:
        # Room for what may come is given where there is room for what is there (Linux does the same).
        for root in roots:
            for node in root.walk():
                node.reserve = 0
                node.needs.clear()
        places = _reserved(roots, Pool(machine.mmio_ranges))
    for root, prefetchable, stack, base in places:
        _place(root.below, prefetchable, stack, base)
    for root in roots:
        for node in root.walk():
            _enable(node)
    return roots


def _reserved(roots: Sequence[RootBus], pool: Pool) -> list[tuple[RootBus, bool, Stack, int]]:
    """An address for all that is below each root bus, not prefetchable and prefetchable."""
    places = []
    for root in roots:
        for prefetchable in (False, True):
            need = stacked(_needs(root.below, prefetchable))
            if need.size:
                places.append((root, prefetchable, need, pool.take(need, root.name, low=not prefetchable)))
    return places


def rescan(port: Node) -> list[Node]:
    """Find what was plugged in below `port` since; it is numbered and placed within what the port has.

    Raises `EnumerationError` where the port's buses or windows do not suffice; then nothing is below it.
    """
    port.below = []
    _program_buses(port, port.subordinate)
    port.below, last = _scan(port.config.machine, port.secondary, port, port.subordinate)
    try:
        if last > port.subordinate:
            raise EnumerationError(f"{port.name}: bus {last} is needed, its buses end at {port.subordinate}")
        for prefetchable in (False, True):
            need = stacked(_needs(port.below, prefetchable))
            base, size = port.windows.get(prefetchable, (0, 0))
            if need.size > size or (need.size and base % need.alignment):
                kind = "prefetchable window" if prefetchable else "memory window"
                raise EnumerationError(
                    f"{port.name}: {need.size:#x} bytes aligned to {need.alignment:#x} do not fit its {kind},"
                    f" {size:#x} bytes at {base:#x}"
                )
            if need.size:
                _place(port.below, prefetchable, need, base)
    except EnumerationError:
        port.below = []
        raise
    for node in port.below:
        for one in node.walk():
            _enable(one)
    return port.below


# -- finding -------------------------------------------------------------------------------------------------


def _scan(machine: Machine, bus: int, parent: Node | None, limit: int) -> tuple[list[Node], int]:
    """The functions on a bus, with all below them; and the last bus number that was used."""
    # A link has one device at its end; root buses and a switch's internal bus have up to 32.
    link = parent is not None and parent.port_type in (PortType.ROOT_PORT, PortType.DOWNSTREAM_PORT)
    found, last = [], bus
    for device in range(1 if link else 32):
        for function in range(8):
            config = Config(machine, bus, device, function)
            if config.read(0, 2) == ABSENT:
                if function == 0:
                    break
                continue
            node, last = _found(config, parent, last, limit)
            found.append(node)
            if function == 0 and not config.read(_HEADER_TYPE, 1) & 0x80:
                break
    return found, last


def _found(config: Config, parent: Node | None, last: int, limit: int) -> tuple[Node, int]:
    layout = config.read(_HEADER_TYPE, 1) & 0x7F
    if layout > _BRIDGE:
        raise EnumerationError(
            f"{config.name}: header type {layout:#x} is neither an endpoint's nor a bridge's"
        )
    node = Node(
        config, parent, class_code=config.read(_CLASS - 1) >> 8, bridge=layout == _BRIDGE, port_type=None
    )
    express = config.express() if node.bridge else None
    if express is not None:
        capabilities = config.read(express + 2, 2)
        node.port_type = capabilities >> 4 & 0xF
        if capabilities & _SLOT_IMPLEMENTED:
            hot_plug = config.read(express + _SLOT_CAPABILITIES) & _HOT_PLUG_CAPABLE
            node.reserve = SLOT_MEMORY if hot_plug else 0
    command = config.read(_COMMAND, 2)
    if command & (_MEMORY_SPACE | _BUS_MASTER):
        config.write(_COMMAND, command & ~(_MEMORY_SPACE | _BUS_MASTER), 2)
    _size_bars(node, 2 if node.bridge else 6)
    if node.bridge:
        node.secondary = last + 1
        if node.secondary > limit:
            raise EnumerationError(
                f"{config.name}: bus {node.secondary:#x} is needed below it, and buses end at {limit:#x}"
            )
        _program_buses(node, limit)
        node.below, node.subordinate = _scan(config.machine, node.secondary, node, limit)
        _program_buses(node, node.subordinate)
        last = node.subordinate
    return node, last


def _program_buses(node: Node, subordinate: int) -> None:
    config = node.config
    config.write(_PRIMARY, config.bus, 1)
    config.write(_SECONDARY, node.secondary, 1)
    config.write(_SUBORDINATE, subordinate, 1)


def _size_bars(node: Node, count: int) -> None:
    config, index = node.config, 0
    while index < count:
        # What they held is not put back: they decode nothing now, and those that are there get an address.
        at = _BARS + 4 * index
        config.write(at, 0xFFFFFFFF)
        mask = config.read(at)
        wide = mask & 0b111 == 0b100
        if wide and index + 1 < count:
            config.write(at + 4, 0xFFFFFFFF)
            mask |= config.read(at + 4) << 32
        if mask & ~0xF and not mask & 1:  # an I/O BAR is left alone: PCI Express needs none
            size = mask & ~0xF & -(mask & ~0xF)
            node.bars[index] = Bar(index, size, wide, bool(mask & 8))
        index += 2 if wide else 1


# -- placing -------------------------------------------------------------------------------------------------


def _needs(nodes: Sequence[Node], prefetchable: bool) -> list[Need]:
    """What each BAR and each bridge on a bus needs, in an order that `_place` repeats."""
    needs = []
    for node in nodes:
        bars = (bar for bar in node.bars.values() if _in_prefetchable(bar) == prefetchable)
        needs += [Need(bar.size, bar.size) for bar in bars]
        if node.bridge:
            needs.append(_window_need(node, prefetchable))
    return needs


def _in_prefetchable(bar: Bar) -> bool:
    # Bridges' prefetchable windows are taken above 4 GiB, where a 32-bit BAR does not reach.
    return bar.prefetchable and bar.wide


def _below_need(node: Node, prefetchable: bool) -> Stack:
    """What is below a bridge, put together."""
    found = node.needs.get(prefetchable)
    if found is None:
        found = node.needs[prefetchable] = stacked(_needs(node.below, prefetchable))
    return found


def _window_need(node: Node, prefetchable: bool) -> Need:
    below = _below_need(node, prefetchable)
    size = below.size
    if not prefetchable:
        size = max(size, node.reserve)
    return Need(-(-size // MIB) * MIB, max(MIB, below.alignment))


def _place(nodes: Sequence[Node], prefetchable: bool, stack: Stack, base: int) -> None:
    places = iter(stack.places(base))
    for node in nodes:
        for bar in node.bars.values():
            if _in_prefetchable(bar) == prefetchable:
                bar.address = next(places)
                _program_bar(node.config, bar)
        if node.bridge:
            need, at = _window_need(node, prefetchable), next(places)
            node.windows[prefetchable] = (at, need.size)
            _program_window(node.config, prefetchable, at, need.size)
            if need.size:
                _place(node.below, prefetchable, _below_need(node, prefetchable), at)


def _program_bar(config: Config, bar: Bar) -> None:
    config.write(_BARS + 4 * bar.index, bar.address)
    if bar.wide:
        config.write(_BARS + 4 * bar.index + 4, bar.address >> 32)


def _program_window(config: Config, prefetchable: bool, base: int, size: int) -> None:
    # A limit below the base closes the window (PCIe 6.0 §7.5.1.3.8).
    last = base + size - 1 if size else 0
    first = base if size else 0xFFF00000
    at = _PREFETCHABLE_BASE if prefetchable else _MEMORY_BASE
    config.write(at, (last >> 16 & 0xFFF0) << 16 | first >> 16 & 0xFFF0)
    if prefetchable:
        config.write(_PREFETCHABLE_HIGH, first >> 32)
        config.write(_PREFETCHABLE_HIGH + 4, last >> 32)


def _enable(node: Node) -> None:
    if node.bridge:
        for prefetchable in (False, True):
            if prefetchable not in node.windows:
                node.windows[prefetchable] = (0, 0)
                _program_window(node.config, prefetchable, 0, 0)
    node.config.write(_COMMAND, node.config.read(_COMMAND, 2) | _MEMORY_SPACE | _BUS_MASTER, 2)
