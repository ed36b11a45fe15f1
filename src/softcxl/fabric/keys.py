"""The keys of a topology file: fields are the keys, annotations the limits.

The strict reader, the limits' checks and the reference page are all made from these classes; rules that see
more than one key are in `softcxl.fabric.rules`. Sizes are bytes here, and `256MiB` or a number in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct, field

from softcxl.fabric.limits import key as _key
from softcxl.spec.command.memory import CAPACITY_UNIT
from softcxl.wire.sizes import GIB, KIB, MIB, TIB

UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
#: Whole bytes, in hexadecimal digits.
HEX = r"^([0-9a-fA-F]{2})*$"
#: Names become QEMU ids and parts of socket paths.
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
Name = Annotated[str, Meta(extra={"form": "name", "pattern": NAME})]
#: Ports hold a device, a switch, a virtual switch, or nothing yet.
Ports = list[Name | None]
#: A memory device, or a logical device of one that has several: `pool.0`.
FUNCTION = r"^[A-Za-z][A-Za-z0-9_-]{0,31}(\.(0|[1-9][0-9]{0,2}))?$"
FunctionName = Annotated[str, Meta(extra={"form": "function", "pattern": FUNCTION})]
#: An interleave granularity in bytes (CXL 3.1 §8.2.4.20.7).
Granularity = Literal[256, 512, 1024, 2048, 4096, 8192, 16384]
RegionFlag = Literal["non-volatile", "sharable", "coherent", "read-only", "sanitize-on-release"]
Restriction = Literal["volatile", "persistent", "fixed"]

#: How many ways memory may be interleaved (CXL 3.1 §8.2.4.20.7).
WAYS = (1, 2, 3, 4, 6, 8, 12, 16)
LARGEST = 1 << 52
LABEL_STORAGE = 128 * KIB


class DynamicRegion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A region of dynamic capacity: device addresses at which memory comes and goes while hosts run."""

    length: Annotated[
        int, _key("how much can be in it, whole blocks", form="size", least=64, most=LARGEST, unit=64)
    ]
    block_size: Annotated[
        int,
        _key("what comes and goes at least, a power of two", form="size", least=64, most=TIB, unit=64),
    ] = 2 * MIB
    decode_length: Annotated[
        int | None,
        _key(
            "how many device addresses it takes; without this key the length, in full units of 256MiB",
            form="size",
            least=CAPACITY_UNIT,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ] = None
    flags: Annotated[
        list[RegionFlag],
        _key(
            "what it is: `non-volatile` memory and its extents survive if `state` is given; `sharable` by several "
            "hosts; kept `coherent` among them by hardware; `read-only`; `sanitize-on-release`: erased when it leaves",
            most=5,
        ),
    ] = field(default_factory=list)
    dsmad_handle: Annotated[
        int | None,
        _key("its DSMADHandle in the CDAT; without this key 2 for the first, and so on", least=2, most=255),
    ] = None


class Feature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feature of the vendor's: bytes that software gets and sets (opcodes 0500h to 0502h)."""

    uuid: Annotated[str, _key("what it is known by", pattern=UUID, form="uuid")]
    size: Annotated[int, _key("its length in bytes", form="size", least=1, most=65535)]
    version: Annotated[int, _key("the version of it that is got and set", least=0, most=255)] = 1
    default: Annotated[
        str,
        _key(
            "what it is at first, as hexadecimal digits; what is not given is zero", pattern=HEX, form="bytes"
        ),
    ] = ""
    changeable: Annotated[
        str | None,
        _key(
            "which bits of it can be changed, as hexadecimal digits, what is not given cannot; without this key all",
            pattern=HEX,
            form="bytes",
        ),
    ] = None
    effect: Annotated[
        Literal["immediate", "conventional-reset", "cold-reset"], _key("when a change of it counts")
    ] = "immediate"


class Type3(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="type3"):
    """A memory device."""

    volatile: Annotated[
        int, _key("volatile capacity", form="size", least=0, most=LARGEST, unit=CAPACITY_UNIT)
    ] = 0
    persistent: Annotated[
        int,
        _key(
            "persistent capacity; what it holds survives if `file` or `state` is given",
            form="size",
            least=0,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ] = 0
    dynamic: Annotated[
        list[DynamicRegion], _key("its regions of dynamic capacity, one after the other", most=8)
    ] = field(default_factory=list)
    partition_alignment: Annotated[
        int,
        _key(
            "in what parts software can move capacity between volatile and persistent, which are how it comes from the "
            "factory then; without this key it cannot",
            form="size",
            least=0,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ] = 0
    features: Annotated[
        list[Feature],
        _key("features that it has beside the standard's, in the order of their indexes", most=64),
    ] = field(default_factory=list)
    label_storage: Annotated[
        int | None,
        _key(
            "label storage area, 0 or at least 128KiB; without this key 128KiB where there is persistent capacity",
            form="size",
            least=0,
            most=64 * MIB,
            unit=4 * KIB,
        ),
    ] = None
    serial: Annotated[
        int | None,
        _key(
            "serial number, another for each device; without this key one made from the device's name",
            form="hex",
            least=1,
            most=(1 << 64) - 1,
        ),
    ] = None
    vendor_id: Annotated[
        int | None, _key("PCI vendor ID; without this key the model's own", form="hex", least=1, most=0xFFFE)
    ] = None
    device_id: Annotated[
        int | None, _key("PCI device ID; without this key the model's own", form="hex", least=0, most=0xFFFF)
    ] = None
    decoders: Annotated[Literal[1, 2, 4, 6, 8, 10, 12, 14, 16], _key("HDM decoders of the device")] = 4
    event_log_depth: Annotated[
        int, _key("records that each event log holds before it overflows", least=1, most=65535)
    ] = 15
    interrupts: Annotated[
        Literal["msi", "msix"],
        _key(
            "how it interrupts: one MSI vector, or 16 MSI-X vectors; QEMU 11.1 dies of removing an MSI-X device"
        ),
    ] = "msi"
    cpmu: Annotated[
        bool,
        _key("whether it has performance counters (CPMU); Linux's driver for them wants `interrupts: msix`"),
    ] = False
    secondary_mailbox: Annotated[
        bool,
        _key("whether it has a second mailbox, for whoever manages it beside its driver"),
    ] = False
    compliance: Annotated[
        bool, _key("whether tests can drive it by the data objects of compliance mode, over DOE")
    ] = False
    file: Annotated[
        str | None,
        _key("file of the persistent capacity, made where it is absent; relative to the topology file"),
    ] = None
    model: Annotated[
        str | None,
        _key(
            "your own Python class for the device, as `module:Class`, in place of the built-in Type 3",
            pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
            form="class",
        ),
    ] = field(name="class", default=None)


class LogicalDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one logical device has at first; the fabric manager may allocate otherwise while nobody has it."""

    #: A plain size in its place is that of this key.
    shorthand: ClassVar[str] = "volatile"

    volatile: Annotated[
        int, _key("volatile capacity, whole `granularity`", form="size", least=0, most=LARGEST)
    ] = 0
    persistent: Annotated[
        int, _key("persistent capacity, whole `granularity`", form="size", least=0, most=LARGEST)
    ] = 0


class MultiLogicalDevice(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="mld"
):
    """A memory device that several hosts share: each has a logical device of it, `NAME.0` for LD 0 of NAME, which a
    switch with `virtual` switches binds to its hosts."""

    volatile: Annotated[
        int,
        _key(
            "volatile capacity, which logical devices divide",
            form="size",
            least=0,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ] = 0
    persistent: Annotated[
        int,
        _key(
            "persistent capacity, which logical devices divide",
            form="size",
            least=0,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ] = 0
    granularity: Annotated[
        Literal[268435456, 536870912, 1073741824],
        _key("in what units capacity is allocated to logical devices", form="size"),
    ] = CAPACITY_UNIT
    logical_devices: Annotated[
        list[LogicalDevice],
        _key(
            "what each logical device has at first, by LD ID: a size of volatile capacity, or `volatile` and "
            "`persistent`; those of 0 are there for the fabric manager to give capacity to, and have their "
            "share of `dynamic`; at most 16 for each of `heads`",
            least=1,
            most=255,
        ),
    ]
    dynamic: Annotated[
        list[DynamicRegion],
        _key("its regions of dynamic capacity, which its logical devices share", most=8),
    ] = field(default_factory=list)
    heads: Annotated[
        int, _key("how many ports of switches it can be plugged into at once", least=1, most=16)
    ] = 1
    secondary_mailbox: Annotated[
        bool,
        _key("whether each logical device has a second mailbox, for whoever manages it beside its driver"),
    ] = False
    on_unbind: Annotated[
        Literal["clear", "keep", "erase"],
        _key(
            "what becomes of a logical device's contents when it is unbound: volatile ones are gone as by a power "
            "cycle (`clear`), all are kept, or all are erased"
        ),
    ] = "clear"
    serial: Annotated[
        int | None,
        _key(
            "serial number, another for each device; without this key one made from the device's name",
            form="hex",
            least=1,
            most=(1 << 64) - 1,
        ),
    ] = None


class SwitchCci(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="switch-cci"
):
    """The mailbox CCI of a switch: a PCI function, in a port of a host, by which the host is a fabric manager."""

    switch: Annotated[Name, _key("the switch that it manages, one with `virtual` switches")]
    interrupts: Annotated[
        Literal["msi", "msix"], _key("how it interrupts: one MSI vector, or 16 MSI-X vectors")
    ] = "msi"


class PoolAccess(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="pool-access"
):
    """A PCI slot, in a port of a host, by which programs in the host's guest reach the `pool`."""


class PoolMemory(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="pool-memory"
):
    """A memory device, in a port of a host, whose memory is that of the `pool`: programs in the host's guest reach the
    pool by a CXL region of it, in a window with `shared: NAME`."""

    serial: Annotated[
        int | None,
        _key(
            "serial number, another for each device; without this key one made from the device's name",
            form="hex",
            least=1,
            most=(1 << 64) - 1,
        ),
    ] = None


class VirtualSwitch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A virtual CXL switch: what one host sees of a switch. A root port names it."""

    ports: Annotated[
        list[FunctionName | None],
        _key(
            "its downstream vPPBs, by vPPB ID: each with what is bound to it at first, or null",
            least=1,
            most=16,
        ),
    ]


class Switch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A switch with one upstream port, plugged in wherever a port names it; or, with `virtual`, one that several hosts
    share, whose virtual switches are plugged in."""

    ports: Annotated[
        Ports,
        _key("downstream ports: each a device, another switch, or null", least=1, most=16),
    ]
    virtual: Annotated[
        dict[Name, VirtualSwitch],
        _key(
            "its virtual switches, by name; VCS IDs count from 0, and so do upstream ports, behind those of `ports`",
            most=16,
        ),
    ] = field(default_factory=dict)
    serial: Annotated[
        int | None,
        _key(
            "serial number, another for each switch; without this key one made from the switch's name",
            form="hex",
            least=1,
            most=(1 << 64) - 1,
        ),
    ] = None


class Bridge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A CXL host bridge and its root ports."""

    ports: Annotated[
        list[FunctionName | None],
        _key(
            "root ports: each a device, a switch, a virtual switch, a logical device with a head of its own (as "
            "`pool.0`), or null for one kept empty",
            least=1,
            most=16,
        ),
    ]


class Window(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed memory window (CFMWS): addresses that the host's firmware sets aside for CXL memory."""

    size: Annotated[
        int,
        _key(
            "how much address space; a multiple of 256MiB for each target",
            form="size",
            least=CAPACITY_UNIT,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ]
    targets: Annotated[
        list[Name],
        _key("the bridges behind it, interleaved in this order", least=1, most=16),
    ]
    granularity: Annotated[Granularity, _key("bytes to one target before the next", form="size")] = 256
    arithmetic: Annotated[Literal["modulo", "xor"], _key("how an address selects its target")] = "modulo"
    restrictions: Annotated[
        list[Restriction],
        _key("what memory may be used in it; `fixed`: its decoders may not be changed", most=3),
    ] = field(default_factory=lambda: ["volatile", "persistent"])
    qtg: Annotated[int, _key("QoS throttling group", least=0, most=65535)] = 0
    shared: Annotated[
        Name | None,
        _key(
            "a multi-logical device: the window's memory is that of its dynamic capacity, which other hosts see in "
            "windows of theirs, and nothing else; `size` is that of its regions. Or a device of type `pool-memory`: "
            "the window's memory is the pool's, and `size` the device's, which an error tells"
        ),
    ] = None


class FirmwareRegion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A region that is there when the kernel starts, its decoders programmed as firmware would."""

    window: Annotated[
        int, _key("which window: an index into `windows`; regions follow one another in it", least=0, most=15)
    ]
    devices: Annotated[list[Name], _key("the devices, in the order of their positions", least=1, most=16)]
    granularity: Annotated[
        Granularity | None, _key("bytes to one device; without this key the window's", form="size")
    ] = None
    type: Annotated[Literal["ram", "pmem"], _key("volatile or persistent capacity of the devices")] = "ram"
    size: Annotated[
        int | None,
        _key(
            "size of the region; without this key, as much as every device of it has left",
            form="size",
            least=CAPACITY_UNIT,
            most=LARGEST,
            unit=CAPACITY_UNIT,
        ),
    ] = None


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A computer: one virtual machine when it is booted."""

    bridges: Annotated[dict[Name, Bridge], _key("its CXL host bridges", least=1, most=16)]
    windows: Annotated[list[Window], _key("its fixed memory windows", most=16)] = field(default_factory=list)
    regions: Annotated[list[FirmwareRegion], _key("regions that firmware has made", most=16)] = field(
        default_factory=list
    )
    memory: Annotated[int, _key("its ordinary RAM", form="size", least=256 * MIB, most=TIB, unit=2 * MIB)] = (
        GIB
    )
    cpus: Annotated[int, _key("its processors", least=1, most=255)] = 1


#: A client of the pool by its name, or each other one.
CLIENT = r"^(\*|[^\x00-\x1f\x7f*]{1,63})$"
ClientName = Annotated[str, Meta(extra={"form": "client", "pattern": CLIENT})]
SPAN = r"^[0-9]{1,6}(\.[0-9]{1,6})?(ms|s|min)?$"


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool of memory for programs, on this machine and in guests, which `softcxl serve` keeps."""

    memory: Annotated[
        list[FunctionName],
        _key(
            "the memory devices whose capacity is the pool's, and logical devices, as `shared.2`; no host sees them",
            least=1,
            most=63,
        ),
    ]
    arena: Annotated[
        int,
        _key(
            "the pool's own memory beside it, for its directory, channels and calls",
            form="size",
            least=MIB,
            most=TIB,
            unit=MIB,
        ),
    ] = GIB
    lease: Annotated[
        str,
        _key(
            "how long a client that is not heard of keeps what it has, from 100ms to a day",
            form="lease",
            pattern=SPAN,
        ),
    ] = "10"
    quotas: Annotated[
        dict[ClientName, Annotated[int, _key("", form="size", least=0, most=LARGEST)]],
        _key("how much clients may have, each by its name, and by `*` each other one", most=4096),
    ] = field(default_factory=dict)
    fence_guests: Annotated[
        bool,
        _key(
            "whether a guest of which no program is heard of for a lease loses its `pool-access` slot, by a surprise "
            "unbind, before what its programs had is given on; for slots that are bound to virtual switches"
        ),
    ] = False

    @property
    def lease_seconds(self) -> float:
        """The lease in seconds."""
        unit = next((one for one in ("ms", "min", "s") if self.lease.endswith(one)), "")
        return float(self.lease.removesuffix(unit)) * {"ms": 0.001, "min": 60.0}.get(unit, 1.0)


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole fabric."""

    devices: Annotated[
        Mapping[Name, Type3 | MultiLogicalDevice | SwitchCci | PoolAccess | PoolMemory],
        _key("the devices, by name", most=8192),
    ]
    switches: Annotated[dict[Name, Switch], _key("the switches, by name", most=1024)] = field(
        default_factory=dict
    )
    hosts: Annotated[dict[Name, Host], _key("the hosts, by name", most=64)] = field(default_factory=dict)
    pool: Annotated[Pool | None, _key("the pool of memory for programs; without this key there is none")] = (
        None
    )
    state: Annotated[
        str | None,
        _key("folder for what must survive a restart; relative to the topology file"),
    ] = None

    @property
    def memory(self) -> dict[str, Type3]:
        """The devices that are one function each."""
        return {name: one for name, one in self.devices.items() if isinstance(one, Type3)}

    @property
    def pools(self) -> dict[str, MultiLogicalDevice]:
        """The devices that have logical devices."""
        return {name: one for name, one in self.devices.items() if isinstance(one, MultiLogicalDevice)}

    @property
    def single(self) -> dict[str, LogicalDevice]:
        """The logical devices that have a head of their own, by their names: SLDs to whoever is at their links."""
        return {
            f"{name}.{ld}": one
            for name, pool in self.pools.items()
            if pool.heads == len(pool.logical_devices)
            for ld, one in enumerate(pool.logical_devices)
        }

    @property
    def ccis(self) -> dict[str, SwitchCci]:
        """The mailbox CCIs of switches."""
        return {name: one for name, one in self.devices.items() if isinstance(one, SwitchCci)}

    @property
    def access(self) -> dict[str, PoolAccess]:
        """The slots by which guests reach the pool."""
        return {name: one for name, one in self.devices.items() if isinstance(one, PoolAccess)}

    @property
    def pool_memory(self) -> dict[str, PoolMemory]:
        """The memory devices whose memory is the pool's."""
        return {name: one for name, one in self.devices.items() if isinstance(one, PoolMemory)}

    @property
    def shared(self) -> dict[str, Switch]:
        """The switches that have virtual switches."""
        return {name: one for name, one in self.switches.items() if one.virtual}

    @property
    def virtual(self) -> dict[str, tuple[str, int]]:
        """Of each virtual switch the name of its switch, and its VCS ID."""
        return {
            name: (switch, number)
            for switch, one in self.switches.items()
            for number, name in enumerate(one.virtual)
        }


def split(name: str) -> tuple[str, int | None]:
    """The device and the LD ID that a name means: `pool.0` is ("pool", 0), `mem0` is ("mem0", None)."""
    device, _, number = name.partition(".")
    return device, int(number) if number.isdecimal() else None
