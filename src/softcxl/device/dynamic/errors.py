"""Why something cannot be done with dynamic capacity, as one tree.

::

    DynamicCapacityError        what was asked for cannot be done
    ├── NoSuchRegion            the device has no such region, or none at all
    ├── NoSuchHost              the device has no such host
    ├── RegionInvalid           a region that the standard does not allow
    ├── RegionInUse             the region cannot be changed while extents are in it
    ├── ExtentInvalid           an extent of no length, off the region's blocks, or in another's way
    │   └── LengthInvalid       an amount of capacity that is not of whole blocks, or of none
    ├── AddressOutside          an extent outside of a region, or one that the host does not have
    ├── TagInvalid              a tag that is absent, in use or unknown
    └── CapacityExhausted       not enough is free: capacity, extents or tags

`code` is the return code that a fabric manager's command ends in.
"""

from __future__ import annotations

from typing import ClassVar

from softcxl.spec.command.base import ReturnCode


class DynamicCapacityError(ValueError):
    """What was asked for cannot be done with the device's dynamic capacity."""

    code: ClassVar[ReturnCode] = ReturnCode.INVALID_INPUT


class NoSuchRegion(DynamicCapacityError):
    """The device has no such region."""


class NoSuchHost(DynamicCapacityError):
    """The device has no such host."""


class RegionInvalid(DynamicCapacityError):
    """The standard does not allow such a region."""


class RegionInUse(DynamicCapacityError):
    """The region cannot be changed while extents are in it."""

    code = ReturnCode.UNSUPPORTED


class ExtentInvalid(DynamicCapacityError):
    """An extent has no length, is off the region's blocks, or in another's way."""

    code = ReturnCode.INVALID_EXTENT_LIST


class LengthInvalid(ExtentInvalid):
    """An amount of capacity, where the device is to choose the extents, is not of whole blocks, or of none."""

    code = ReturnCode.INVALID_INPUT


class AddressOutside(DynamicCapacityError):
    """An extent is outside of every region, or the host does not have it."""

    code = ReturnCode.INVALID_PHYSICAL_ADDRESS


class TagInvalid(DynamicCapacityError):
    """A tag is absent, in use or unknown."""


class CapacityExhausted(DynamicCapacityError):
    """Not enough is free."""

    code = ReturnCode.RESOURCES_EXHAUSTED
