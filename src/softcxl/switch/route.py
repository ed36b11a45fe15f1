"""How an access to CXL memory finds its byte: window, host bridge, root port, switches, endpoint, each by its decoders.

Every access asks every decoder on its way anew. What is kept between accesses is whether the decoders of one way
agree with each other, and that is forgotten when any of them, or the hierarchy, changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm, prod

from softcxl.device.decoder import Mapping
from softcxl.device.type3 import Type3
from softcxl.memory import xor
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import Interleave, encode_granularity, encode_ways
from softcxl.memory.window import Window
from softcxl.switch.decoder import Route
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.rest import Rest


@dataclass(frozen=True, slots=True, eq=False)
class CxlWindow:
    """A fixed memory window: the addresses of `window` are dealt out to `targets` by turns of `granularity` bytes.

    `xor_maps` are the CXIMS maps in use, none for modulo arithmetic (`softcxl.memory.xor.maps_for`). Raises
    `GeometryError` for what no window can be.
    """

    window: Window
    targets: tuple[HostBridge, ...]
    granularity: int = 256
    xor_maps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        encode_ways(len(self.targets))
        encode_granularity(self.granularity)
        ways = len(self.targets) & -len(self.targets)
        xor.check_maps(self.xor_maps, self.shift, ways.bit_length() - 1)
        if len(set(self.targets)) < len(self.targets):
            raise GeometryError("a window names each host bridge once")

    @property
    def shift(self) -> int:
        """log2 of the granularity."""
        return self.granularity.bit_length() - 1

    @property
    def ways(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class Hop:
    """One decoder that an address passes: of `component`, by its `decoder` number (None: a window, or a component
    that needs none). It takes `position` of `ways`, which is `target`."""

    component: str
    decoder: int | None
    ways: int
    granularity: int
    position: int
    target: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The whole way of the address `hpa`: to `dpa` of `device`, whose HDM decoder is number `decoder`."""

    hpa: int
    hops: tuple[Hop, ...]
    device: Type3
    decoder: int
    dpa: int


Path = tuple["CxlWindow | Route | int", ...]
"""A window and the position taken in it, then a route and the position taken for each decoder below."""


@dataclass(slots=True, eq=False)
class Landing:
    """Where addresses `base` up to `end` of one path end: at one decoder of a device.

    `fault` says why they cannot, where the decoders of the path disagree with it; `interleave` and `position` are
    what all of them together make of the device's share.
    """

    base: int
    end: int
    shift: int
    ways: int
    dpa: int
    device: Type3
    mapping: Mapping
    fault: str
    interleave: Interleave
    position: int
    rest: Rest

    def locate(self, hpa: int) -> int:
        """The DPA of an address (CXL 3.1 §8.2.4.20.13)."""
        offset, shift = hpa - self.base, self.shift
        return self.dpa + ((offset >> shift) // self.ways << shift | offset & (1 << shift) - 1)


def land(path: Path, device: Type3, mapping: Mapping) -> Landing:
    """What becomes of the addresses of `mapping` that come to `device` by `path`."""
    window = path[0]
    assert isinstance(window, CxlWindow)
    fault, position, interleave = "", 0, Interleave()
    try:
        position = together(_levels(path), mapping)
        maps = window.xor_maps if mapping.ways > 1 else ()
        interleave = Interleave(mapping.ways, mapping.granularity, maps, base=mapping.hpa if maps else 0)
    except GeometryError as error:
        fault = f"{device.name} decoder {mapping.decoder}: {error}"
    shift = mapping.granularity.bit_length() - 1
    return Landing(
        mapping.hpa,
        mapping.hpa + mapping.size,
        shift,
        mapping.ways,
        mapping.dpa,
        device,
        mapping,
        fault,
        interleave,
        position,
        Rest(device.space, mapping.dpa, mapping.dpa + mapping.dpa_size),
    )


def _levels(path: Path) -> list[tuple[int, int, int]]:
    """(ways, log2 of the granularity, position) of each decoder of a path that divides."""
    pairs = zip(path[::2], path[1::2], strict=True)
    return [
        (one.ways, one.shift, position)
        for one, position in pairs
        if isinstance(one, CxlWindow | Route) and isinstance(position, int) and one.ways > 1
    ]


def together(levels: Sequence[tuple[int, int, int]], mapping: Mapping) -> int:
    """The position that a path's levels give an endpoint in its interleave set.

    `levels` are (ways, log2 of the granularity, position). Raises `GeometryError` unless exactly one block of each
    round of the endpoint's ways comes by that path, always the same: else two host addresses would share a device
    address, or device addresses would have none.
    """
    ways, unit = mapping.ways, mapping.granularity.bit_length() - 1
    found = prod(level[0] for level in levels)
    if found != ways:
        raise GeometryError(f"it has {ways} ways, the decoders above it make {found}")
    if ways == 1:
        return 0
    if finer := [shift for _, shift, _ in levels if shift < unit]:
        raise GeometryError(
            f"its granularity is {mapping.granularity}, a decoder above it has {1 << min(finer)}"
        )
    first = mapping.hpa >> unit
    period = lcm(ways, *(count << shift - unit for count, shift, _ in levels))
    hits = [
        block
        for block in range(period)
        if all((first + block >> shift - unit) % count == place for count, shift, place in levels)
    ]
    places = {block % ways for block in hits}
    if len(places) != 1 or len(hits) != period // ways:
        told = ", ".join(f"{count} ways at {1 << shift}" for count, shift, _ in levels)
        raise GeometryError(
            f"{told} do not make {ways} ways at {mapping.granularity}: blocks of a round meet in one device"
        )
    return places.pop()


def trace(path: Path, names: Sequence[str], device: Type3, mapping: Mapping, hpa: int, dpa: int) -> Trace:
    """The way of an address in words. `names` are the components' from the window down to the device."""
    pairs = zip(path[::2], path[1::2], strict=True)
    hops = []
    for number, (one, position) in enumerate(pairs):
        assert isinstance(one, CxlWindow | Route)
        assert isinstance(position, int)
        decoder = one.decoder if isinstance(one, Route) and one.decoder >= 0 else None
        hops.append(Hop(names[number], decoder, one.ways, one.granularity, position, names[number + 1]))
    return Trace(hpa, tuple(hops), device, mapping.decoder, dpa)
