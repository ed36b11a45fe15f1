"""Access laws: what a write by software does to each bit, and which resets undo it.

The names are those of the PCI Express Base Specification (§7.4) and of CXL 3.1 §8.1. A law is data; the one
expression that applies it stands in `softcxl.wire.file`::

    new = (old & ~rw | data & rw) & ~(data & w1c) | data & w1s

`RWO` and `RWL` are `RW` until they are narrowed: `RWO` by the first write, `RWL` by the device's lock. A
write reaches the bits of the bytes that it covers: half a register's `RWO` bits stay writable after a write
to the rest.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Write(enum.Enum):
    """What a one or a zero written by software does to a bit."""

    IGNORE = "ignored"
    STORE = "stored"
    CLEAR = "a one clears"
    SET = "a one sets"


class Reset(enum.IntEnum):
    """How far a reset reaches. Sticky bits live through all but `COLD`. `CXL` is the CXL Reset (CXL 3.1 §9.7)."""

    COLD = 0
    HOT = 1
    FLR = 2
    CXL = 3

    @property
    def of_function(self) -> bool:
        """It is a function's own: the link stays up, and both its ends keep what they agreed on."""
        return self in (Reset.FLR, Reset.CXL)


@dataclass(frozen=True, slots=True)
class Law:
    """One access law.

    `once` bits take one write of their byte between resets; `lockable` bits take none while the device has
    them locked; `sticky` bits keep their value over all resets but cold ones; `reserved` bits have no
    meaning.
    """

    name: str
    write: Write = Write.IGNORE
    once: bool = False
    lockable: bool = False
    sticky: bool = False
    reserved: bool = False

    def __repr__(self) -> str:
        return self.name


RO = Law("RO")
RW = Law("RW", Write.STORE)
RW1C = Law("RW1C", Write.CLEAR)
RW1S = Law("RW1S", Write.SET)
RWO = Law("RWO", Write.STORE, once=True)
RWL = Law("RWL", Write.STORE, lockable=True)
HwInit = Law("HwInit")
RsvdP = Law("RsvdP", reserved=True)
RsvdZ = Law("RsvdZ", reserved=True)
ROS = Law("ROS", sticky=True)
RWS = Law("RWS", Write.STORE, sticky=True)
RW1CS = Law("RW1CS", Write.CLEAR, sticky=True)
RW1SS = Law("RW1SS", Write.SET, sticky=True)
RWOS = Law("RWOS", Write.STORE, once=True, sticky=True)
RWLS = Law("RWLS", Write.STORE, lockable=True, sticky=True)

LAWS = (RO, RW, RW1C, RW1S, RWO, RWL, HwInit, RsvdP, RsvdZ, ROS, RWS, RW1CS, RW1SS, RWOS, RWLS)
