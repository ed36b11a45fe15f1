"""From an address to a byte, with the arithmetic; and back.

What is explained is what the operating system knows: windows of the CEDT, decoders that it has read or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.errors import AccessError
from softcxl.host.port import Dport, Endpoint, Port
from softcxl.memory.xor import apply

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.region import Region
    from softcxl.host.system import System

D = TypeVar("D", PortDecoder, EndpointDecoder)


@dataclass(frozen=True, slots=True)
class Step:
    """One decoder on the way: what it is (`name`), what it does with the address, and where that leads (`to`)."""

    name: str
    arithmetic: str
    to: str

    def __str__(self) -> str:
        return f"{self.name}: {self.arithmetic}: {self.to}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole way of host address `hpa` to `dpa` of `memdev`. `region` has it, if one does."""

    hpa: int
    memdev: Memdev
    dpa: int
    region: Region | None
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        where = (
            f"offset {self.hpa - self.region.hpa:#x} of {self.region.name}" if self.region else "in no region"
        )
        lines = [f"HPA {self.hpa:#x}, {where}, is DPA {self.dpa:#x} of {self.memdev.name}"]
        return "\n".join([*lines, *(f"  {step}" for step in self.steps)])


def explain(system: System, hpa: int) -> Explanation:
    """The way of a host physical address. Raises `AccessError`, saying how far it comes."""
    root = next((one for one in system.root.decoders if one.window.base <= hpa < one.window.end), None)
    if root is None:
        ranges = ", ".join(f"{one.window.base:#x} to {one.window.end - 1:#x}" for one in system.root.decoders)
        raise AccessError(f"HPA {hpa:#x} is in no CXL window; windows are {ranges or 'none'}")
    dport, first = _window(root, hpa)
    steps = [first]
    port = next((one for one in system.root.ports if one.parent_dport is dport), None)
    if port is None:
        raise AccessError(f"HPA {hpa:#x}: {first}, which has no driver")
    while True:
        dport, step = _port(port, hpa)
        steps.append(step)
        candidates: list[Port | Endpoint] = [*port.ports, *port.endpoints]
        below = next((one for one in candidates if one.parent_dport is dport), None)
        if below is None:
            raise AccessError(f"HPA {hpa:#x}: {step}, below which nothing is")
        if isinstance(below, Endpoint):
            break
        port = below
    decoder = _covering(below.decoders, hpa)
    if decoder is None or decoder.dpa is None:
        raise AccessError(f"HPA {hpa:#x}: no decoder of {below.memdev.name} has it")
    dpa = decoder.offset(hpa)
    steps.append(_endpoint(decoder, hpa, dpa))
    return Explanation(hpa, below.memdev, dpa, system.region_at(hpa), tuple(steps))


def translate(system: System, memdev: Memdev, dpa: int) -> int | None:
    """The host physical address at which a device's byte is seen, None where it is mapped nowhere."""
    for decoder in memdev.decoders:
        if not decoder.committed or decoder.dpa is None or not decoder.dpa[0] <= dpa < decoder.dpa[1]:
            continue
        setting = decoder.setting
        turn, low = divmod(dpa - decoder.dpa[0], setting.granularity)
        for position in range(setting.ways):
            hpa = setting.base + (turn * setting.ways + position) * setting.granularity + low
            try:
                if explain(system, hpa).memdev is memdev:
                    return hpa
            except AccessError:
                continue
    return None


def _window(root: RootDecoder, hpa: int) -> tuple[Dport, Step]:
    window = root.window
    name = f"window {root.number} ({root.name})"
    position = window.target(hpa)
    target = root.targets[position]
    if target is None:
        raise AccessError(f"HPA {hpa:#x}: {name} goes to _UID {window.targets[position]}, which is not there")
    if window.ways == 1:
        return target, Step(name, f"{window.base:#x} to {window.end - 1:#x}, 1 way", target.name)
    shift = window.granularity.bit_length() - 1
    address, how = hpa, "modulo"
    if window.maps:
        address = apply(window.maps, hpa)
        how = f"xor maps {', '.join(map(hex, window.maps))} make it {address:#x}"
    sum_ = f"{address:#x} >> {shift} = {address >> shift:#x}, mod {window.ways} = {position}"
    return target, Step(name, f"{window.ways} ways at {window.granularity}, {how}: {sum_}", target.name)


def _port(port: Port, hpa: int) -> tuple[Dport, Step]:
    name = f"{port.name} ({port.host})"
    decoder = _covering(port.decoders, hpa) if port.hdm else None
    if port.hdm is None and len(port.dports) == 1:
        dport = next(iter(port.dports.values()))
        return dport, Step(name, "one port, which needs no decoder", dport.name)
    if decoder is None:
        raise AccessError(f"HPA {hpa:#x}: no decoder of {name} has it")
    setting = decoder.setting
    shift = setting.granularity.bit_length() - 1
    position = (hpa >> shift) % setting.ways
    number = setting.targets[position]
    dport_or_none = port.dports.get(number)
    if dport_or_none is None:
        raise AccessError(
            f"HPA {hpa:#x}: {decoder.name} of {name} goes to port {number}, below which nothing is"
        )
    sum_ = (
        "1 way"
        if setting.ways == 1
        else f"{setting.ways} ways at {setting.granularity}: ({hpa:#x} >> {shift}) mod {setting.ways} = {position}"
    )
    return dport_or_none, Step(f"{decoder.name} of {name}", f"{sum_}, port {number}", dport_or_none.name)


def _endpoint(decoder: EndpointDecoder, hpa: int, dpa: int) -> Step:
    setting = decoder.setting
    assert decoder.dpa is not None
    offset = hpa - setting.base
    name = f"{decoder.name} of {decoder.memdev.name} ({decoder.memdev.host})"
    if setting.ways == 1:
        return Step(name, f"offset {offset:#x} + DPA {decoder.dpa[0]:#x}", f"DPA {dpa:#x}")
    round_ = setting.ways * setting.granularity
    turn, low = offset // round_, offset % setting.granularity
    sum_ = (
        f"{setting.ways} ways at {setting.granularity}: offset {offset:#x} is turn {turn:#x} and {low:#x};"
        f" DPA {decoder.dpa[0]:#x} + {turn:#x} x {setting.granularity:#x} + {low:#x}"
    )
    return Step(name, sum_, f"DPA {dpa:#x}")


def _covering(decoders: list[D], hpa: int) -> D | None:
    for one in decoders:
        if one.committed and one.setting.base <= hpa < one.setting.base + one.setting.size:
            return one
    return None
