"""Making regions: everything is checked first, then addresses are allocated and decoders committed, in order.

The order is Linux's: each endpoint's decoder, then those of the ports above it, position by position. Taking apart
goes the other way. Whatever is refused, nothing has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.errors import CommitError, RegionError
from softcxl.host.levels import Level, arranged, levels
from softcxl.host.memdev import Memdev
from softcxl.host.port import Endpoint, Port
from softcxl.host.region import Region
from softcxl.host.registers import Setting
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import WAYS, encode_granularity, encode_ways

if TYPE_CHECKING:
    from softcxl.host.system import System

UNIT = 256 << 20
"""A region takes a multiple of 256 MiB from each of its devices."""

TYPES = {"ram": "volatile", "pmem": "persistent"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for; None where it was left open. Sizes in bytes. `hpa` is for regions that come back."""

    members: list[Memdev] | None = None
    decoder: RootDecoder | None = None
    type: str | None = None
    size: int | None = None
    ways: int | None = None
    granularity: int | None = None
    uuid: UUID | None = None
    hpa: int | None = None


def elsewhere(wanted: Wanted) -> Wanted:
    """The same at any address."""
    return replace(wanted, hpa=None)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A region that can be."""

    root: RootDecoder
    type: str
    hpa: int
    size: int
    granularity: int
    members: list[Endpoint]
    levels: list[Level]


def create(system: System, wanted: Wanted) -> Region:
    """Make the region and enable it. Raises `RegionError`."""
    if wanted.uuid is not None and not wanted.uuid.int:
        raise RegionError(f"{wanted.uuid} is the UUID of nothing; give another, or none")
    if wanted.ways is not None and wanted.ways not in WAYS:
        raise RegionError(f"{wanted.ways} ways: allowed are {', '.join(map(str, sorted(WAYS)))}")
    proposal = _propose(system, wanted)
    if wanted.uuid is not None and proposal.type == "ram":
        raise RegionError(f"a region of type ram has no UUID; {wanted.uuid} was given")
    root = proposal.root
    region = Region(
        machine=system.machine,
        number=root.next_region,
        root=root,
        type=proposal.type,
        hpa=proposal.hpa,
        size=proposal.size,
        ways=len(proposal.members),
        granularity=proposal.granularity,
        uuid=(wanted.uuid or uuid4()) if proposal.type == "pmem" else None,
    )
    try:
        for member in proposal.members:
            decoder = member.memdev.next_decoder()
            member.memdev.allocate(decoder, region.type, region.size // region.ways)
            decoder.region = region
            region.targets.append(decoder)
        for level in proposal.levels:
            port_decoder = free_decoder(level.port)
            port_decoder.region = region
            region.ports[level.port] = port_decoder
        _commit(region, proposal.levels)
    except RegionError:
        _release(region)
        raise
    root.next_region = system.region_numbers.take()
    root.regions.append(region)
    region.committed = region.enabled = True
    return region


def destroy(system: System, region: Region) -> None:
    """Take the region apart. Raises `RegionError` where firmware forbids it, or a later region stands on it."""
    for decoder in [*region.targets, *region.ports.values()]:
        if region.locked or (decoder is not None and decoder.setting.locked):
            name = region.root.name if decoder is None or region.locked else decoder.name
            raise RegionError(f"{region.name}: {name} is locked; firmware forbids to change it")
    for target in region.targets:
        for later in target.endpoint.decoders[target.number + 1 :] if target is not None else ():
            if later.dpa is not None:
                holder = later.region.name if later.region else "nobody's"
                assert target is not None
                raise RegionError(
                    f"{region.name}: {target.name} of {target.memdev.name} cannot be freed before {later.name}"
                    f" ({holder}), whose device addresses begin where its own end"
                )
    _reset(region)
    _release(region)
    forget(system, region)


def forget(system: System, region: Region) -> None:
    """The region, which has nothing any more, is gone; its number is free."""
    root = region.root
    root.regions.remove(region)
    if region.number < root.next_region:  # as Linux does, to keep numbers small
        system.region_numbers.free(root.next_region)
        root.next_region = region.number
    else:
        system.region_numbers.free(region.number)


def lose(region: Region, memdev: Memdev) -> None:
    """A device of the region has gone: nothing of it is decoded any more, and it is disabled."""
    _reset(region, gone=memdev)
    for position, target in enumerate(region.targets):
        if target is not None and target.memdev is memdev:
            region.targets[position] = None
            region.problem = f"{memdev.name} ({memdev.host}), position {position}, is gone"


def commit(region: Region) -> None:
    """Commit the decoders of a region whose members and ports' decoders are all assigned. Raises `RegionError`."""
    members = [one.endpoint for one in region.targets if one is not None]
    _commit(region, levels(region.root, members, region.granularity))
    region.committed = True


