"""The vfio-user messages: a device in one process, the virtual machine that uses it in another.

Clauses are sections of QEMU's `docs/interop/vfio-user.rst`; structures that it borrows are those of Linux'
`include/uapi/linux/vfio.h`. All integers are little-endian here: the protocol says "host order", and every
host that SoftCXL runs on is little-endian. Sizes are in bytes, and a message's size includes its header.

Where QEMU and the text differ:

- `DmaUnmapFlags.all` is not in the text; QEMU sends it with address and size 0.
- `DMA_READ` and `DMA_WRITE` carry a 64-bit count and their data at byte 16 of the payload. QEMU 11.1 agrees;
  its first versions (10.1) have a 32-bit count, the data at byte 12, four unused bytes after the data, and no
  payload in the reply to a write (`EarlyQemuDmaAccess`).
- The reply to `DMA_WRITE` has a 32-bit count in the text's table; QEMU 11.1 repeats the request's 64 bits.
- The `migration` capability is in no table of the text.
"""

from __future__ import annotations

from enum import IntEnum

from softcxl.wire import RW, Record, Register, bit, bits, counted, raw, reserved, tail, u16, u32, u64, word

SOURCE = "vfio-user protocol spec (QEMU docs/interop/vfio-user.rst)"

MAJOR = 0
MINOR = 0
DEFAULT_MSG_FDS = 1
"""File descriptors a peer may put in one message where nothing was negotiated."""
DEFAULT_DATA_XFER_SIZE = 1 << 20
"""Bytes of data in one read or write where nothing was negotiated."""
DEFAULT_DMA_MAPS = 65535
DEFAULT_PGSIZES = 4096
PCI_REGIONS = 9
PCI_IRQS = 5


class Command(IntEnum):
    """Message commands: vfio-user §Commands. 14 (dirty pages) has left the text; older clients send it."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    DIRTY_PAGES = 14
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class RegionIndex(IntEnum):
    """Regions of a PCI device: linux/vfio.h, `VFIO_PCI_*_REGION_INDEX`."""

    BAR0 = 0
    BAR1 = 1
    BAR2 = 2
    BAR3 = 3
    BAR4 = 4
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


class IrqIndex(IntEnum):
    """Interrupt types of a PCI device: linux/vfio.h, `VFIO_PCI_*_IRQ_INDEX`."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


class MessageType(IntEnum):
    """Type field of the header's flags."""

    COMMAND = 0
    REPLY = 1


class HeaderFlags(Register, width=32, spec=f"{SOURCE} §Header"):
    """Flags of a message header. A type that is neither 0 nor 1 is malformed."""

    type = bits(3, 0, RW, "0 a command, 1 a reply (`MessageType`)")
    no_reply = bit(4, RW, "the sender of this command wants no reply, not even an error")
    error = bit(5, RW, "this reply reports an error; the header's error field is an errno or 0")


class Header(Record, size=16, spec=f"{SOURCE} §Header"):
    """What every message starts with."""

    ident: int = u16("chosen by the sender of a command, echoed in its reply; need not be unique")
    command: int = u16("a `Command`; the reply has its command's")
    size: int = u32("of the whole message, these 16 bytes included")
    flags: HeaderFlags = word(HeaderFlags)
    error: int = u32("errno, in a reply whose error flag is set")


class Version(Record, size=4, spec=f"{SOURCE} §VFIO_USER_VERSION"):
    """Proposal of the client and answer of the server; the first message each way."""

    major: int = u16("equal on both sides, or the connection ends")
    minor: int = u16("the server's is at most the client's")
    data: bytes = tail("JSON object with member `capabilities`, UTF-8, NUL-terminated; may be absent")


class DmaMapFlags(Register, width=32, spec=f"{SOURCE} §VFIO_USER_DMA_MAP"):
    """What the device may do with the memory."""

    readable = bit(0, RW, "the device may read it")
    writeable = bit(1, RW, "the device may write it")


