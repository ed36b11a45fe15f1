"""A small machine of our own: bridges and switches as plain bytes, devices as they are.

It does what the real one does as far as an operating system can tell, and was written apart from it: header type 1,
DVSECs and decoders are bytes and masks here, from PCIe 6.0 §7.5.1.3 and Linux's headers, not from `softcxl.spec`.
`tests/host/test_machines.py` holds it and the real one together.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from softcxl.device.decoder import Mapping
from softcxl.device.type3 import Type3
from softcxl.host import firmware
from softcxl.memory.interleave import Interleave
from softcxl.memory.media import Medium
from softcxl.memory.window import Window
from softcxl.memory.xor import apply

MIB, GIB = 1 << 20, 1 << 30
CONFIG = 7
WAYS = {0: 1, 1: 2, 2: 4, 3: 8, 4: 16, 8: 3, 9: 6, 10: 12}


class DecodeError(Exception):
    """No decoder, or nobody, at an address."""


class PoisonError(Exception):
    """A load of a poisoned line."""


class Decoders:
    """A component register block of 64 KiB with an HDM decoder capability of `count` decoders, and 8 targets."""

    def __init__(self, count: int = 8, targets: int = 8) -> None:
        self.data = bytearray(0x10000)
        self.count = count
        self.hdm = 0x1080
        struct.pack_into("<I", self.data, 0x1000, 0x01110001)  # one capability follows
        struct.pack_into("<I", self.data, 0x1004, 0x00030005 | 0x080 << 20)
        encoded = [1, 2, 4, 6, 8, 10].index(count)
        struct.pack_into(
            "<I", self.data, self.hdm, encoded | targets << 4 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12
        )
        self.refuse = False

    def write(self, offset: int, data: bytes) -> None:
        at = offset - self.hdm - 0x10
        if not 0 <= at < 0x20 * self.count:
            return
        number, register = divmod(at, 0x20)
        control = self.word(number, 0x10)
        if register != 0x10:
            if not control & 1 << 10:
                self.data[offset : offset + len(data)] = data
            return
        value = int.from_bytes(data, "little")
        if not value & 1 << 9:
            value &= ~(3 << 10)
        elif not control & 1 << 10:
            ordered = all(self.word(below, 0x10) & 1 << 10 for below in range(number))
            value |= 1 << 11 if self.refuse or not ordered else 1 << 10
        else:
            return
        struct.pack_into("<I", self.data, offset, value)

    def word(self, number: int, register: int) -> int:
        return int.from_bytes(self.data[self.hdm + 0x10 + 0x20 * number + register :][:4], "little")

    def target(self, hpa: int) -> int:
        """The port number that an address goes to."""
        for number in range(self.count):
            control = self.word(number, 0x10)
            base = self.word(number, 4) << 32 | self.word(number, 0)
            size = self.word(number, 12) << 32 | self.word(number, 8)
            if control & 1 << 10 and base <= hpa < base + size:
                ways, shift = WAYS[control >> 4 & 0xF], 8 + (control & 0xF)
                targets = struct.pack("<II", self.word(number, 0x14), self.word(number, 0x18))
                return targets[(hpa >> shift) % ways]
        raise DecodeError(f"no decoder has {hpa:#x}")


@dataclass
class Port:
    """A root port, or a port of a switch: header type 1, BAR 0 with a component register block."""

    kind: int  # PCIe device/port type: 4 root, 5 upstream, 6 downstream
    number: int = 0
    below: list[Port | Type3 | None] = field(default_factory=list)
    hot_plug: bool = False

    def __post_init__(self) -> None:
        self.config = bytearray(4096)
        self.component = Decoders(8) if self.kind == 5 else Decoders(1)
        if self.kind != 5:
            self.component.data[0x1000:0x1008] = bytes(8)  # no HDM decoders in root and downstream ports
        put = struct.pack_into
        put("<HHHH", self.config, 0, 0x1E98, 0x7075 + self.kind, 0, 0x10)
        put("<I", self.config, 8, 0x06040000)
        self.config[0x0E] = 1
        put("<I", self.config, 0x10, 0b100)
        self.config[0x34] = 0x40
        slot = self.hot_plug << 8
        put("<BBH", self.config, 0x40, 0x10, 0, 2 | self.kind << 4 | slot)
        put("<I", self.config, 0x4C, self.number << 24 | 8 << 4 | 5)  # link capabilities: port number
        put("<I", self.config, 0x54, self.hot_plug << 6)
        put("<H", self.config, 0x52, 8 << 4 | 5)
        # DVSEC 3 (ports), then 8 (register locator)
        put("<IIHH", self.config, 0x100, 0x0023 | 1 << 16 | 0x140 << 20, 0x1E98 | 0x028 << 20, 3, 0)
        put("<IIHH", self.config, 0x140, 0x0023 | 1 << 16, 0x1E98 | 0x14 << 20, 8, 0)
        put("<II", self.config, 0x14C, 1 << 8, 0)
        self.mask = bytearray(4096)
        self.mask[4] = 0b110
        self.mask[0x12:0x18] = b"\xff" * 6  # a BAR of 64 KiB
        self.mask[0x18:0x1B] = b"\xff" * 3
        self.mask[0x20:0x28] = b"\xf0\xff" * 4
        self.mask[0x28:0x30] = b"\xff" * 8

    def write(self, offset: int, data: bytes) -> None:
        for at, byte in enumerate(data, offset):
            mask = self.mask[at]
            self.config[at] = self.config[at] & ~mask | byte & mask

    @property
    def buses(self) -> range:
        return range(self.config[0x19], self.config[0x1A] + 1) if self.config[0x19] else range(0)

    @property
    def enabled(self) -> bool:
        return bool(self.config[4] & 2)

    def claims(self, address: int) -> bool:
        base, limit = struct.unpack_from("<HH", self.config, 0x20)
        return self.enabled and base << 16 <= address <= limit << 16 | 0xFFFFF

    @property
    def bar(self) -> int:
        return int.from_bytes(self.config[0x10:0x18], "little") & ~0xF

    def child(self, device: int) -> Port | Type3 | None:
        return self.below[device] if device < len(self.below) else None


@dataclass
class Bridge:
    uid: int
    bus: int
    registers: int
    ports: list[Port]
    component: Decoders


@dataclass
class Fake:
    """The machine. `bridges` are lists of what is in each root port: a device, a `Port` of kind 5, or None."""

    bridges: list[Bridge]
    windows: list[firmware.Window]
    tables: dict[str, bytes] = field(default_factory=dict)
    mmio_ranges: Sequence[tuple[int, int]] = ((0xC000_0000, 0x3000_0000), (1 << 44, 1 << 40))

    def __post_init__(self) -> None:
        self.tables = firmware.tables(
            [firmware.Bridge(one.uid, one.bus, one.registers) for one in self.bridges],
            self.windows,
            ecam=0xB000_0000,
        )
        self.backing: list[Window] = []
        self.pending: list[tuple[Type3, Mapping]] = []
        self.reads = 0
        for one in self.windows:
            medium = Medium.memfd("window", one.size)
            self.backing.append(Window(one.base, one.size, medium))
        for device in self.devices():
            self.plug(device)

    def plug(self, device: Type3) -> None:
        for window in self.backing:
            device.space.attach(window)
        device.decoders.host = _Plug(self, device)

    @property
    def host_bridges(self) -> list[tuple[int, int]]:
        return [(one.uid, one.bus) for one in self.bridges]

    def devices(self) -> list[Type3]:
        def below(nodes):
            for node in nodes:
                if isinstance(node, Type3):
                    yield node
                elif node is not None:
                    yield from below(node.below)

        return [device for bridge in self.bridges for device in below(bridge.ports)]

    # -- configuration space

    def _find(self, bus: int, device: int):
        for bridge in self.bridges:
            if bus == bridge.bus:
                return bridge.ports[device] if device < len(bridge.ports) else None
            node = self._below(bridge.ports, bus, device)
            if node is not None:
                return node
        return None

    def _below(self, nodes, bus: int, device: int):
        for node in nodes:
            if isinstance(node, Port) and bus in node.buses:
                if bus == node.config[0x19]:
                    return node.child(device)
                return self._below(node.below, bus, device)
        return None

    def config_read(self, bus: int, device: int, function: int, offset: int, size: int) -> bytes:
        self.reads += 1
        node = self._find(bus, device) if function == 0 else None
        if node is None:
            return b"\xff" * size
        return (
            bytes(node.config[offset : offset + size])
            if isinstance(node, Port)
            else node.read(CONFIG, offset, size)
        )

    def config_write(self, bus: int, device: int, function: int, offset: int, data: bytes) -> None:
        node = self._find(bus, device) if function == 0 else None
        if isinstance(node, Port):
            node.write(offset, data)
        elif node is not None:
            node.write(CONFIG, offset, data)

    # -- registers

    def _claim(self, address: int, nodes=None):
        if nodes is None:
            for bridge in self.bridges:
                if bridge.registers <= address < bridge.registers + 0x10000:
                    return bridge.component, None, address - bridge.registers
                found = self._claim(address, bridge.ports)
                if found:
                    return found
            return None
        for node in nodes:
            if isinstance(node, Port):
                if node.enabled and node.bar <= address < node.bar + 0x10000:
                    return node.component, None, address - node.bar
                if node.claims(address):
                    return self._claim(address, node.below)
            elif node is not None and node.header.command.memory_space_enable:
                for index, region in enumerate(node.regions()[:6]):
                    base = (
                        int.from_bytes(node.read(CONFIG, 0x10 + 4 * index, 8), "little") & ~0xF
                        if region
                        else 0
                    )
                    if region and base <= address < base + region.size:
                        return node, index, address - base
        return None

    def mmio_read(self, address: int, size: int) -> bytes:
        found = self._claim(address)
        if not found:
            return b"\xff" * size
        node, index, offset = found
        return bytes(node.data[offset : offset + size]) if index is None else node.read(index, offset, size)

    def mmio_write(self, address: int, data: bytes) -> None:
        found = self._claim(address)
        if found:
            node, index, offset = found
            if index is None:
                node.write(offset, data)
            else:
                node.write(index, offset, data)

    # -- memory: one byte after the other, through every decoder

    def route(self, hpa: int) -> tuple[Type3, int]:
        for window in self.windows:
            if window.base <= hpa < window.base + window.size:
                maps = window.maps[: len(window.targets).bit_length() - 1] if window.xor else ()
                uid = window.targets[apply(maps, hpa) // window.granularity % len(window.targets)]
                bridge = next(one for one in self.bridges if one.uid == uid)
                number = bridge.component.target(hpa)
                node = next(port for port in bridge.ports if port.number == number)
                return self._down(node, hpa)
        raise DecodeError(f"no window has {hpa:#x}")

    def _down(self, port: Port, hpa: int) -> tuple[Type3, int]:
        node = port.below[0] if port.below else None
        if isinstance(node, Port):
            number = node.component.target(hpa)
            below = next(one for one in node.below if isinstance(one, Port) and one.number == number)
            return self._down(below, hpa)
        if node is None or not node.memory_enabled:
            raise DecodeError(f"nobody answers at {hpa:#x}")
        for one in node.decoders.mappings:
            if one.hpa <= hpa < one.hpa + one.size:
                turn = (hpa - one.hpa) // one.granularity // one.ways
                return node, one.dpa + turn * one.granularity + (hpa - one.hpa) % one.granularity
        raise DecodeError(f"{node.name}: no decoder has {hpa:#x}")

    def load(self, hpa: int, size: int) -> bytes:
        self.settle()
        out = b""
        for at in range(hpa, hpa + size):
            device, dpa = self.route(at)
            if device.poison.map.any_in(dpa, 1) is not None:
                raise PoisonError(f"poison at {at:#x}")
            out += bytes(device.space.read(dpa, 1))
        return out

    def store(self, hpa: int, data: bytes) -> None:
        """A store of whole lines takes poison off them."""
        self.settle()
        for at, byte in enumerate(data, hpa):
            device, dpa = self.route(at)
            device.space.write(dpa, bytes([byte]))
            if at % 64 == 63 and at - 63 >= hpa:
                device.poison.map.remove(dpa - 63)

    def settle(self) -> None:
        """Have the bytes of new mappings rest where the tree, complete by now, shows them."""
        while self.pending:
            device, mapping = self.pending.pop(0)
            position = next(
                number
                for number in range(mapping.ways)
                if self.route(mapping.hpa + number * mapping.granularity)[0] is device
            )
            at = next(
                n for n, one in enumerate(self.windows) if one.base <= mapping.hpa < one.base + one.size
            )
            given, ways = self.windows[at], len(self.windows[at].targets)
            maps = given.maps[: (ways & -ways).bit_length() - 1] if given.xor else ()
            if maps:
                position = apply(maps, mapping.hpa + position * mapping.granularity) - apply(
                    maps, mapping.hpa
                )
                position = position // mapping.granularity % mapping.ways
            device.space.commit(
                self.backing[at],
                mapping.hpa,
                mapping.size,
                Interleave(mapping.ways, mapping.granularity, maps, mapping.hpa if maps else 0),
                position,
                mapping.dpa - mapping.skip,
                mapping.skip,
            )

    def view(self, hpa: int, size: int) -> np.ndarray | None:
        self.settle()
        for window in self.backing:
            if window.base <= hpa and hpa + size <= window.base + window.size:
                offset = hpa - window.base
                return window.medium.view()[offset : offset + size]
        return None

    def poisoned(self, hpa: int, size: int) -> list[int]:
        found = [
            device.space.dpa_to_hpa(line)
            for device in self.devices()
            for line, length, _ in device.poison.map.runs(0, device.capacity.total)
            for line in range(line, line + length, 64)
        ]
        return sorted(one for one in found if one is not None and hpa - 63 <= one < hpa + size)


@dataclass
class _Plug:
    """Notes what a device's decoders do. Endpoints commit before the ports above them: bytes settle later."""

    machine: Fake
    device: Type3

    def commit(self, mapping) -> None:
        self.machine.pending.append((self.device, mapping))

    def release(self, mapping) -> None:
        if (self.device, mapping) in self.machine.pending:
            self.machine.pending.remove((self.device, mapping))
        else:
            self.device.space.release(mapping.hpa)