def reset(region: Region) -> None:
    """Take its decoders out of effect; it keeps members and addresses."""
    _reset(region)


# -- checking ------------------------------------------------------------------------------------------------


def _propose(system: System, wanted: Wanted) -> Proposal:
    candidates = system.root.decoders if wanted.decoder is None else [wanted.decoder]
    if not candidates:
        raise RegionError("the firmware describes no CXL memory window")
    refusals = []
    for root in candidates:
        try:
            return _consider(root, system, wanted)
        except RegionError as error:
            refusals.append(error)
    if len(refusals) == 1:
        raise refusals[0]
    reasons = "; ".join(
        str(error) if str(error).startswith(root.name) else f"{root.name}: {error}"
        for root, error in zip(candidates, refusals, strict=True)
    )
    raise RegionError(f"no window takes it: {reasons}")


def _consider(root: RootDecoder, system: System, wanted: Wanted) -> Proposal:
    kind = _type(root, wanted.type, wanted.members or list(system.memdevs.values()))
    if wanted.granularity is not None:
        _check_granularity(root, wanted.granularity)
    granularity = wanted.granularity or root.window.granularity
    memdevs = _members(root, system, wanted, kind)
    _check_ways(root, len(memdevs))
    members = [_endpoint(one) for one in memdevs]
    for position, member in enumerate(members):
        if member in members[:position]:
            raise RegionError(
                f"{member.memdev.name} is given twice, at positions {members.index(member)} and {position}"
            )
        problem = member.hdm.problem(len(members), granularity)
        if problem:
            raise RegionError(f"{member.memdev.name}: {problem}")
        member.memdev.next_decoder()
    plan = levels(root, members, granularity)
    size = _size(root, memdevs, kind, wanted.size)
    for level in plan:
        free_decoder(level.port)
    hpa = _address(root, members, plan, size, wanted.hpa)
    return Proposal(root, kind, hpa, size, granularity, members, plan)


def _type(root: RootDecoder, given: str | None, memdevs: Sequence[Memdev]) -> str:
    """The type asked for; by default pmem, as with ``cxl create-region``, but not where no device has any."""
    if given is not None and given not in TYPES:
        raise RegionError(f"{given} is no type of region; types are {' and '.join(TYPES)}")
    persistent = root.persistent and (not root.volatile or any(one.size("pmem") for one in memdevs))
    kind = given or ("pmem" if persistent else "ram")
    if not (root.persistent if kind == "pmem" else root.volatile):
        takes = [word for word, able in (("ram", root.volatile), ("pmem", root.persistent)) if able]
        raise RegionError(
            f"{root.name}: its window takes {' and '.join(takes) or 'neither type'}, not {kind}"
        )
    return kind


def _check_granularity(root: RootDecoder, granularity: int) -> None:
    try:
        encode_granularity(granularity)
    except GeometryError as error:
        raise RegionError(str(error)) from None
    if root.window.ways > 1 and granularity != root.window.granularity:
        raise RegionError(
            f"{root.name}: granularity {granularity} differs from the {root.window.granularity} at which its window"
            f" deals out to {root.window.ways} host bridges"
        )


def _check_ways(root: RootDecoder, ways: int) -> None:
    try:
        encode_ways(ways)
    except GeometryError as error:
        raise RegionError(str(error)) from None
    quotient, uneven = divmod(ways, root.window.ways)
    if uneven or quotient & (quotient - 1):
        raise RegionError(
            f"{root.name}: {ways} ways are not a power of two times the {root.window.ways} of its window"
        )


def _members(root: RootDecoder, system: System, wanted: Wanted, kind: str) -> list[Memdev]:
    if wanted.members is not None:
        if not wanted.members:
            raise RegionError("a region has at least one memory device; none was given")
        if wanted.ways not in (None, len(wanted.members)):
            raise RegionError(f"{wanted.ways} ways and {len(wanted.members)} memory devices were given")
        return wanted.members
    below = [
        one
        for one in system.memdevs.values()
        if one.endpoint is not None and one.endpoint.bridge in root.targets and one.available(kind) >= UNIT
    ]
    if not below:
        raise RegionError(f"{root.name}: no memory device below it has {kind} capacity left")
    for ways in sorted(WAYS, reverse=True) if wanted.ways is None else [wanted.ways]:
        if ways <= len(below):
            _check_ways(root, ways) if wanted.ways is not None else None
            order = arranged(root, below, ways)
            if order is not None:
                return order
    names = ", ".join(one.name for one in below)
    many = "any ways" if wanted.ways is None else f"{wanted.ways} ways"
    raise RegionError(f"{root.name}: {names} cannot be arranged in {many}; name them in order")


