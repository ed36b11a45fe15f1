"""A machine of live parts: what firmware and operating systems of one host touch.

>>> from softcxl.device.type3 import Type3
>>> from softcxl.memory import Medium, Window
>>> mib, memory, bridge = 1 << 20, Type3("mem0", volatile=256 << 20), HostBridge("hb0", 1)
>>> bridge.ports[0].plug(memory)
>>> window = Window(1 << 32, 256 * mib, Medium.memfd("window", 256 * mib))
>>> machine = HostMachine([bridge], [CxlWindow(window, (bridge,))])
>>> bridge.decoders.program(0, hpa=1 << 32, size=256 * mib, targets=[0])
>>> memory.decoders.program(0, hpa=1 << 32, size=256 * mib, ways=1, granularity=256)
>>> memory.dvsec.control.mem_enable = True
>>> machine.store(0x1_0000_1000, b"CXL")
>>> memory.space.read(0x1000, 3)
b'CXL'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from softcxl.device.decoder import Mapping as DeviceMapping
from softcxl.device.decoder import Nowhere
from softcxl.device.poison import LINE
from softcxl.device.type3 import Type3
from softcxl.memory import xor
from softcxl.memory.errors import MemoryFault
from softcxl.memory.residency import Resident
from softcxl.memory.window import Window
from softcxl.pci.complex import BUSES, Interrupt, RootComplex
from softcxl.pci.function import Function
from softcxl.pci.region import Bus
from softcxl.spec.cxl.component import COMPONENT_BLOCK_SIZE
from softcxl.switch import gpf, viral
from softcxl.switch.errors import AccessFault, DecodeError, DeviceFault, LinkDown, PoisonError, ViralError
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.numbering import numbered
from softcxl.switch.route import CxlWindow, Landing, Path, Trace, land, trace
from softcxl.switch.upstream import UpstreamPort
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.memory.media import ByteArray

_UNIT = 256
"""Bytes that no interleave divides."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the machine's address space: the ECAM, the host bridges' component registers one after the
    other, and what BARs and bridges' windows may be given: (base, size) below and above 4 GiB."""

    ecam: int = 1 << 50
    registers: int = 0xFE00_0000
    mmio: tuple[tuple[int, int], ...] = ((0x8000_0000, 0x7000_0000), ((1 << 50) + (1 << 40), 1 << 40))


