"""A region: host addresses that a set of memory devices holds, interleaved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from softcxl.host.access import RegionAccess
from softcxl.host.blocks import MemoryBlock, SystemRam
from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder

if TYPE_CHECKING:
    from softcxl.host.machine import Machine
    from softcxl.host.memdev import Memdev
    from softcxl.host.port import Endpoint, Port


@dataclass(eq=False, slots=True)
class Region(RegionAccess, SystemRam):
    """`size` bytes of host addresses from `hpa`, of type "ram" or "pmem".

    `targets` are the endpoint decoders by position (None for a device that is gone), `ports` what each port above
    them decodes it with. `granularity` and `size` are in bytes. `automatic` regions were programmed by firmware.
    A region that is not `enabled` cannot be used; `problem` says why, if that is not by wish.
    """

    machine: Machine
    number: int
    root: RootDecoder
    type: str
    hpa: int
    size: int
    ways: int
    granularity: int
    uuid: UUID | None = None
    targets: list[EndpointDecoder | None] = field(default_factory=list)
    ports: dict[Port, PortDecoder] = field(default_factory=dict)
    automatic: bool = False
    committed: bool = False
    enabled: bool = False
    labelled: bool = False
    problem: str = ""
    blocks: list[MemoryBlock] = field(default_factory=list)
    pins: list[tuple[int, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"region{self.number}"

    @property
    def memdevs(self) -> list[Memdev | None]:
        """The memory devices by position."""
        return [None if one is None else one.memdev for one in self.targets]

    @property
    def locked(self) -> bool:
        """Firmware forbids to change it."""
        return self.root.fixed

    def decoder_of(self, memdev: Memdev) -> EndpointDecoder | None:
        """The decoder with which a device takes part in it."""
        return next((one for one in self.targets if one is not None and one.memdev is memdev), None)

    def position_at(self, hpa: int) -> int | None:
        """Which position holds the byte at a host address of the region, as window and ports deal them out; None where
        that device is gone."""
        bridge = self.root.targets[self.root.window.target(hpa)]
        for position, decoder in enumerate(self.targets):
            if decoder is None or decoder.endpoint.bridge is not bridge:
                continue
            if all(self._leads(port, decoder.endpoint, hpa) for port in decoder.endpoint.ancestors):
                return position
        return None

    def _leads(self, port: Port, endpoint: Endpoint, hpa: int) -> bool:
        """A port sends that address towards that endpoint."""
        decoder = self.ports.get(port)
        if decoder is None or decoder.hdm is None or not decoder.committed:
            return decoder is not None and decoder.hdm is None
        setting = decoder.setting
        target = setting.targets[hpa // setting.granularity % setting.ways]
        return port.dport_towards(endpoint).id == target

    def __repr__(self) -> str:
        names = ", ".join("gone" if one is None else one.name for one in self.memdevs)
        return f"<{self.name} {self.type} {self.hpa:#x}+{self.size:#x} over {names}>"