# -- building ------------------------------------------------------------------------------------------------


def switch(*below: Port | Type3 | None) -> Port:
    """A switch: its upstream port, with a downstream port for each of `below`."""
    return Port(5, below=[Port(6, number, [one]) for number, one in enumerate(below)])


def machine(
    *bridges: Sequence[Port | Type3 | None], windows: Sequence[dict] = (), hot_plug: bool = False
) -> Fake:
    """A machine: what is in each root port of each bridge, and windows as arguments of `firmware.Window` whose
    targets are bridges' numbers. Root buses are 0x10 apart, _UIDs are those numbers."""
    made = []
    for number, ports in enumerate(bridges):
        bus = 0x0C + 0x20 * number
        roots = [Port(4, at, [one], hot_plug) for at, one in enumerate(ports)]
        made.append(
            Bridge(bus, bus, 0xFE00_0000 + 0x10000 * number, roots, Decoders(4 if len(ports) < 99 else 8))
        )
    base, placed = 4 * GIB, []
    for given in windows:
        targets = tuple(made[number].uid for number in given.get("targets", (0,)))
        one = firmware.Window(**{"base": base, "size": GIB, **given, "targets": targets})
        placed.append(one)
        base = -(-(one.base + one.size) // GIB) * GIB
    return Fake(made, placed)