def _endpoint(memdev: Memdev) -> Endpoint:
    if memdev.endpoint is None:
        raise RegionError(f"{memdev.name} ({memdev.host}) has no CXL port: its driver did not bind")
    if not memdev.present:
        raise RegionError(f"{memdev.name} ({memdev.host}) does not answer any more")
    return memdev.endpoint


def _size(root: RootDecoder, memdevs: Sequence[Memdev], kind: str, given: int | None) -> int:
    ways, extent = len(memdevs), root.max_available_extent
    step = UNIT * ways
    least = min(memdevs, key=lambda one: one.available(kind))
    available = least.available(kind)
    if given is None:
        size = min(available * ways, extent) // step * step
        if not size:
            short = f"{least.name} has {available:#x} bytes of {kind} left" if available < UNIT else ""
            full = f"{root.name} has {extent:#x} bytes of addresses left" if extent < step else ""
            raise RegionError(f"{short or full}, and {UNIT:#x} from each of {ways} are the least")
        return size
    if given <= 0 or given % step:
        raise RegionError(
            f"size {given:#x} is not a multiple of {step:#x} (256 MiB for each of {ways} devices)"
        )
    if available < given // ways:
        raise RegionError(
            f"{least.name}: {given // ways:#x} bytes of {kind} are needed, and {available:#x} of its"
            f" {least.size(kind):#x} are free"
        )
    if given > extent:
        raise RegionError(
            f"{root.name}: {given:#x} bytes, and the largest free range of its window has {extent:#x}"
        )
    return given


def _address(
    root: RootDecoder, members: Sequence[Endpoint], plan: Sequence[Level], size: int, given: int | None
) -> int:
    """The first free addresses above everything that the decoders before these decode: they go in that order."""
    if given is not None and given % UNIT:
        raise RegionError(f"{root.name}: {given:#x} is no multiple of 256 MiB, where a region can begin")
    highest, holder = 0, ""
    everywhere: list[Port | Endpoint] = [*members, *(level.port for level in plan)]
    for port in everywhere:
        for decoder in port.decoders:
            if decoder.committed and decoder.setting.base + decoder.setting.size > highest:
                highest, holder = decoder.setting.base + decoder.setting.size, decoder.name
    for start, end in root.gaps():
        base = -(-max(start, highest) // UNIT) * UNIT if given is None else given
        if max(start, highest) <= base and base + size <= end:
            return base
    below = f" above {highest:#x}, where {holder} ends" if holder else ""
    where = f"lie at {given:#x}{below}" if given is not None else f"lie{below or ' together'}"
    raise RegionError(f"{root.name}: no {size:#x} free bytes of its window {where}")


def free_decoder(port: Port) -> PortDecoder:
    """The decoder of a port that is next to be committed. Raises `RegionError` where there is none."""
    number = port.committed
    if number >= len(port.decoders):
        raise RegionError(f"{port.name} ({port.host}): its {len(port.decoders)} HDM decoders are all in use")
    for later in port.decoders[number:]:
        if later.committed or later.region is not None:
            name = later.region.name if later.region else "firmware"
            raise RegionError(
                f"{port.name} ({port.host}): {port.decoders[number].name} is next, and {later.name} is still {name}'s:"
                " decoders are committed in order"
            )
    return port.decoders[number]


# -- doing ---------------------------------------------------------------------------------------------------


def _commit(region: Region, plan: Sequence[Level]) -> None:
    said = {level.port: level for level in plan}
    try:
        for target in region.targets:
            assert target is not None
            target.commit(_setting(region, region.ways, region.granularity, target.skip))
            for port in target.endpoint.ancestors:
                decoder, level = region.ports[port], said[port]
                if not decoder.committed:
                    decoder.commit(_setting(region, level.ways, level.granularity, level.target_list))
    except CommitError:
        _reset(region)
        raise


def _setting(region: Region, ways: int, granularity: int, target: int) -> Setting:
    return Setting(region.hpa, region.size, ways, granularity, target, committed=True)


def _reset(region: Region, gone: Memdev | None = None) -> None:
    for target in reversed(region.targets):
        if target is None:
            continue
        for port in reversed(target.endpoint.ancestors):
            region.ports[port].reset()
        if target.memdev is not gone:
            target.reset()
    region.committed = region.enabled = False


def _release(region: Region) -> None:
    """Give back what was allocated, the last first."""
    for decoder in reversed(region.targets):
        if decoder is not None:
            _free(decoder)
    for port_decoder in region.ports.values():
        port_decoder.region = None
    region.targets.clear()
    region.ports.clear()


def _free(decoder: EndpointDecoder) -> None:
    decoder.free()
    decoder.region = None
