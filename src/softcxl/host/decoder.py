"""Decoders as an operating system keeps them: of the root (windows), of ports, of endpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from softcxl.host.registers import HdmRegisters, Setting
from softcxl.host.tables import FixedWindow

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.port import Dport, Endpoint, Port
    from softcxl.host.region import Region


@dataclass(eq=False, slots=True)
class RootDecoder:
    """A fixed memory window: fixed by firmware, it deals addresses out to host bridges.

    `targets` are the host bridges by interleave position, None where firmware names one that is not there.
    `next_region` is the number that the next region of this decoder gets.
    """

    number: int
    window: FixedWindow
    targets: list[Dport | None]
    next_region: int
    regions: list[Region] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"decoder0.{self.number}"

    @property
    def volatile(self) -> bool:
        """Regions of type ram may be here."""
        return self.window.restrictions.volatile

    @property
    def persistent(self) -> bool:
        """Regions of type pmem may be here."""
        return self.window.restrictions.persistent

    @property
    def fixed(self) -> bool:
        """Firmware forbids to change what is configured here."""
        return self.window.restrictions.fixed

    def gaps(self) -> list[tuple[int, int]]:
        """(start, end) of each stretch of addresses that no region has, in order."""
        found, start = [], self.window.base
        for region in sorted(self.regions, key=lambda one: one.hpa):
            if start < region.hpa:
                found.append((start, region.hpa))
            start = max(start, region.hpa + region.size)
        if start < self.window.end:
            found.append((start, self.window.end))
        return found

    @property
    def max_available_extent(self) -> int:
        """Bytes of the largest such stretch."""
        return max((end - start for start, end in self.gaps()), default=0)

    def __repr__(self) -> str:
        return f"<{self.name} {self.window.base:#x}+{self.window.size:#x}>"


@dataclass(eq=False, slots=True)
class PortDecoder:
    """A decoder of a host bridge or a switch; `hdm` is None for a bridge with one port that needs none."""

    port: Port
    number: int
    hdm: HdmRegisters | None
    setting: Setting = field(default_factory=Setting)
    region: Region | None = None

    @property
    def name(self) -> str:
        return f"decoder{self.port.number}.{self.number}"

    @property
    def committed(self) -> bool:
        return self.setting.committed

    def commit(self, setting: Setting) -> None:
        """Write and commit it. Raises `CommitError`."""
        if self.hdm is not None:
            self.hdm.commit(self.number, setting)
        self.setting = setting

    def reset(self) -> None:
        """Take it out of effect, unless it is locked."""
        if self.setting.committed and not self.setting.locked:
            if self.hdm is not None:
                self.hdm.reset(self.number)
            self.setting = self.setting.unused()

    def __repr__(self) -> str:
        return f"<{self.name} of {self.port.host}>"


@dataclass(eq=False, slots=True)
class EndpointDecoder:
    """A decoder of a memory device. `dpa` is the (start, end) of the device addresses allocated to it, `skip` the
    bytes left out below them, `mode` "ram", "pmem" or "" while none was chosen."""

    endpoint: Endpoint
    number: int
    hdm: HdmRegisters
    setting: Setting = field(default_factory=Setting)
    dpa: tuple[int, int] | None = None
    skip: int = 0
    mode: str = ""
    region: Region | None = None

    @property
    def name(self) -> str:
        return f"decoder{self.endpoint.number}.{self.number}"

    @property
    def memdev(self) -> Memdev:
        return self.endpoint.memdev

    @property
    def committed(self) -> bool:
        return self.setting.committed

    @property
    def dpa_size(self) -> int:
        return 0 if self.dpa is None else self.dpa[1] - self.dpa[0]

    def commit(self, setting: Setting) -> None:
        """Write and commit it. Raises `CommitError`."""
        self.hdm.commit(self.number, setting)
        self.setting = setting

    def reset(self) -> None:
        """Take it out of effect, unless it is locked."""
        if self.setting.committed and not self.setting.locked:
            self.hdm.reset(self.number)
            self.setting = self.setting.unused()

    def forget(self) -> None:
        """It is not committed any more, by no doing of ours."""
        self.setting = Setting()

    def free(self) -> None:
        """Give its device addresses back."""
        self.dpa, self.skip = None, 0

    def offset(self, hpa: int) -> int:
        """The device address that it decodes a host address of its range to (CXL 3.1 §8.2.4.20.13)."""
        assert self.dpa is not None
        offset, granularity = hpa - self.setting.base, self.setting.granularity
        return self.dpa[0] + offset // (granularity * self.setting.ways) * granularity + offset % granularity

    def __repr__(self) -> str:
        return f"<{self.name} of {self.memdev.name}>"
