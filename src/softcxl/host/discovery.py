"""Regions that are there already: decoders that firmware, or the kernel before this one, has committed.

As in Linux a region is put together when all of its endpoints have come, and their positions are read off the target
lists above them. What does not fit together is left alone, and a sentence says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.errors import RegionError
from softcxl.host.levels import levels
from softcxl.host.port import Port
from softcxl.host.region import Region

if TYPE_CHECKING:
    from softcxl.host.system import System


def discover(system: System) -> None:
    """Make regions of committed decoders that are in none."""
    groups: dict[tuple[int, int], list[EndpointDecoder]] = {}
    for endpoint in system.endpoints:
        for decoder in endpoint.decoders:
            if decoder.committed and decoder.dpa is not None and decoder.region is None:
                groups.setdefault((decoder.setting.base, decoder.setting.size), []).append(decoder)
    for (base, size), decoders in sorted(groups.items()):
        try:
            root = _root(system, base, size)
            _assemble(system, root, decoders)
        except RegionError as error:
            names = ", ".join(one.memdev.name for one in decoders)
            sentence = f"committed decoders at {base:#x} of {names} are no region: {error}"
            if sentence not in system.problems:
                system.problems.append(sentence)


def _root(system: System, base: int, size: int) -> RootDecoder:
    for root in system.root.decoders:
        if root.window.base <= base and base + size <= root.window.end:
            return root
    raise RegionError(f"no window has {base:#x} to {base + size - 1:#x}")


def _assemble(system: System, root: RootDecoder, decoders: list[EndpointDecoder]) -> None:
    first = decoders[0]
    ways, granularity = first.setting.ways, first.setting.granularity
    for other in decoders[1:]:
        if (other.setting.ways, other.setting.granularity, other.mode) != (ways, granularity, first.mode):
            raise RegionError(
                f"{first.memdev.name} has {ways} ways at {granularity} of {first.mode}, {other.memdev.name} has"
                f" {other.setting.ways} at {other.setting.granularity} of {other.mode}"
            )
    if len(decoders) != ways:
        raise RegionError(f"{len(decoders)} of {ways} devices are here")
    targets: list[EndpointDecoder | None] = [None] * ways
    ports: dict[Port, PortDecoder] = {}
    for decoder in decoders:
        position = _position(root, decoder, ports)
        if position >= ways or targets[position] is not None:
            raise RegionError(
                f"{decoder.memdev.name} comes to position {position}, which is taken or not there"
            )
        targets[position] = decoder
    members = [one.endpoint for one in targets if one is not None]
    if root.window.ways > 1 and granularity != root.window.granularity:
        raise RegionError(f"granularity {granularity} differs from the window's {root.window.granularity}")
    for level in levels(root, members, granularity):
        setting = ports[level.port].setting
        if ports[level.port].hdm is None:
            continue
        if setting.ways != level.ways or (level.ways > 1 and setting.granularity != level.granularity):
            raise RegionError(
                f"{ports[level.port].name} has {setting.ways} ways at {setting.granularity}; {level.ways} at"
                f" {level.granularity} are due"
            )
    region = Region(
        machine=system.machine,
        number=root.next_region,
        root=root,
        type=first.mode,
        hpa=first.setting.base,
        size=first.setting.size,
        ways=ways,
        granularity=granularity,
        targets=targets,
        ports=ports,
        automatic=True,
        committed=True,
        enabled=True,
    )
    for decoder in decoders:
        decoder.region = region
    for port_decoder in ports.values():
        port_decoder.region = region
    root.next_region = system.region_numbers.take()
    root.regions.append(region)


def _position(root: RootDecoder, decoder: EndpointDecoder, ports: dict[Port, PortDecoder]) -> int:
    """Its position by the target lists above it (Linux ``cxl_calc_interleave_pos``); notes the ports' decoders."""
    position = 0
    for port in decoder.endpoint.ancestors:
        above = _covering(port, decoder)
        ports[port] = above
        dport = port.dport_towards(decoder.endpoint)
        if above.hdm is None:
            continue
        try:
            position = position * above.setting.ways + above.setting.targets.index(dport.id)
        except ValueError:
            listed = ", ".join(map(str, above.setting.targets))
            raise RegionError(
                f"{above.name} of {port.host} goes to ports {listed}, and {decoder.memdev.name} is behind {dport.id}"
            ) from None
    bridge = decoder.endpoint.bridge
    if bridge not in root.targets:
        raise RegionError(f"{root.name} does not go to {bridge.name}, behind which {decoder.memdev.name} is")
    return position * len(root.targets) + root.targets.index(bridge)


def _covering(port: Port, decoder: EndpointDecoder) -> PortDecoder:
    if port.hdm is None:
        return port.decoders[0]
    for one in port.decoders:
        if one.committed and (one.setting.base, one.setting.size) == (
            decoder.setting.base,
            decoder.setting.size,
        ):
            return one
    raise RegionError(f"no decoder of {port.name} ({port.host}) has the range of {decoder.name}")
