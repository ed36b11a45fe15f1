"""Whether the processor of the machine that a program is in may share memory with other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from softcxl.pool import native
from softcxl.pool.errors import Refused

MADT: Final = Path("/sys/firmware/acpi/tables/APIC")
"""The table of a machine's interrupt controllers, which has one for each processor that it may get (ACPI 6.5,
5.2.12). Root may read it."""
_ENTRIES_AT: Final = 44
_PROCESSORS: Final = (0, 9)
"""Kinds of entries: a processor's local APIC, a processor's local x2APIC."""


def check(madt: Path = MADT) -> None:
    """Raise `Refused` in a machine that QEMU emulates (TCG) with one processor and no room for a second: atomic
    operations are plain loads and stores there, and what others do at the same time is lost.

    Nothing where that cannot be seen.
    """
    if not native.emulated():
        return
    try:
        table = madt.read_bytes()
    except OSError:
        return
    if _processors(table) == 1:
        raise Refused(
            "this machine cannot share memory with others: QEMU emulates its one processor, without atomic "
            "operations. Start QEMU with -smp 1,maxcpus=2, or with KVM"
        )


def _processors(madt: bytes) -> int:
    found, at = 0, _ENTRIES_AT
    while at + 1 < len(madt) and madt[at + 1] > 1:
        found += madt[at] in _PROCESSORS
        at += madt[at + 1]
    return found
