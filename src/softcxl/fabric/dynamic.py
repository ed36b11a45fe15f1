"""Dynamic capacity regions, from a topology's keys to the device's."""

from __future__ import annotations

from collections.abc import Iterator

from softcxl.device.dynamic.errors import RegionInvalid
from softcxl.device.dynamic.region import DynamicRegion, place
from softcxl.fabric import keys
from softcxl.fabric.limits import Fault, Path


def region(key: keys.DynamicRegion) -> DynamicRegion:
    """What the device is made with. Raises `RegionInvalid`."""
    return DynamicRegion(
        length=key.length,
        block_size=key.block_size,
        decode_length=key.decode_length or 0,
        non_volatile="non-volatile" in key.flags,
        sharable="sharable" in key.flags,
        hardware_coherent="coherent" in key.flags,
        read_only="read-only" in key.flags,
        sanitize_on_release="sanitize-on-release" in key.flags,
        dsmad_handle=key.dsmad_handle,
    )


def non_volatile(device: keys.Type3 | keys.MultiLogicalDevice) -> bool:
    """Whether there is a region that does not forget."""
    return any("non-volatile" in one.flags for one in device.dynamic)


def size(device: keys.Type3 | keys.MultiLogicalDevice) -> int:
    """Bytes of device addresses that the regions take."""
    return sum(region(one).decode_length for one in device.dynamic)


def faults(device: keys.Type3 | keys.MultiLogicalDevice, at: Path) -> Iterator[Fault]:
    """What the standard does not allow of the regions of one device."""
    made: list[DynamicRegion] = []
    for number, one in enumerate(device.dynamic):
        here = (*at, "dynamic", number)
        for index, word in enumerate(one.flags):
            if word in one.flags[:index]:
                yield Fault((*here, "flags", index), f"{word} is given twice")
        try:
            made.append(region(one))
            place(made, 0)
        except RegionInvalid as error:
            yield Fault(here, str(error), within=((*at, "dynamic"),))
            return
