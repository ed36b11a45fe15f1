"""What the client asks before it does anything: which regions and interrupts there are."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from softcxl.spec import vfio_user as spec
from softcxl.transport.port import Region
from softcxl.transport.vfio_user.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softcxl.transport.port import RegionShape

NO_REGION = Region(0, readable=False, writable=False)


def device_info(payload: bytes, regions: Sequence[RegionShape], irqs: Sequence[int]) -> bytes:
    """The reply's payload to DEVICE_GET_INFO. Raises `Refused`."""
    request = spec.DeviceInfo.unpack(payload)
    _room(request.argsz, spec.DeviceInfo.__layout__.size)
    return spec.DeviceInfo(
        argsz=spec.DeviceInfo.__layout__.size,
        flags=spec.DeviceFlags.make(reset=True, pci=True),
        num_regions=len(regions),
        num_irqs=len(irqs),
    ).pack()


def region_info(payload: bytes, regions: Sequence[RegionShape], client_fds: int) -> tuple[bytes, int | None]:
    """The reply's payload to DEVICE_GET_REGION_INFO, and the descriptor that goes with it. Raises `Refused`.

    Where the client has no room for the sparse areas it gets the structure alone, saying how much room they
    take, and asks again; the descriptor goes with the full reply only. `cap_offset` is set in both: QEMU
    refuses a reply with capabilities that does not point at them.
    """
    request = spec.RegionInfo.unpack(payload)
    size = spec.RegionInfo.__layout__.size
    _room(request.argsz, size)
    if request.index >= len(regions):
        raise Refused(errno.EINVAL, f"no region {request.index}")
    region = regions[request.index]
    mappable = bool(region.mappable) and region.fd is not None and client_fds > 0
    areas = b""
    if mappable and region.mappable != ((0, region.size),):
        areas = spec.SparseCapability(
            next=0,
            nr_areas=len(region.mappable),
            areas=[spec.SparseArea(offset=offset, size=size) for offset, size in region.mappable],
        ).pack()
    reply = spec.RegionInfo(
        argsz=size + len(areas),
        flags=spec.RegionFlags.make(
            read=region.readable and region.size > 0,
            write=region.writable and region.size > 0,
            mmap=mappable,
            caps=bool(areas),
        ),
        index=request.index,
        cap_offset=size if areas else 0,
        size=region.size,
        offset=region.start if mappable else 0,
    ).pack()
    if request.argsz < size + len(areas):
        return reply, None
    return reply + areas, region.fd if mappable else None


def irq_info(payload: bytes, irqs: Sequence[int]) -> bytes:
    """The reply's payload to DEVICE_GET_IRQ_INFO. Raises `Refused`."""
    request = spec.IrqInfo.unpack(payload)
    _room(request.argsz, spec.IrqInfo.__layout__.size)
    if request.index >= len(irqs):
        raise Refused(errno.EINVAL, f"no interrupt type {request.index}")
    return spec.IrqInfo(
        argsz=spec.IrqInfo.__layout__.size,
        flags=spec.IrqInfoFlags.make(
            eventfd=True,
            maskable=request.index < spec.IrqIndex.ERR,
            automasked=request.index == spec.IrqIndex.INTX,
        ),
        index=request.index,
        count=irqs[request.index],
    ).pack()


def _room(argsz: int, size: int) -> None:
    if argsz < size:
        raise Refused(errno.EINVAL, f"argsz {argsz} is less than the {size} bytes of the reply")
