"""What can go wrong on a host, as one tree.

::

    HostError                   an operating system cannot go on with this
    ├── TableError              an ACPI table is missing, damaged, or says what cannot be
    ├── EnumerationError        the PCI hierarchy: a structure that does not hold, or no bus or address left
    ├── ProbeError              a port or device that its driver cannot bind to
    ├── MailboxError            a command came back with an error; `.code` is the standard's return code
    ├── RegionError (ValueError)  a region that cannot be; the message names the rule and the values
    │   ├── CommitError         the registers were written, and a decoder answered with its error bit
    │   └── BusyError           a region that is in use: memory of it is online, or a page of it is pinned
    ├── ResetError              a device that cannot be reset so, or does not come back
    ├── LabelError              the label storage area has no room, or cannot be used
    └── AccessError (ValueError)  an access outside a region, or to one that is not there to be used

Every message says what was given, what is allowed, and which port, decoder or device it was.
"""

from __future__ import annotations


class HostError(Exception):
    """Base of every error of `softcxl.host`."""


class TableError(HostError):
    """An ACPI table is missing, damaged, or says what cannot be."""


class EnumerationError(HostError):
    """The PCI hierarchy cannot be enumerated."""


class ProbeError(HostError):
    """A driver cannot bind to a port or device."""


class MailboxError(HostError):
    """A mailbox command failed. `code` is its return code, or -1 where none came."""

    def __init__(self, message: str, code: int = -1) -> None:
        super().__init__(message)
        self.code = code


class RegionError(HostError, ValueError):
    """A region, or a step towards one, that cannot be."""


class CommitError(RegionError):
    """A decoder did not commit what was written to it."""


class BusyError(RegionError):
    """A region, or a memory block of it, that is in use."""


class ResetError(HostError):
    """A device that cannot be reset in this way, or that does not come back from it."""


class LabelError(HostError):
    """A label storage area cannot be used as asked."""


class AccessError(HostError, ValueError):
    """An access outside a region, or to a region that is not enabled."""
