"""What an access to CXL memory can end in, as one tree.

::

    AccessFault                 the access did not happen
    ├── DecodeError             no decoder on the way takes the address, or they contradict each other
    │   └── LinkDown            a port on the way has nothing, or nothing that answers, below it
    ├── DeviceFault             the device does not serve memory now
    └── PoisonError             the data there are known to be bad
        └── ViralError          all data of the device are to be taken for bad

Every message says the address, and which component of the way could not go on with it.
"""

from __future__ import annotations


class AccessFault(Exception):
    """An access to the host physical address `hpa` did not happen."""

    def __init__(self, hpa: int, message: str) -> None:
        super().__init__(f"HPA {hpa:#x}: {message}")
        self.hpa = hpa


class DecodeError(AccessFault):
    """No decoder on the way takes the address, or the decoders of the way contradict each other."""


class LinkDown(DecodeError):
    """A port on the way has nothing below it that answers."""


class DeviceFault(AccessFault):
    """The device does not serve memory: it is not enabled, or its media cannot be used."""


class PoisonError(AccessFault):
    """The 64 bytes at `hpa` are poisoned: `dpa` of the device called `device`."""

    def __init__(self, hpa: int, device: str, dpa: int) -> None:
        super().__init__(hpa, f"poison, DPA {dpa:#x} of {device}")
        self.device, self.dpa = device, dpa


class ViralError(PoisonError):
    """The device is viral: what it holds reads as poison, and what is stored is dropped, until it is reset."""

    def __init__(self, hpa: int, device: str, dpa: int) -> None:
        AccessFault.__init__(self, hpa, f"{device} is viral: all it holds reads as poison until it is reset")
        self.device, self.dpa = device, dpa
