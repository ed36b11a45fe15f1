"""Region labels: what a host writes on its devices so that persistent regions come back (CXL 3.1 §9.13.2).

A set of labels is written twice: marked as updating on every device, then without the mark. A set of which any is
missing, damaged or marked was torn, and is no region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from softcxl.host import assembly
from softcxl.host.errors import HostError, LabelError, RegionError
from softcxl.host.labelarea import LabelArea
from softcxl.host.memdev import Memdev
from softcxl.memory.errors import GeometryError
from softcxl.memory.interleave import decode_granularity, encode_granularity
from softcxl.spec.cxl.label import LabelFlags, RegionLabel

if TYPE_CHECKING:
    from softcxl.host.region import Region
    from softcxl.host.system import System


@dataclass(frozen=True, slots=True)
class _Set:
    """Labels of one region by position, and the devices that they are on."""

    labels: list[RegionLabel]
    memdevs: list[Memdev]


def store(system: System, region: Region) -> None:
    """Write the region's labels. Where a device has no room for one, no device gets any, and a sentence says so."""
    written: list[LabelArea] = []
    try:
        areas = [LabelArea(one.memdev) for one in region.targets if one is not None]
        for area in areas:
            area.prepare()
        for updating in (True, False):
            for position, area in enumerate(areas):
                label = _label(region, position, updating)
                area.replace(label)
                written.append(area)
    except HostError as error:
        for area in written:
            _remove(area, region.uuid)
        system.problems.append(f"{region.name} has no labels, and will not come back by itself: {error}")
        return
    region.labelled = True


def forget(system: System, region: Region) -> None:
    """Remove the region's labels from wherever they are."""
    region.labelled = False
    for memdev in system.memdevs.values():
        if memdev.label_storage_size:
            try:
                _remove(LabelArea(memdev), region.uuid)
            except HostError as error:
                system.problems.append(str(error))


def restore(system: System) -> None:
    """Make the regions that labels describe, where they are not there already.

    A set of labels that is not whole, or that does not hold any more, becomes a sentence in `System.problems`.
    """
    for uuid, found in sorted(_read(system).items(), key=lambda one: min(label.hpa for label, _ in one[1])):
        known = next((one for one in system.regions.values() if one.uuid == uuid), None)
        if known is not None:
            continue
        try:
            _restore(system, uuid, _whole(found))
        except (HostError, GeometryError) as error:
            system.problems.append(f"the region with UUID {uuid} does not come back: {error}")


def _read(system: System) -> dict[UUID, list[tuple[RegionLabel, Memdev]]]:
    found: dict[UUID, list[tuple[RegionLabel, Memdev]]] = {}
    for memdev in system.memdevs.values():
        if not memdev.label_storage_size or not memdev.size("pmem"):
            continue
        try:
            area = LabelArea(memdev)
            system.problems += [f"labels of {memdev.name}: {one}" for one in area.damage()]
            for label in area.regions():
                found.setdefault(label.uuid, []).append((label, memdev))
        except HostError as error:
            system.problems.append(f"labels of {memdev.name}: {error}")
    return found


def _whole(found: list[tuple[RegionLabel, Memdev]]) -> _Set:
    first = found[0][0]
    positions: dict[int, tuple[RegionLabel, Memdev]] = {}
    for label, memdev in found:
        if label.flags.updating:
            raise LabelError(f"{memdev.name} has a label that was being written")
        for name in ("label_count", "raw_size", "interleave_granularity", "hpa"):
            if getattr(label, name) != getattr(first, name):
                raise LabelError(
                    f"the label of {memdev.name} says {name} {getattr(label, name):#x}, that of {found[0][1].name}"
                    f" {getattr(first, name):#x}"
                )
        if label.position in positions:
            other = positions[label.position][1].name
            raise LabelError(f"{memdev.name} and {other} both have position {label.position}")
        positions[label.position] = label, memdev
    missing = [str(one) for one in range(first.label_count) if one not in positions]
    if missing or len(positions) != first.label_count:
        raise LabelError(f"of {first.label_count} positions {', '.join(missing) or 'too many'} are missing")
    ordered = [positions[one] for one in range(first.label_count)]
    return _Set([label for label, _ in ordered], [memdev for _, memdev in ordered])


def _restore(system: System, uuid: UUID, given: _Set) -> None:
    first = given.labels[0]
    for region in system.regions.values():
        if region.type == "pmem" and region.memdevs == given.memdevs and _same_place(region, given):
            region.uuid, region.labelled = uuid, True  # firmware has programmed it already
            return
    for label, memdev in zip(given.labels, given.memdevs, strict=True):
        start = memdev.partitions["pmem"][1] - memdev.available("pmem")
        if label.dpa != start:
            raise LabelError(
                f"{memdev.name}: its part begins at DPA {label.dpa:#x}, and what is free at {start:#x}"
            )
    size = first.raw_size * first.label_count
    granularity = decode_granularity(first.interleave_granularity)
    wanted = assembly.Wanted(
        members=given.memdevs, type="pmem", size=size, granularity=granularity, uuid=uuid, hpa=first.hpa
    )
    try:
        region = assembly.create(system, wanted)
    except RegionError:
        # Its addresses may be another's by now; the data do not depend on them.
        region = assembly.create(system, assembly.elsewhere(wanted))
    region.labelled = True


def _same_place(region: Region, given: _Set) -> bool:
    return all(
        target is not None and target.dpa == (label.dpa, label.dpa + label.raw_size)
        for target, label in zip(region.targets, given.labels, strict=True)
    )


def _label(region: Region, position: int, updating: bool) -> RegionLabel:
    target = region.targets[position]
    assert target is not None
    assert target.dpa is not None
    assert region.uuid is not None
    return RegionLabel(
        uuid=region.uuid,
        flags=LabelFlags.make(updating=updating),
        label_count=region.ways,
        position=position,
        dpa=target.dpa[0],
        raw_size=target.dpa_size,
        hpa=region.hpa,
        interleave_granularity=encode_granularity(region.granularity),
        alignment=1,
    )


def _remove(area: LabelArea, uuid: UUID | None) -> None:
    if uuid is not None and area.usable:
        area.remove(uuid)
