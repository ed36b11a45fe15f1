"""An operating system on a machine: it enumerates, binds its drivers, finds and makes regions.

system = System(machine)
region = system.create_region(["mem0", "mem1"], type="ram")
region.write(0, b"hello")
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from softcxl.host import assembly, discovery, explain, hotplug, labels, quality, reset
from softcxl.host.blocks import NumaNode, nodes
from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.enumerate import Node, RootBus, enumerate_all, rescan
from softcxl.host.errors import EnumerationError, HostError, ProbeError, RegionError
from softcxl.host.events import EventReader, Trace
from softcxl.host.list import Include, Listing, listing
from softcxl.host.machine import Machine
from softcxl.host.memdev import Memdev, probe
from softcxl.host.port import Dport, Endpoint, Port, Root
from softcxl.host.region import Region
from softcxl.host.registers import HdmRegisters, Registers, located
from softcxl.host.sysfs import Sysfs
from softcxl.host.tables import FixedWindow, discover
from softcxl.spec.cxl.component import ComponentCapabilityId
from softcxl.spec.cxl.dvsec import RegisterBlockId
from softcxl.spec.pci.express import PortType
from softcxl.spec.pci.header import CLASS_CXL_MEMORY_DEVICE

log = logging.getLogger(__name__)

_LINK_CAPABILITIES = 0x0C


class System:
    """An operating system that has booted on `machine`.

    What a driver could not bind to is not there, and `problems` has a sentence on it. Regions that firmware
    programmed are found; with `restore` so are those that labels describe. Raises `TableError` or
    `EnumerationError` where nothing can be done at all.
    """

    def __init__(self, machine: Machine, *, restore: bool = True) -> None:
        self.machine = machine
        self.problems: list[str] = []
        self.memdevs: dict[str, Memdev] = {}
        self.root = Root()
        self.log = EventReader(self)
        self._numbers = Numbers(1)  # of ports and endpoints; the root is 0
        self._memdev_numbers = Numbers()
        self.region_numbers = Numbers()
        self._port_of: dict[
            str, Port
        ] = {}  # host bridges and switches, by the name of what they are ports of
        self.buses: list[RootBus] = enumerate_all(machine)
        found = discover(machine.tables)
        self._generic_ports = quality.generic_ports(machine.tables)
        self._add_bridges(found.bridges)
        for window in found.windows:
            self._add_window(window)
        for bus in self.buses:
            for node in bus.walk():
                self._try_add(node)
        discovery.discover(self)
        if restore:
            labels.restore(self)

    def __repr__(self) -> str:
        return f"<system of {len(self.memdevs)} memory devices, {len(self.regions)} regions>"

    # -- looking -------------------------------------------------------------------------------------------

    @property
    def ports(self) -> list[Port]:
        """Host bridges and switches, from the top down."""
        return [port for bridge in self.root.ports for port in bridge.walk()]

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints, in the order of memory devices."""
        return [one.endpoint for one in self.memdevs.values() if one.endpoint is not None]

    @property
    def regions(self) -> dict[str, Region]:
        """The regions by name, in the order of their numbers."""
        found = (region for decoder in self.root.decoders for region in decoder.regions)
        return {one.name: one for one in sorted(found, key=lambda one: one.number)}

    def nodes(self) -> Iterator[Node]:
        """Every PCI function that was found, depth first."""
        for bus in self.buses:
            yield from bus.walk()

    def memdev(self, given: str | int | Memdev) -> Memdev:
        """A memory device by name, number, or the name of its PCI function. Raises `RegionError`."""
        if isinstance(given, Memdev):
            return given
        for one in self.memdevs.values():
            if given in (one.name, one.number, str(one.number), one.host):
                return one
        raise RegionError(f"{given} is no memory device here; there are {', '.join(self.memdevs) or 'none'}")

    def root_decoder(self, given: str | int | RootDecoder) -> RootDecoder:
        """A window by the name or number of its decoder. Raises `RegionError`."""
        if isinstance(given, RootDecoder):
            return given
        for one in self.root.decoders:
            if given in (one.name, one.number):
                return one
        names = ", ".join(one.name for one in self.root.decoders) or "none"
        raise RegionError(f"{given} is no root decoder here; there are {names}")

    def region_at(self, hpa: int) -> Region | None:
        """The region that has a host physical address."""
        for one in self.regions.values():
            if one.hpa <= hpa < one.hpa + one.size:
                return one
        return None

    def qos_class(self, memdev: Memdev, type: str) -> int | None:
        """The QoS class of a device's memory of that type, None where the platform says nothing of it."""
        if memdev.endpoint is None or not memdev.size(type):
            return None
        return quality.class_of(self.root, memdev.endpoint, self._generic_ports)

    def explain(self, hpa: int) -> explain.Explanation:
        """Which window, bridge, ports, switches, decoder, device and DPA a host physical address comes to.

        Raises `AccessError`, saying how far it comes.
        """
        return explain.explain(self, hpa)

    def translate(self, memdev: str | int | Memdev, dpa: int) -> int | None:
        """The host physical address of a device's byte, None where it is mapped nowhere."""
        return explain.translate(self, self.memdev(memdev), dpa)

    @property
    def sysfs(self) -> Sysfs:
        """The kernel's view of it, to read and to write: ``system.sysfs["bus/cxl/devices/mem0/serial"]``."""
        return Sysfs(self)

    def events(self) -> list[Trace]:
        """What the memory devices have reported since the last call: event records, overflows of logs, and poison
        that was listed or changed through sysfs; with where in host addresses and which region."""
        return self.log.read()

    @property
    def numa_nodes(self) -> list[NumaNode]:
        """The NUMA nodes of CXL memory that is system RAM; a node appears with its first memory block."""
        return nodes(self)

    def listing(self, include: Include | None = None, verbose: int = 0) -> Listing:
        """What ``cxl list`` would print of this host, as Python objects."""
        return listing(self, include, verbose)

    # -- regions -------------------------------------------------------------------------------------------

    def create_region(
        self,
        memdevs: Sequence[str | int | Memdev] | None = None,
        *,
        decoder: str | int | RootDecoder | None = None,
        type: str | None = None,
        size: int | None = None,
        ways: int | None = None,
        granularity: int | None = None,
        uuid: UUID | None = None,
    ) -> Region:
        """Make a region of `memdevs`, in the order of their positions, and enable it.

        The arguments are those of ``cxl create-region``. Without `decoder` it is the first window that leads to
        all of them and takes the type; without `memdevs` it is those below the decoder, as many as `ways`, in an
        order that works; without `size` (bytes) all that they have left. Raises `RegionError`, and then nothing
        has changed.
        """
        wanted = assembly.Wanted(
            members=None if memdevs is None else [self.memdev(one) for one in memdevs],
            decoder=None if decoder is None else self.root_decoder(decoder),
            type=type,
            size=size,
            ways=ways,
            granularity=granularity,
            uuid=uuid,
        )
        region = assembly.create(self, wanted)
        if region.type == "pmem":
            labels.store(self, region)
        return region

    def destroy_region(self, given: str | Region) -> None:
        """Take a region apart and give its capacity back; its labels go, too. Raises `RegionError`."""
        region = given if isinstance(given, Region) else self.regions.get(given)
        if region is None:
            raise RegionError(f"{given} is no region here; there are {', '.join(self.regions) or 'none'}")
        region.not_online("be destroyed")
        assembly.destroy(self, region)
        if region.type == "pmem":
            labels.forget(self, region)

    # -- resets ----------------------------------------------------------------------------------------------

    def reset_methods(self, memdev: str | int | Memdev) -> list[str]:
        """The resets that work for a memory device now, by the names that Linux has for them: of flr, bus, cxl_bus
        and cxl_reset."""
        return reset.methods(self.memdev(memdev))

    def reset(
        self, memdev: str | int | Memdev, method: str = "cxl_bus", *, clear: bool = False
    ) -> list[Region]:
        """Reset a memory device by that method; `clear` asks a cxl_reset to clear its volatile memory.

        Regions that lost a decoder by it are disabled, and returned; they can be destroyed, and made again. Raises
        `ResetError`.
        """
        found = self.memdev(memdev)
        try:
            return reset.reset(found, method, clear=clear)
        finally:
            self.log.again(found)

    # -- coming and going ------------------------------------------------------------------------------------

    def service_slots(self) -> list[hotplug.SlotEvent]:
        """See to the slots whose buttons were pushed, or in which devices came or went; returns what was done.

        Regions of devices that went are disabled, with the reason.
        """
        return hotplug.service(self)

    def hot_add(self, port: str) -> list[Memdev]:
        """Bring up what was plugged in below the PCI port of that name (``0000:0c:01.0``) since it was found empty.

        Raises `EnumerationError` for a port that is not there or has no room.
        """
        node = self._port(port)
        before = set(self.memdevs)
        for found in rescan(node):
            for one in found.walk():
                self._try_add(one)
        discovery.discover(self)
        return [one for name, one in self.memdevs.items() if name not in before]

    def hot_remove(self, port: str) -> list[Region]:
        """What is below the PCI port of that name is gone, or about to be: let go of it.

        Regions that had capacity of it are disabled, and returned. Their other devices' decoders are reset.
        """
        node = self._port(port)
        lost = {one for below in node.below for one in below.walk()}
        hit: dict[str, Region] = {}
        for memdev in [one for one in self.memdevs.values() if one.node in lost]:
            for decoder in memdev.decoders:
                if decoder.region is not None:
                    hit[decoder.region.name] = decoder.region
                    assembly.lose(decoder.region, memdev)
                    self.stranded(decoder.region)
            self._drop(memdev)
        for one in [
            one
            for one in self.ports
            if one.parent_dport.node in (node, *lost) and one.parent is not self.root
        ]:
            if not any(True for below in one.walk() if below.endpoints):
                one.parent.ports.remove(one)
                del self._port_of[one.host]
                self._numbers.free(one.number)
        node.below = []
        return list(hit.values())

    def stranded(self, region: Region) -> None:
        """Memory of a region that is disabled goes if it is offline; what is online Linux cannot take back."""
        if region.online_size:
            self._problem(
                f"{region.name}: {region.online_size:#x} bytes of it were online when it was lost, and cannot be"
                " hotremoved until the next reboot"
            )
        else:
            region.blocks.clear()

    def _port(self, name: str) -> Node:
        for node in self.nodes():
            if node.name == name and node.bridge:
                return node
        raise EnumerationError(f"{name} is no PCI port here")

    def _drop(self, memdev: Memdev) -> None:
        if memdev.endpoint is not None:
            memdev.endpoint.parent.endpoints.remove(memdev.endpoint)
            self._numbers.free(memdev.endpoint.number)
        del self.memdevs[memdev.name]
        self._memdev_numbers.free(memdev.number)

    # -- binding -------------------------------------------------------------------------------------------

    def _add_bridges(self, registers: Mapping[int, int]) -> None:
        for number, bus in enumerate(self.buses):
            if bus.uid not in registers:
                self.problems.append(f"{bus.name}: the CEDT has no CHBS for _UID {bus.uid}")
                continue
            dport = Dport(bus.uid, bus.name, f"ACPI0016:{number:02x}")
            self.root.dports[bus.uid] = dport
            block = Registers(self.machine, registers[bus.uid], bus.name)
            try:
                hdm = _hdm(block)
            except ProbeError as error:
                self.problems.append(str(error))
                continue
            port = Port(self._numbers.take(), bus.name, self.root, dport, hdm)
            self.root.ports.append(port)
            self._port_of[port.host] = port

    def _add_window(self, window: FixedWindow) -> None:
        targets = [self.root.dports.get(uid) for uid in window.targets]
        number = len(self.root.decoders)
        self.root.decoders.append(RootDecoder(number, window, targets, self.region_numbers.take()))

    def _try_add(self, node: Node) -> None:
        """Bind to a memory device; what is anything else is passed over."""
        if node.class_code != CLASS_CXL_MEMORY_DEVICE:
            return
        number = self._memdev_numbers.take()
        try:
            memdev = probe(node, number)
        except HostError as error:
            self._memdev_numbers.free(number)
            self._problem(str(error))
            return
        self.memdevs[memdev.name] = memdev
        try:
            self._add_endpoint(memdev)
        except HostError as error:
            self._problem(str(error))

    def _problem(self, sentence: str) -> None:
        log.info("%s", sentence)
        self.problems.append(sentence)

    def _add_endpoint(self, memdev: Memdev) -> None:
        parent, dport = self._above(memdev.node)
        found = memdev.component.component(ComponentCapabilityId.HDM_DECODER)
        if found is None:
            raise ProbeError(f"{memdev.host}: its component registers have no HDM decoders")
        hdm = HdmRegisters(found)
        hdm.enable()
        endpoint = Endpoint(self._numbers.take(), memdev, parent, dport, hdm)
        parent.endpoints.append(endpoint)
        memdev.endpoint = endpoint
        for number in range(hdm.count):
            decoder = EndpointDecoder(endpoint, number, hdm, hdm.read(number))
            endpoint.decoders.append(decoder)
            if decoder.committed:
                memdev.reserve(decoder)

    def _above(self, node: Node) -> tuple[Port, Dport]:
        """The port and downstream port that lead to a function; made where they are not there yet."""
        link = node.parent
        if link is None:
            raise ProbeError(f"{node.name}: it is on a root bus, without a root port")
        if link.port_type == PortType.ROOT_PORT:
            bus = next(one for one in self.buses if link in one.below)
            port = self._port_of.get(bus.name)
            if port is None:
                raise ProbeError(f"{node.name}: its host bridge {bus.name} is none of CXL")
        elif link.port_type == PortType.DOWNSTREAM_PORT and link.parent is not None:
            port = self._switch(link.parent)
        else:
            raise ProbeError(f"{node.name}: {link.name} above it is no root or downstream port")
        express = link.config.express()
        assert express is not None
        number = link.config.read(express + _LINK_CAPABILITIES) >> 24
        known = port.dports.get(number)
        if known is not None and known.node is not link:
            raise ProbeError(f"{link.name}: {known.name} has its port number {number}, too")
        if known is None:
            located(link)  # a CXL port has component registers of its own
            known = port.dports[number] = Dport(number, link.name, node=link)
        if not port.decoders:
            _add_decoders(port)
        return port, known

    def _switch(self, upstream: Node) -> Port:
        known = self._port_of.get(upstream.name)
        if known is not None:
            return known
        parent, dport = self._above(upstream)
        block = located(upstream).get(RegisterBlockId.COMPONENT)
        if block is None:
            raise ProbeError(f"{upstream.name}: its Register Locator names no component block")
        port = Port(self._numbers.take(), upstream.name, parent, dport, _hdm(block))
        parent.ports.append(port)
        self._port_of[port.host] = port
        return port


def _hdm(block: Registers) -> HdmRegisters | None:
    found = block.component(ComponentCapabilityId.HDM_DECODER)
    return None if found is None else HdmRegisters(found)


def _add_decoders(port: Port) -> None:
    hdm = port.hdm
    if hdm is None:
        # With a single port below there is nothing to decide, and the standard asks for no decoder.
        port.decoders.append(PortDecoder(port, 0, None))
        return
    port.decoders += [PortDecoder(port, number, hdm, hdm.read(number)) for number in range(hdm.count)]


class Numbers:
    """The lowest number that is free, as Linux's ida gives them."""

    def __init__(self, taken: int = 0) -> None:
        self._freed: list[int] = []
        self._end = taken

    def take(self) -> int:
        if self._freed:
            return heapq.heappop(self._freed)
        self._end += 1
        return self._end - 1

    def free(self, number: int) -> None:
        heapq.heappush(self._freed, number)
