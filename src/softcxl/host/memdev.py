"""Memory devices as their driver knows them: what they say of themselves, and how their capacity is given out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from softcxl.host.decoder import EndpointDecoder
from softcxl.host.enumerate import Node
from softcxl.host.errors import ProbeError, RegionError
from softcxl.host.mailbox import MailboxDriver
from softcxl.host.registers import Registers, located
from softcxl.spec.command.memory import (
    CAPACITY_UNIT,
    GET_PARTITION_INFO,
    IDENTIFY_MEMORY_DEVICE,
    GetPartitionInfoResponse,
    IdentifyMemoryDevice,
)
from softcxl.spec.cxl.device import MediaStatus
from softcxl.spec.cxl.dvsec import CxlControl, DeviceDvsec, DvsecId, RegisterBlockId
from softcxl.spec.pci.extended import ExtendedCapabilityId

if TYPE_CHECKING:
    from softcxl.host.port import Endpoint


@dataclass(eq=False, slots=True)
class Memdev:
    """A memory device. `partitions` has the (start, end) of the device addresses of "ram" and "pmem"."""

    number: int
    node: Node
    serial: int
    mailbox: MailboxDriver
    component: Registers
    identity: IdentifyMemoryDevice
    partitions: dict[str, tuple[int, int]]
    endpoint: Endpoint | None = None

    @property
    def name(self) -> str:
        return f"mem{self.number}"

    @property
    def host(self) -> str:
        """The PCI function's name."""
        return self.node.name

    @property
    def firmware_version(self) -> str:
        return self.identity.fw_revision

    @property
    def label_storage_size(self) -> int:
        """Bytes of its label storage area."""
        return self.identity.lsa_size

    @property
    def present(self) -> bool:
        """It still answers."""
        return self.node.config.present

    def size(self, mode: str) -> int:
        """Bytes of its "ram" or "pmem" capacity."""
        start, end = self.partitions.get(mode, (0, 0))
        return end - start

    @property
    def decoders(self) -> list[EndpointDecoder]:
        return self.endpoint.decoders if self.endpoint else []

    def available(self, mode: str) -> int:
        """Bytes of that capacity that no decoder has, above those that have any: what is next to be allocated."""
        if mode not in self.partitions:
            return 0
        start, end = self._free(mode)
        return end - start

    def _free(self, mode: str) -> tuple[int, int]:
        start, end = self.partitions[mode]
        taken = (one.dpa[1] for one in self.decoders if one.dpa and start <= one.dpa[0] < end)
        return max(taken, default=start), end

    def next_decoder(self) -> EndpointDecoder:
        """The decoder that is next to be used: they are used in order. Raises `RegionError` where none is left."""
        used = [one.number for one in self.decoders if one.dpa or one.region or one.committed]
        number = max(used, default=-1) + 1
        if number >= len(self.decoders):
            holders = (
                ", ".join(sorted({one.region.name for one in self.decoders if one.region})) or "firmware"
            )
            raise RegionError(
                f"{self.name}: its {len(self.decoders)} HDM decoders are all in use or below one that is ({holders})"
            )
        return self.decoders[number]

    def allocate(self, decoder: EndpointDecoder, mode: str, size: int) -> None:
        """Give `decoder` the next `size` bytes of that capacity, skipping what is free below them.

        Raises `RegionError`: capacity is given out in order, because a decoder's addresses begin where the one
        before it ends.
        """
        if mode not in self.partitions or not self.size(mode):
            has = " and ".join(self.partitions) or "none"
            raise RegionError(f"{self.name}: it has no {mode} capacity; what it has is {has}")
        start, end = self._free(mode)
        if size > end - start:
            raise RegionError(
                f"{self.name}: {size:#x} bytes of {mode} are needed, and {end - start:#x} of its"
                f" {self.size(mode):#x} are free"
            )
        last = max((one.dpa[1] for one in self.decoders if one.dpa), default=0)
        if last > start:
            raise RegionError(
                f"{self.name}: {mode} at DPA {start:#x} lies below DPA {last:#x}, up to which an earlier decoder"
                " has allocated: decoders' device addresses ascend"
            )
        decoder.dpa, decoder.skip, decoder.mode = (start, start + size), start - last, mode

    def reserve(self, decoder: EndpointDecoder) -> None:
        """Note the device addresses of a decoder that firmware has committed. Raises `ProbeError`."""
        setting = decoder.setting
        last = max((one.dpa[1] for one in self.decoders if one.dpa), default=0)
        start, size = last + setting.target, setting.size // setting.ways
        for mode, (low, high) in self.partitions.items():
            if low <= start and start + size <= high:
                decoder.dpa, decoder.skip, decoder.mode = (start, start + size), setting.target, mode
                return
        raise ProbeError(
            f"{decoder.name} of {self.name}: DPA {start:#x} to {start + size - 1:#x} lie in no one partition"
        )

    def __repr__(self) -> str:
        return f"<{self.name} {self.host}>"


def probe(node: Node, number: int) -> Memdev:
    """The memory device at `node`, asked for what it is, and made to answer CXL.mem.

    Raises `ProbeError` or `MailboxError` where no driver could go on.
    """
    blocks = located(node)
    for wanted in (RegisterBlockId.COMPONENT, RegisterBlockId.DEVICE):
        if wanted not in blocks:
            raise ProbeError(f"{node.name}: its Register Locator names no {wanted.name.lower()} block")
    mailbox = MailboxDriver(blocks[RegisterBlockId.DEVICE])
    identity = mailbox.ask(IDENTIFY_MEMORY_DEVICE, IdentifyMemoryDevice)
    memdev = Memdev(
        number,
        node,
        _serial(node),
        mailbox,
        blocks[RegisterBlockId.COMPONENT],
        identity,
        _partitions(mailbox, identity),
    )
    if mailbox.status.media_status not in (MediaStatus.READY, MediaStatus.DISABLED):
        raise ProbeError(f"{node.name}: its media are not ready")
    enable_memory(node)
    return memdev


def _partitions(mailbox: MailboxDriver, identity: IdentifyMemoryDevice) -> dict[str, tuple[int, int]]:
    ram, pmem = identity.volatile_only_capacity, identity.persistent_only_capacity
    if identity.partition_alignment:
        info = mailbox.ask(GET_PARTITION_INFO, GetPartitionInfoResponse)
        ram, pmem = info.active_volatile, info.active_persistent
    ends = ram * CAPACITY_UNIT, (ram + pmem) * CAPACITY_UNIT
    found = {"ram": (0, ends[0]), "pmem": (ends[0], ends[1])}
    return {mode: (start, end) for mode, (start, end) in found.items() if start < end}


def _serial(node: Node) -> int:
    config = node.config
    at = next(
        (at for kind, at in config.extended() if kind == ExtendedCapabilityId.DEVICE_SERIAL_NUMBER), None
    )
    return 0 if at is None else config.read(at + 8) << 32 | config.read(at + 4)


def enable_memory(node: Node) -> None:
    """Have a device answer CXL.mem."""
    at = node.config.require(DvsecId.DEVICE) + DeviceDvsec.control.__layout__.offset
    control = CxlControl(node.config.read(at, 2))
    if not control.mem_enable:
        control.mem_enable = True
        node.config.write(at, int(control), 2)