class DmaMap(Record, size=32, spec=f"{SOURCE} §VFIO_USER_DMA_MAP"):
    """Guest memory that the device may use, with its file descriptor if it has one. The reply has no
    payload."""

    argsz: int = u32("size of this structure, 32")
    flags: DmaMapFlags = word(DmaMapFlags)
    offset: int = u64("of the memory in the file, in bytes; 0 where no descriptor comes along")
    address: int = u64("first DMA address")
    size: int = u64("in bytes")


class DmaUnmapFlags(Register, width=32, spec="linux/vfio.h, struct vfio_iommu_type1_dma_unmap"):
    """The protocol's text says unused; QEMU sends what the ioctl takes."""

    get_dirty_bitmap = bit(0, RW, "answer with the pages written since the last call")
    all = bit(1, RW, "unmap everything; address and size are 0")


class DmaUnmap(Record, size=24, spec=f"{SOURCE} §VFIO_USER_DMA_UNMAP"):
    """Memory that goes away: exactly a range mapped before. The reply repeats it."""

    argsz: int = u32("largest reply payload")
    flags: DmaUnmapFlags = word(DmaUnmapFlags)
    address: int = u64("first DMA address")
    size: int = u64("in bytes")


class DeviceFlags(Register, width=32, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_INFO"):
    """What kind of device the server has."""

    reset = bit(0, RW, "DEVICE_RESET is supported")
    pci = bit(1, RW, "a PCI device")


class DeviceInfo(Record, size=16, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_INFO"):
    """Request and reply; in the request only `argsz` counts."""

    argsz: int = u32("largest reply payload; in the reply, what the full payload takes")
    flags: DeviceFlags = word(DeviceFlags)
    num_regions: int = u32("regions of the device")
    num_irqs: int = u32("interrupt types of the device")


class RegionFlags(Register, width=32, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_REGION_INFO"):
    """What the client may do with a region."""

    read = bit(0, RW, "the client may read it")
    write = bit(1, RW, "the client may write it")
    mmap = bit(2, RW, "the client may map it; the descriptor comes with the full reply")
    caps = bit(3, RW, "capabilities follow at `cap_offset`")


class RegionInfo(Record, size=32, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_REGION_INFO"):
    """Request and reply; in the request only `argsz` and `index` count."""

    argsz: int = u32("largest reply payload; in the reply, what the full payload takes")
    flags: RegionFlags = word(RegionFlags)
    index: int = u32("a `RegionIndex`")
    cap_offset: int = u32("of the first capability, from the start of this structure")
    size: int = u64("in bytes; 0 where the device has no such region")
    offset: int = u64("what to give to mmap, and the base of sparse areas")


REGION_CAP_SPARSE_MMAP = 1
"""Identity of the sparse capability: linux/vfio.h, `VFIO_REGION_INFO_CAP_SPARSE_MMAP`."""


class SparseArea(Record, size=16, spec="linux/vfio.h, struct vfio_region_sparse_mmap_area"):
    """One part of a region that the client may map."""

    offset: int = u64("in the region, in bytes")
    size: int = u64("in bytes")


class SparseCapability(Record, size=16, spec="linux/vfio.h, struct vfio_region_info_cap_sparse_mmap"):
    """The parts of a region that the client may map; the rest is reached by messages."""

    ident: int = u16("REGION_CAP_SPARSE_MMAP", default=REGION_CAP_SPARSE_MMAP)
    version: int = u16("1", default=1)
    next: int = u32("offset of the next capability from the start of `RegionInfo`, 0 at the last")
    nr_areas: int = u32()
    _reserved: None = reserved(4)
    areas: list[SparseArea] = counted(SparseArea, "nr_areas")


class RegionIoFds(Record, size=16, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_REGION_IO_FDS"):
    """Asks for descriptors that a hypervisor could signal in place of messages. Optional; SoftCXL has
    none."""

    argsz: int = u32("largest reply payload")
    flags: int = u32("0")
    index: int = u32("a `RegionIndex`")
    count: int = u32("sub-regions in the reply")


class IrqInfoFlags(Register, width=32, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_IRQ_INFO"):
    """Attributes of an interrupt type."""

    eventfd = bit(0, RW, "can be signalled by eventfd")
    maskable = bit(1, RW, "understands mask and unmask")
    automasked = bit(2, RW, "masks itself when it fires; unmask to receive the next")
    noresize = bit(3, RW, "vectors are set up as a set")


class IrqInfo(Record, size=16, spec=f"{SOURCE} §VFIO_USER_DEVICE_GET_IRQ_INFO"):
    """Request and reply; in the request only `argsz` and `index` count."""

    argsz: int = u32("largest reply payload; in the reply, 16")
    flags: IrqInfoFlags = word(IrqInfoFlags)
    index: int = u32("an `IrqIndex`")
    count: int = u32("vectors of this type")


class IrqSetFlags(Register, width=32, spec=f"{SOURCE} §VFIO_USER_DEVICE_SET_IRQS"):
    """Exactly one kind of data and one action."""

    data_none = bit(0, RW, "no data: the action goes for all of the range")
    data_bool = bit(1, RW, "one byte a vector: the action goes where it is not 0")
    data_eventfd = bit(2, RW, "one descriptor a vector, or none at all to unassign the range")
    mask = bit(3, RW, "mask, or the descriptor to signal when it is masked")
    unmask = bit(4, RW, "unmask, or the descriptor to signal when it is unmasked")
    trigger = bit(5, RW, "fire, or the descriptor to signal when it fires")


class IrqSet(Record, size=20, spec=f"{SOURCE} §VFIO_USER_DEVICE_SET_IRQS"):
    """Acts on a range of vectors. The reply has no payload."""

    argsz: int = u32("size of this structure with its data")
    flags: IrqSetFlags = word(IrqSetFlags)
    index: int = u32("an `IrqIndex`")
    start: int = u32("first vector")
    count: int = u32("vectors; 0 with start 0, no data and trigger disables them all")
    data: bytes = tail("one byte a vector where the flags say so")


class RegionAccess(Record, size=16, spec=f"{SOURCE} §VFIO_USER_REGION_READ, §VFIO_USER_REGION_WRITE"):
    """A read's request and a write's reply; with the data behind it, a read's reply and a write's request."""

    offset: int = u64("in the region, in bytes")
    region: int = u32("a `RegionIndex`")
    count: int = u32("bytes of data")


class RegionData(RegionAccess, size=16):
    """`RegionAccess` with its data."""

    data: bytes = tail("`count` bytes")


class RegionWrite(Record, size=24, spec=f"{SOURCE} §VFIO_USER_REGION_WRITE_MULTI"):
    """One of many small writes."""

    offset: int = u64("in the region, in bytes")
    region: int = u32("a `RegionIndex`")
    count: int = u32("bytes of data, 8 at most")
    data: bytes = raw(8, "the first `count` bytes are meant")


class RegionWriteMulti(Record, size=8, spec=f"{SOURCE} §VFIO_USER_REGION_WRITE_MULTI"):
    """Many small writes in one message; the reply repeats the count of those done, without the writes."""

    wr_cnt: int = u64("writes")
    writes: list[RegionWrite] = counted(RegionWrite, "wr_cnt")


class DmaAccess(Record, size=16, spec=f"{SOURCE} §VFIO_USER_DMA_READ, §VFIO_USER_DMA_WRITE"):
    """The server's read or write of guest memory, as in the text; data follows in a write and in a read's
    reply."""

    address: int = u64("DMA address")
    count: int = u64("bytes of data")


class DmaData(DmaAccess, size=16):
    """`DmaAccess` with its data."""

    data: bytes = tail("`count` bytes")


class EarlyQemuDmaAccess(Record, size=12, spec="QEMU 10.1 hw/vfio-user/protocol.h, VFIOUserDMARW"):
    """The same in the first QEMU with vfio-user: data starts at byte 12, and four bytes follow it."""

    address: int = u64("DMA address")
    count: int = u32("bytes of data")
