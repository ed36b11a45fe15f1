"""Doors from outside into a function: `vfio_user` for virtual machines. A door serves anything of
`port.Port`'s shape."""

from softcxl.transport.port import Bus, Port, Region, RegionShape

__all__ = ["Bus", "Port", "Region", "RegionShape"]
