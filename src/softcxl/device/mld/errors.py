"""Why something cannot be done with logical devices, as one tree.

::

    LogicalDeviceError      what was asked for cannot be done
    ├── NoSuchLd            the device has no logical device of that number, or it has no memory
    ├── LdInUse             the logical device is bound, or a machine has it plugged in
    ├── AllocationUneven    not in multiples of the granularity
    └── CapacityExceeded    more than the device has

`code` is the return code that a fabric manager's command ends in.
"""

from __future__ import annotations

from typing import ClassVar

from softcxl.spec.command.base import ReturnCode


class LogicalDeviceError(ValueError):
    """What was asked for cannot be done with the device's logical devices."""

    code: ClassVar[ReturnCode] = ReturnCode.INVALID_INPUT


class NoSuchLd(LogicalDeviceError):
    """The device has no logical device of that number, or it has no memory."""


class LdInUse(LogicalDeviceError):
    """The logical device is bound, or a machine has it plugged in."""


class AllocationUneven(LogicalDeviceError):
    """Not in multiples of the granularity."""


class CapacityExceeded(LogicalDeviceError):
    """More than the device has."""
