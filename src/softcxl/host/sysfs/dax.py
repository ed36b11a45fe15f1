"""Device-dax below a volatile region (Linux drivers/dax/bus.c)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from softcxl.host.sysfs.node import ADMIN, BOTH, WRITE, Attribute, Directory, Entry, Link, group, value

if TYPE_CHECKING:
    from softcxl.host.region import Region

ALIGNMENT = 2 << 20


def has(region: Region) -> bool:
    """The region has a device-dax device."""
    return region.type == "ram" and (region.enabled or bool(region.blocks))


def dax_region(region: Region) -> Mapping[str, Entry]:
    """The attributes of ``dax_regionN``: one device has all of it."""
    return {
        "dax_region": group(
            {
                "align": Attribute(lambda: str(ALIGNMENT), mode=ADMIN),
                "available_size": value(0),
                "create": Attribute(lambda: "", mode=BOTH),
                "delete": Attribute(None, mode=WRITE),
                "id": value(region.number),
                "seed": value(""),
                "size": value(region.size),
            }
        ),
        f"dax{region.number}.0": _device(region),
    }


def _device(region: Region) -> Directory:
    driver = "kmem" if region.blocks else "device_dax"
    return Directory(
        lambda: {
            "align": Attribute(lambda: str(ALIGNMENT), mode=BOTH),
            "mapping": Attribute(None, mode=WRITE),
            "mapping0": group(
                {
                    "end": Attribute(lambda: f"{region.hpa + region.size - 1:#x}", mode=ADMIN),
                    "page_offset": Attribute(lambda: "0x0", mode=ADMIN),
                    "start": Attribute(lambda: f"{region.hpa:#x}", mode=ADMIN),
                }
            ),
            "memmap_on_memory": Attribute(lambda: "1", mode=BOTH),
            "modalias": value("dax:t0"),
            "numa_node": value(-1),
            "resource": Attribute(lambda: f"{region.hpa:#x}", mode=ADMIN),
            "size": Attribute(lambda: str(region.size), mode=BOTH),
            "subsystem": Link("bus/dax"),
            "target_node": value(region.target_node),
            "uevent": Attribute(lambda: f"DRIVER={driver}\nMODALIAS=dax:t0", mode=BOTH),
        },
        device=True,
    )
