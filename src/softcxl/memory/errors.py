"""What can go wrong where bytes rest, as one tree.

::

    MemoryFault
    ├── GeometryError (ValueError)   ways, granularity, position or XOR maps that no decoder can have
    ├── AddressError (ValueError)    an address or a length outside what is there
    ├── MediumError                  the file behind some memory
    │   ├── MediumUnfit              it cannot be opened, is no plain file, or has another size
    │   ├── MediumInUse              another process, or this one, already uses it
    │   ├── MediumFull               no room is left to store the bytes
    │   └── MediumClosed             it was closed
    └── ResidencyError               who rests where in a window
        ├── ResidentAbsent           bytes in the way belong to a device that is not here to take them
        ├── PersistenceLost          persistent capacity would rest in a window that does not survive
        ├── SharedStays              memory that several devices have would move, or others' into its window
        └── MapDamaged               the saved residency map cannot be read, or contradicts itself

Every message says what was given, what is allowed, and which file or device it was. Whatever is raised,
no byte of any device is lost: the places of bytes change only after their copies are complete.
"""

from __future__ import annotations


class MemoryFault(Exception):
    """Base of every error of `softcxl.memory`."""


class GeometryError(MemoryFault, ValueError):
    """Ways, granularity, position or XOR maps that no HDM decoder can have."""


class AddressError(MemoryFault, ValueError):
    """An address or a length lies outside what is there."""


class MediumError(MemoryFault):
    """The file behind some memory cannot be used as asked."""


class MediumUnfit(MediumError):
    """The file cannot be opened, is not a plain file, or has another size."""


class MediumInUse(MediumError):
    """The file is already a medium of this or another process."""


class MediumFull(MediumError):
    """The file system, or memory, has no room left for the bytes."""


class MediumClosed(MediumError):
    """The medium was closed."""


class ResidencyError(MemoryFault):
    """Bytes cannot rest where they were asked to."""


class ResidentAbsent(ResidencyError):
    """Bytes in the way belong to a device that is not here to take them home."""


class PersistenceLost(ResidencyError):
    """Persistent capacity would rest in a window whose file does not survive."""


class SharedStays(ResidencyError):
    """Memory that several devices have stays where it is, and no other memory may rest in a window of it."""


class MapDamaged(ResidencyError):
    """A saved residency map cannot be read, or contradicts itself or its devices."""