class HostMachine(RootComplex):
    """Host `bridges`, with all that is plugged in below, behind one set of `windows`.

    Buses are given out to the bridges by what is below them now, and the rest of a segment evenly. `tables` are the
    ACPI tables and `firmware` what runs after a reset of the machine, which whoever made it fills in. `changes` counts
    whatever may lead addresses elsewhere. `interrupt` is called for each message-signalled
    interrupt; it notes it and returns. Raises `ValueError` for windows or buses that cannot be.
    """

    def __init__(
        self,
        bridges: Sequence[HostBridge],
        windows: Sequence[CxlWindow] = (),
        *,
        layout: Layout | None = None,
        interrupt: Callable[[Interrupt], None] | None = None,
    ) -> None:
        self.layout = layout or Layout()
        self.changes = 0
        self._landings: dict[Path, tuple[Landing, ...]] = {}
        self._spans: list[_Span] = []
        super().__init__(self.layout.ecam, interrupt)
        self.tables: Mapping[str, bytes] = {}
        self.firmware: Callable[[], None] = lambda: None
        self.bridges = tuple(bridges)
        self.registers: dict[str, int] = {}
        self.windows = tuple(sorted(windows, key=lambda one: one.window.base))
        self._ranges = tuple(
            (one.window.base, one.window.base + one.window.size, one, one.shift, one.ways)
            for one in self.windows
        )
        for (_, end, *_), (base, *_) in zip(self._ranges, self._ranges[1:], strict=False):
            if base < end:
                raise ValueError(f"windows overlap at {base:#x}")
        for one in self.windows:
            if strangers := [bridge.name for bridge in one.targets if bridge not in self.bridges]:
                raise ValueError(f"a window's target {strangers[0]} is no host bridge of this machine")
        self.devices: list[Type3] = []
        for number, (bridge, (first, last)) in enumerate(
            zip(self.bridges, numbered(self.bridges), strict=True)
        ):
            bridge.bus.number = first % BUSES
            self.registers[bridge.name] = self.layout.registers + number * COMPONENT_BLOCK_SIZE
            self.add_registers(self.registers[bridge.name], bridge.registers)
            self.add_root(bridge.bus, first, last)

    # -- what ACPI says ------------------------------------------------------------------------------------------

    @property
    def host_bridges(self) -> list[tuple[int, int]]:
        """(ACPI _UID, root bus number) of each host bridge."""
        return [(bridge.uid, root.first) for bridge, root in zip(self.bridges, self.roots, strict=True)]

    @property
    def mmio_ranges(self) -> Sequence[tuple[int, int]]:
        """(base, size) of the addresses that BARs and bridges' windows may be given."""
        return self.layout.mmio

    def reset(self, kind: Reset = Reset.HOT) -> None:
        """Reset every bridge, and all below; then `firmware` does again what it does when a machine starts.

        An operating system has to boot again, too: buses, addresses and enables are gone.
        """
        with self.lock:
            for bridge in self.bridges:
                bridge.reset(kind)
            self.firmware()

    def power_fail(self) -> list[str]:
        """Power fails and comes back: devices have the time that the GPF DVSECs of the ports above them give (CXL 3.1
        §9.8). Returns the names of those that need longer, whose dirty shutdowns count; then all is as after a cold
        reset."""
        with self.lock:
            late = [
                device.name
                for bridge in self.bridges
                for port in bridge.ports.values()
                for device in gpf.flush(port)
            ]
            self.reset(Reset.COLD)
        return late

    def enable_viral(self) -> None:
        """Set Viral Enable in every port and device, as platform firmware may; a reset takes it back."""
        with self.lock:
            for bridge in self.bridges:
                for port in bridge.ports.values():
                    viral.enable(port)

    def _tell_viral(self, function: Function) -> None:
        with self.lock:
            viral.rise(function)

    def enter_viral(self) -> None:
        """The host has become viral: so does all below its root ports, as far as it is enabled."""
        with self.lock:
            for bridge in self.bridges:
                for port in bridge.ports.values():
                    viral.sink(port)

    # -- the hierarchy -------------------------------------------------------------------------------------------

    def changed(self) -> None:
        super().changed()
        self._forget()

    def _forget(self) -> None:
        self.changes += 1
        self._landings.clear()
        self._spans.clear()

    def bus_of(self, function: Function) -> Bus:
        if isinstance(function, Type3):
            self.devices.append(function)
            function.decoders.host = _Plug(self, function)
            function.tell_viral = partial(self._tell_viral, function)
        return super().bus_of(function)

    def gone(self, function: Function) -> None:
        if isinstance(function, Type3):
            self.devices.remove(function)
            for mapping in function.decoders.mappings:
                self.release(function, mapping)
            function.decoders.host = Nowhere()
            function.tell_viral = lambda: None

    def release(self, device: Type3, mapping: DeviceMapping) -> None:
        """A device's decoder has stopped: its bytes are no longer committed to a window."""
        self._forget()
        if any(one.hpa == mapping.hpa for one in device.space.commitments):
            device.space.release(mapping.hpa)

    # -- CXL memory ----------------------------------------------------------------------------------------------

    def load(self, hpa: int, size: int) -> bytes:
        """`size` bytes of CXL memory, through every decoder on the way. Raises `AccessFault`."""
        with self.lock:
            if (hpa & _UNIT - 1) + size <= _UNIT:
                return self._load(hpa, size)
            return b"".join(self._load(at, length) for at, length in _pieces(hpa, size))

    def store(self, hpa: int, data: bytes) -> None:
        """Write CXL memory, through every decoder on the way. A whole line of 64 bytes takes poison away.

        Raises `AccessFault`; then what lies before the fault has been stored.
        """
        with self.lock:
            if (hpa & _UNIT - 1) + len(data) <= _UNIT:
                self._store(hpa, data)
                return
            for at, length in _pieces(hpa, len(data)):
                self._store(at, data[at - hpa : at - hpa + length])

    def trace(self, hpa: int) -> Trace:
        """The way of an address, decoder by decoder. Raises `AccessFault` where there is none."""
        with self.lock:
            names: list[str] = []
            path, landing = self._walk(hpa, names)
            return trace(path, names, landing.device, landing.mapping, hpa, landing.locate(hpa))

    def hpa_of(self, device: Type3, dpa: int) -> int | None:
        """The host address at which `dpa` of a device is reached, None if there is none."""
        with self.lock:
            for mapping in device.decoders.mappings:
                if mapping.dpa <= dpa < mapping.dpa + mapping.dpa_size:
                    turn, low = divmod(dpa - mapping.dpa, mapping.granularity)
                    for place in range(mapping.ways):
                        hpa = mapping.hpa + (turn * mapping.ways + place) * mapping.granularity + low
                        try:
                            _, landing = self._walk(hpa)
                        except AccessFault:
                            continue
                        if landing.device is device and landing.mapping == mapping:
                            return hpa
            return None

    def poisoned(self, hpa: int, size: int) -> list[int]:
        """The host addresses of the poisoned 64-byte lines that a range meets, in order."""
        first, found = hpa & -LINE, []
        with self.lock:
            for device in (one for one in self.devices if one.poison.any):
                for dpa, length in device.poison.bad():
                    for line in range(dpa, dpa + length, LINE):
                        at = self.hpa_of(device, line)
                        if at is not None and first <= at < hpa + size:
                            found.append(at)
        return sorted(found)

    def view(self, hpa: int, size: int) -> ByteArray | None:
        """The bytes of a range of host addresses, live and writable, as one array; None unless committed decoders of
        devices that answer map all of it, and it can rest in its window's file. Bytes that do not rest there are
        moved there. None for dynamic capacity, too: it may leave at any time, and an array would not notice."""
        with self.lock:
            window = next(
                (one for start, end, one, *_ in self._ranges if start <= hpa and hpa + size <= end), None
            )
            if window is None or size <= 0:
                return None
            try:
                at = hpa
                while at < hpa + size:
                    at = self._settle(at)
            except (AccessFault, MemoryFault):
                return None
            start = window.window.offset(hpa, size)
            return window.window.medium.view()[start : start + size]

    # -- the way down --------------------------------------------------------------------------------------------

    def _load(self, hpa: int, size: int) -> bytes:
        _, landing = self._walk(hpa)
        device, dpa = landing.device, landing.locate(hpa)
        self._serving(landing, hpa, size)
        if dpa + size > device.dynamic.start and (
            why := device.dynamic.refusal(dpa, size, host=device.dynamic_host)
        ):
            raise DecodeError(hpa, f"{device.name}: {why}")
        if device.traffic is not None:
            device.traffic.read(landing.mapping.decoder, dpa, size)
        poison = device.poison
        if poison.any and (line := poison.met(dpa, size)) is not None:
            raise PoisonError(hpa + line - (dpa & -LINE) & -LINE, device.name, line)
        return landing.rest.read(dpa, size)

    def _store(self, hpa: int, data: bytes) -> None:
        _, landing = self._walk(hpa)
        device, dpa = landing.device, landing.locate(hpa)
        self._serving(landing, hpa, len(data))
        if dpa + len(data) > device.dynamic.start and (
            why := device.dynamic.refusal(dpa, len(data), write=True, host=device.dynamic_host)
        ):
            raise DecodeError(hpa, f"{device.name}: {why}")
        landing.rest.write(dpa, data)
        if device.traffic is not None:
            device.traffic.write(landing.mapping.decoder, dpa, len(data))
        if device.poison.any:
            first, last = -(-dpa // LINE) * LINE, (dpa + len(data)) // LINE * LINE
            if first < last:
                device.clear_poison(first, last - first)

    def _serving(self, landing: Landing, hpa: int, size: int | None = None) -> None:
        """The device answers for `size` bytes from `hpa` on, or for all that its decoder maps."""
        device = landing.device
        if device.silent:
            raise DeviceFault(hpa, f"{device.name} does not answer")
        if not device.memory_enabled:
            raise DeviceFault(hpa, f"{device.name} has Mem_Enable clear")
        if not device.decoders.enabled:
            raise DeviceFault(hpa, f"{device.name} has its HDM decoders disabled")
        if device.media_disabled:
            raise DeviceFault(hpa, f"the media of {device.name} are disabled")
        if device.viral:
            raise ViralError(hpa, device.name, landing.locate(hpa))
        if device.security.locked:
            mapping = landing.mapping
            first, length = (mapping.dpa, mapping.dpa_size) if size is None else (landing.locate(hpa), size)
            if device.security.locks(first, length):
                raise DeviceFault(hpa, f"the persistent memory of {device.name} is locked")

    def _walk(self, hpa: int, names: list[str] | None = None) -> tuple[Path, Landing]:
        """Ask every decoder on the way down. `names`, if given, is filled with the components' names."""
        for start, end, window, shift, ways in self._ranges:  # noqa: B007  # used where the loop breaks
            if start <= hpa < end:
                break
        else:
            raise DecodeError(hpa, "no window holds it")
        address = xor.apply(window.xor_maps, hpa) if window.xor_maps else hpa
        position = (address >> shift) % ways
        node: HostBridge | UpstreamPort = window.targets[position]
        path: Path = (window, position)
        if names is not None:
            names += [f"window {start:#x}", node.name]
        while True:
            for route in node.routes:
                if route.base <= hpa < route.end:
                    break
            else:
                raise DecodeError(hpa, f"no decoder of {node.name} takes it")
            position = hpa >> route.shift & route.mask
            path = (*path, route, position)
            port = node.ports[route.targets[position]]
            below = port.beyond
            if isinstance(below, UpstreamPort):
                node = below
                if names is not None:
                    names.append(node.name)
                continue
            if not isinstance(below, Type3):
                raise LinkDown(hpa, f"nothing that has memory answers below {port.name}")
            break
        landings = self._landings.get(path)
        if landings is None:
            landings = self._landings[path] = self._land(path, below)
        for landing in landings:
            if landing.base <= hpa < landing.end:
                break
        else:
            raise DecodeError(hpa, f"no decoder of {below.name} takes it")
        if landing.fault:
            raise DecodeError(hpa, landing.fault)
        if names is not None:
            names.append(below.name)
        return path, landing

    def _land(self, path: Path, device: Type3) -> tuple[Landing, ...]:
        return tuple(land(path, device, mapping) for mapping in device.decoders.mappings if mapping.size)

    def _settle(self, hpa: int) -> int:
        """Bring the region around `hpa` to rest in its window; returns the first address beyond what was seen to."""
        for span in self._spans:
            if span.start <= hpa < span.end and span.window.residents is span.residents:
                for landing in span.members:
                    self._serving(landing, hpa)
                return span.end
        path, landing = self._walk(hpa)
        window, mapping = path[0], landing.mapping
        assert isinstance(window, CxlWindow)
        end = window.window.base + window.window.size
        members: dict[int, Landing] = {}
        rounds = mapping.ways * mapping.granularity
        start = hpa - (hpa - mapping.hpa) % rounds
        for at in range(start, start + rounds, mapping.granularity):
            path, landing = self._walk(at)
            self._serving(landing, at)
            end = min(
                [end, landing.end, *(one.end for one in path[2::2] if not isinstance(one, int | CxlWindow))]
            )
            members[landing.position] = landing
        for landing in members.values():
            own, space = landing.mapping, landing.device.space
            if own.dpa + own.dpa_size > landing.device.dynamic.start:
                raise DeviceFault(hpa, f"{landing.device.name} has dynamic capacity there")
            space.commit(
                window.window,
                own.hpa,
                own.size,
                landing.interleave,
                landing.position,
                own.dpa - own.skip,
                own.skip,
            )
        found = window.window
        self._spans.append(_Span(start, end, tuple(members.values()), found, found.residents))
        return end


class _Span(NamedTuple):
    """A range of addresses that was seen to: who answers there, and the residency of the window then."""

    start: int
    end: int
    members: tuple[Landing, ...]
    window: Window
    residents: tuple[Resident, ...]


class _Plug:
    """What a device's decoders know of the machine."""

    def __init__(self, machine: HostMachine, device: Type3) -> None:
        self._machine, self._device = machine, device

    def commit(self, mapping: DeviceMapping) -> None:
        self._machine.changed()

    def release(self, mapping: DeviceMapping) -> None:
        self._machine.release(self._device, mapping)


def _pieces(hpa: int, size: int) -> Iterator[tuple[int, int]]:
    """An access in parts that no interleave divides."""
    end = hpa + size
    while hpa < end:
        length = min(end - hpa, _UNIT - hpa % _UNIT)
        yield hpa, length
        hpa += length
