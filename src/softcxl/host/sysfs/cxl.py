"""/sys/bus/cxl: ports, decoders, memory devices and regions (Linux drivers/cxl/core, Documentation/ABI sysfs-bus-cxl).

Every attribute of the kernel's is here, but for those that are of the kernel alone: power management, the numbers of
character devices, the class of firmware uploads, and the access coordinates of a region.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.port import Dport, Endpoint, Port
from softcxl.host.sysfs import dax, memdev, regions
from softcxl.host.sysfs.node import ADMIN, BOTH, WRITE, Attribute, Directory, Entry, Link, value
from softcxl.host.sysfs.paths import ROOT, of_bus, of_node, of_port

if TYPE_CHECKING:
    from softcxl.host.system import System

NONE = (1 << 64) - 1
"""What the kernel shows for an address that there is not."""

_SUBSYSTEM = Link("bus/cxl")


def device(kind: str, alias: int, entries: Mapping[str, Entry], driver: str = "") -> Mapping[str, Entry]:
    """A device of the bus: what all have, with its own. `alias` is the number in its modalias."""
    lines = [f"DEVTYPE={kind}", *([f"DRIVER={driver}"] if driver else []), f"MODALIAS=cxl:t{alias}"]
    return {
        "devtype": value(kind),
        "modalias": value(f"cxl:t{alias}"),
        "subsystem": _SUBSYSTEM,
        "uevent": Attribute(lambda: "\n".join(lines), mode=BOTH),
        **entries,
    }


# -- the bus -------------------------------------------------------------------------------------------------


def bus(system: System) -> Directory:
    """/sys/bus/cxl: links to every device, and the driver of regions, to bind and unbind them."""
    return Directory(
        lambda: {
            "devices": Directory(lambda: {name: Link(path) for name, path in paths(system)}),
            "drivers": Directory(lambda: {"cxl_region": regions.driver(system)}),
        }
    )


def dax_bus(system: System) -> Directory:
    """/sys/bus/dax: the device-dax devices of volatile regions."""
    return Directory(
        lambda: {
            "devices": Directory(
                lambda: {
                    f"dax{one.number}.0": Link(
                        f"{regions.path(one)}/dax_region{one.number}/dax{one.number}.0"
                    )
                    for one in system.regions.values()
                    if dax.has(one)
                }
            )
        }
    )


def paths(system: System) -> Iterator[tuple[str, str]]:
    """(name, path below /sys) of each device of the bus."""
    yield "root0", ROOT
    for root in system.root.decoders:
        yield root.name, f"{ROOT}/{root.name}"
        for region in root.regions:
            yield region.name, regions.path(region)
            for name in regions.children(region):
                yield name, f"{regions.path(region)}/{name}"
    if _nvdimm_bridge(system):
        yield "nvdimm-bridge0", f"{ROOT}/nvdimm-bridge0"
    for port in system.ports:
        yield port.name, of_port(port)
        for decoder in port.decoders:
            yield decoder.name, f"{of_port(port)}/{decoder.name}"
    for endpoint in system.endpoints:
        yield endpoint.name, of_port(endpoint)
        for below in endpoint.decoders:
            yield below.name, f"{of_port(endpoint)}/{below.name}"
    for one in system.memdevs.values():
        where = f"{of_node(system, one.node)}/{one.name}"
        yield one.name, where
        if memdev.nvdimm(one) and _nvdimm_bridge(system):
            yield f"pmem{one.number}", f"{where}/pmem{one.number}"


def _nvdimm_bridge(system: System) -> bool:
    return any(one.persistent for one in system.root.decoders)


def acpi(system: System) -> Directory:
    """The platform device of ACPI0017, with the root of CXL and all ports below it."""
    return Directory(lambda: {"root0": _root(system)}, device=True)


# -- ports -----------------------------------------------------------------------------------------------------


def _root(system: System) -> Directory:
    root = system.root

    def entries() -> Mapping[str, Entry]:
        found: dict[str, Entry] = {
            "decoders_committed": value(0),
            "uport": Link("devices/platform/ACPI0017:00"),
            **_dports(system, root.dports),
            **{one.name: _root_decoder(system, one) for one in root.decoders},
            **{one.name: _port(system, one) for one in root.ports},
        }
        if _nvdimm_bridge(system):
            found["nvdimm-bridge0"] = Directory(
                lambda: device("cxl_nvdimm_bridge", 1, {}, "cxl_nvdimm_bridge"), device=True
            )
        return device("cxl_port", 4, found)

    return Directory(entries, device=True)


def _dports(system: System, dports: Mapping[int, Dport]) -> dict[str, Entry]:
    return {f"dport{one.id}": Link(_dport_path(system, one)) for one in dports.values()}


def _dport_path(system: System, dport: Dport) -> str:
    return of_bus(dport.name) if dport.node is None else of_node(system, dport.node)


def _port(system: System, port: Port) -> Directory:
    def entries() -> Mapping[str, Entry]:
        node = next((one for one in system.nodes() if one.name == port.host), None)
        return device(
            "cxl_port",
            3,
            {
                "decoders_committed": value(port.committed),
                "parent_dport": Link(_dport_path(system, port.parent_dport)),
                "uport": Link(of_bus(port.host) if node is None else of_node(system, node)),
                **_dports(system, port.dports),
                **{one.name: _port_decoder(one) for one in port.decoders},
                **{one.name: _port(system, one) for one in port.ports},
                **{one.name: _endpoint(system, one) for one in port.endpoints},
            },
            "cxl_port",
        )

    return Directory(entries, device=True)


def _endpoint(system: System, endpoint: Endpoint) -> Directory:
    one = endpoint.memdev
    return Directory(
        lambda: device(
            "cxl_port",
            3,
            {
                "decoders_committed": value(endpoint.committed),
                "parent_dport": Link(_dport_path(system, endpoint.parent_dport)),
                "uport": Link(f"{of_node(system, one.node)}/{one.name}"),
                **{below.name: _endpoint_decoder(below) for below in endpoint.decoders},
            },
            "cxl_port",
        ),
        device=True,
    )


# -- decoders ----------------------------------------------------------------------------------------------------


def _root_decoder(system: System, decoder: RootDecoder) -> Directory:
    window = decoder.window
    restrictions = window.restrictions

    def entries() -> Mapping[str, Entry]:
        found: dict[str, Entry] = {
            **_base(window.base, window.size, window.ways, window.granularity, decoder.fixed),
            "cap_pmem": value(int(decoder.persistent)),
            "cap_ram": value(int(decoder.volatile)),
            "cap_type2": value(int(restrictions.device_coherent)),
            "cap_type3": value(int(restrictions.host_only)),
            "qos_class": value(window.qtg),
            "target_list": value(_target_list(decoder.targets)),
        }
        able = {"pmem": decoder.persistent, "ram": decoder.volatile}
        creates = [kind for kind in able if able[kind] and restrictions.host_only]
        for kind in creates:
            found[f"create_{kind}_region"] = Attribute(
                lambda: f"region{decoder.next_region}", regions.creator(system, decoder, kind), BOTH
            )
        if creates:
            found["delete_region"] = Attribute(None, regions.deleter(system, decoder), WRITE)
        found |= {one.name: regions.region(system, one) for one in decoder.regions}
        return device("cxl_decoder_root", 0, found)

    return Directory(entries, device=True)


def _port_decoder(decoder: PortDecoder) -> Directory:
    port, setting = decoder.port, decoder.setting

    def entries() -> Mapping[str, Entry]:
        targets: list[Dport | None] = [port.dports.get(one) for one in setting.targets]
        if decoder.hdm is None:
            targets = list[Dport | None](port.dports.values())[:1]
        return device(
            "cxl_decoder_switch",
            0,
            {
                **_base(setting.base, setting.size, setting.ways, setting.granularity, setting.locked),
                "region": value("" if decoder.region is None else decoder.region.name),
                "target_list": value(_target_list(targets)),
                "target_type": value("expander"),
            },
        )

    return Directory(entries, device=True)


def _endpoint_decoder(decoder: EndpointDecoder) -> Directory:
    setting = decoder.setting
    return Directory(
        lambda: device(
            "cxl_decoder_endpoint",
            0,
            {
                **_base(setting.base, setting.size, setting.ways, setting.granularity, setting.locked),
                "dpa_resource": value(f"{NONE if decoder.dpa is None else decoder.dpa[0]:#x}"),
                "dpa_size": Attribute(
                    lambda: f"{decoder.dpa_size:#018x}", lambda text: memdev.set_dpa_size(decoder, text), BOTH
                ),
                "mode": Attribute(
                    lambda: decoder.mode or "none", lambda text: memdev.set_mode(decoder, text), BOTH
                ),
                "region": value("" if decoder.region is None else decoder.region.name),
                "target_type": value("expander"),
            },
        ),
        device=True,
    )


def _base(start: int, size: int, ways: int, granularity: int, locked: bool) -> dict[str, Entry]:
    return {
        "interleave_granularity": value(granularity),
        "interleave_ways": value(ways),
        "locked": value(int(locked)),
        "size": value(f"{size:#x}"),
        "start": Attribute(lambda: f"{start:#x}", mode=ADMIN),
    }


def _target_list(targets: list[Dport | None]) -> str:
    """Port numbers by position, up to the first that is not there."""
    there = []
    for one in targets:
        if one is None:
            break
        there.append(str(one.id))
    return ",".join(there)
