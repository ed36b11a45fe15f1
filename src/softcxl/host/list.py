"""What ``cxl list`` prints: the same names, nesting and values (ndctl, cxl/json.c and cxl/filter.c).

Where its order is chance (it reads directories) objects are in the order of their numbers. Targets and mappings come
with the highest position first, as there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from softcxl.host import media
from softcxl.host.decoder import EndpointDecoder, PortDecoder, RootDecoder
from softcxl.host.errors import MailboxError
from softcxl.host.port import Dport, Endpoint, Port

if TYPE_CHECKING:
    from softcxl.host.memdev import Memdev
    from softcxl.host.region import Region
    from softcxl.host.system import System

log = logging.getLogger(__name__)

T = TypeVar("T")
Json = dict[str, Any]
Listing = list[Json]

DAX_ALIGNMENT = 2 << 20


@dataclass(frozen=True, slots=True)
class Include:
    """What is listed: the options of ``cxl list`` by their long names, and names that objects are limited to."""

    buses: bool = False
    ports: bool = False
    endpoints: bool = False
    memdevs: bool = False
    decoders: bool = False
    regions: bool = False
    targets: bool = False
    dax: bool = False
    idle: bool = False
    partition: bool = False
    firmware: bool = False
    health: bool = False
    alert_config: bool = False
    media_errors: bool = False
    only_memdevs: frozenset[str] = frozenset()
    only_decoders: frozenset[str] = frozenset()
    only_regions: frozenset[str] = frozenset()

    def settled(self, verbose: int = 0) -> Include:
        """With what is implied: memory devices and regions where nothing is named, more for each -v."""
        given = self
        if not (self.buses or self.ports or self.endpoints or self.memdevs or self.decoders or self.regions):
            if self.only_memdevs or self.only_decoders or self.only_regions:
                given = replace(
                    given,
                    memdevs=bool(self.only_memdevs),
                    decoders=bool(self.only_decoders),
                    regions=bool(self.only_regions),
                )
            else:
                given = replace(given, memdevs=True, regions=True)
        if verbose >= 1:
            given = replace(
                given, buses=True, ports=True, endpoints=True, decoders=True, targets=True, regions=True
            )
        if verbose >= 2:
            given = replace(given, idle=True)
        if verbose >= 3:
            given = replace(given, partition=True, firmware=True, health=True, alert_config=True)
            given = replace(given, dax=True, media_errors=True)
        return given


def listing(system: System, include: Include | None = None, verbose: int = 0) -> list[Json]:
    """The array that ``cxl list`` would print, as Python objects."""
    return _Walk(system, (include or Include()).settled(verbose)).run()


class _Walk:
    """One walk over the hierarchy; arrays that have no parent in what is listed come to the top."""

    def __init__(self, system: System, include: Include) -> None:
        self.system, self.include = system, include
        self.top: dict[str, list[Json]] = {
            name: []
            for name in (
                *("anon memdevs", "buses", "ports", "endpoints", "memdevs"),
                *("root decoders", "port decoders", "endpoint decoders", "regions"),
            )
        }

    def run(self) -> list[Json]:
        include, root = self.include, self.system.root
        for memdev in self.system.memdevs.values():
            if memdev.endpoint is None and include.idle and include.memdevs and self._wants(memdev):
                self.top["anon memdevs"].append(self.memdev(memdev))
        bus: Json | None = None
        if include.buses:
            # No platform of ours can inject protocol errors (ACPI EINJ).
            bus = {"bus": root.name, "provider": root.provider, "injectable_protocol_errors": []}
            self._dports(bus, root.dports)
            self.top["buses"].append(bus)
        ports = self._array("ports", bus, include.ports)
        decoders = self._array("root decoders", bus, include.decoders)
        # Decoders of ports, and what hangs below them, stand beside the root's where ports are not listed.
        port_decoders = decoders if bus is not None else self.top["port decoders"]
        endpoint_decoders = decoders if bus is not None else self.top["endpoint decoders"]
        endpoints = self._array("endpoints", bus, include.endpoints)
        memdevs = self._array("memdevs", bus, include.memdevs)
        regions = self._array("regions", bus, include.regions)
        for one in root.decoders:
            self._root_decoder(one, decoders, regions)
        for port in root.ports:
            self._port(port, ports, port_decoders, endpoints, endpoint_decoders, memdevs)
        if bus is not None:
            for key, array in (
                *(("ports", ports), ("endpoints", endpoints), ("decoders", decoders)),
                *(("regions", regions), ("memdevs", memdevs)),
            ):
                _add(bus, f"{key}:{root.name}", array)
        groups = [(name, array) for name, array in self.top.items() if array]
        if len(groups) > 1:
            return [{name: array} for name, array in groups]
        return [one for _, array in groups for one in array]

    def _array(self, name: str, parent: Json | None, listed: bool) -> list[Json]:
        return [] if parent is not None and listed else self.top[name]

    def _wants(self, memdev: Memdev) -> bool:
        only = self.include.only_memdevs
        return not only or bool(only & {memdev.name, str(memdev.number), memdev.host})

    def _leads(self, port: Port) -> bool:
        return not self.include.only_memdevs or any(
            self._wants(one.memdev) for below in port.walk() for one in below.endpoints
        )

    # -- the levels ------------------------------------------------------------------------------------------

    def _root_decoder(self, decoder: RootDecoder, decoders: list[Json], regions: list[Json]) -> None:
        include, item = self.include, None
        if include.decoders and self._wants_decoder(decoder.name):
            item = self.root_decoder(decoder)
            decoders.append(item)
        if not include.regions:
            return
        found = [
            self.region(one)
            for one in sorted(decoder.regions, key=lambda one: one.number)
            if (include.idle or one.enabled)
            and (not include.only_regions or bool(include.only_regions & {one.name, str(one.number)}))
        ]
        if item is None:
            regions += found
        else:
            _add(item, f"regions:{decoder.name}", found)

    def _wants_decoder(self, name: str) -> bool:
        return not self.include.only_decoders or name in self.include.only_decoders

    def _port(
        self,
        port: Port,
        ports: list[Json],
        decoders: list[Json],
        endpoints: list[Json],
        endpoint_decoders: list[Json],
        memdevs: list[Json],
    ) -> None:
        include = self.include
        if not self._leads(port):
            return
        item: Json | None = None
        below: list[Json] = ports
        if include.ports:
            item = self._port_like("port", port, port.host)
            self._dports(item, port.dports)
            ports.append(item)
            below = []
            # Decoders of the port and of endpoints that are not listed share its one array.
            decoders = endpoint_decoders = [] if include.decoders else decoders
            endpoints = [] if include.endpoints else endpoints
            memdevs = [] if include.memdevs else memdevs
        for endpoint in port.endpoints:
            self._endpoint(endpoint, endpoints, endpoint_decoders, memdevs)
        for decoder in port.decoders if include.decoders else ():
            if self._wants_decoder(decoder.name) and (include.idle or decoder.committed):
                decoders.append(self.port_decoder(decoder))
        for one in port.ports:
            self._port(one, below, decoders, endpoints, endpoint_decoders, memdevs)
        if item is not None:
            for key, array in (
                *(("ports", below), ("endpoints", endpoints if include.endpoints else [])),
                *(
                    ("decoders", decoders if include.decoders else []),
                    ("memdevs", memdevs if include.memdevs else []),
                ),
            ):
                _add(item, f"{key}:{port.name}", array)

    def _endpoint(
        self, endpoint: Endpoint, endpoints: list[Json], decoders: list[Json], memdevs: list[Json]
    ) -> None:
        include = self.include
        if not self._wants(endpoint.memdev):
            return
        item: Json | None = None
        if include.endpoints:
            item = self._port_like("endpoint", endpoint, endpoint.memdev.name)
            endpoints.append(item)
        if include.memdevs:
            memdev = self.memdev(endpoint.memdev)
            if item is not None:
                item["memdev"] = memdev
            else:
                memdevs.append(memdev)
        if include.decoders:
            found = [
                self.endpoint_decoder(one)
                for one in endpoint.decoders
                if self._wants_decoder(one.name) and (include.idle or one.setting.size)
            ]
            if item is not None:
                _add(item, f"decoders:{endpoint.name}", found)
            else:
                decoders += found

    # -- the objects -----------------------------------------------------------------------------------------

    def _dports(self, item: Json, dports: dict[int, Dport]) -> None:
        if self.include.targets and dports:
            item["nr_dports"] = len(dports)
            item["dports"] = [
                {"dport": one.name, **_alias(one), "id": one.id, "protocol_injectable": False}
                for one in dports.values()
            ]

    def _port_like(self, key: str, port: Port | Endpoint, host: str) -> Json:
        dport = port.parent_dport
        # A host bridge's link leads to its ACPI device, and cxl looks for a dport of that name in vain.
        above = {} if dport.alias else {"parent_dport": dport.name}
        return {
            key: port.name,
            "host": host,
            **above,
            "depth": port.depth,
            "decoders_committed": port.committed,
        }

    def memdev(self, memdev: Memdev) -> Json:
        """``cxl list -M``'s object."""
        item: Json = {"memdev": memdev.name}
        for mode in ("pmem", "ram"):
            if memdev.size(mode):
                item[f"{mode}_size"] = memdev.size(mode)
                qos = self.system.qos_class(memdev, mode)
                if qos is not None:
                    item[f"{mode}_qos_class"] = qos
        self._optional(item, "health", self.include.health, memdev, media.health)
        self._optional(item, "alert_config", self.include.alert_config, memdev, media.alerts)
        item["serial"] = memdev.serial
        item["host"] = memdev.host
        item["firmware_version"] = memdev.firmware_version
        if memdev.endpoint is None:
            item["state"] = "disabled"
        self._optional(item, "poison_injectable", True, memdev, media.injectable)
        self._optional(item, "partition_info", self.include.partition, memdev, media.partition)
        self._optional(item, "firmware", self.include.firmware, memdev, media.firmware)
        self._optional(item, "media_errors", self.include.media_errors, memdev, _media_errors)
        return item

    def _optional(self, item: Json, key: str, listed: bool, of: T, ask: Callable[[T], Any]) -> None:
        """What devices have to be asked for: left out where one has no answer, and where that is None."""
        if not listed:
            return
        try:
            answer = ask(of)
        except MailboxError as error:
            log.info("no %s: %s", key, error)
            return
        if answer is not None:
            item[key] = answer

    def root_decoder(self, decoder: RootDecoder) -> Json:
        """``cxl list -D``'s object for a window."""
        window, restrictions = decoder.window, decoder.window.restrictions
        item: Json = {"decoder": decoder.name, "resource": window.base, "size": window.size}
        _interleave(item, window.ways, window.granularity)
        if restrictions.host_only:
            item["max_available_extent"] = decoder.max_available_extent
            if decoder.persistent:
                item["pmem_capable"] = True
            if decoder.volatile:
                item["volatile_capable"] = True
        if restrictions.device_coherent:
            item["accelmem_capable"] = True
        item["qos_class"] = window.qtg
        self._targets(item, decoder.targets)
        return item

    def port_decoder(self, decoder: PortDecoder) -> Json:
        """``cxl list -D``'s object for a decoder of a host bridge or switch."""
        item = self._decoder(decoder)
        self._targets(item, [decoder.port.dports.get(one) for one in decoder.setting.targets])
        return item

    def endpoint_decoder(self, decoder: EndpointDecoder) -> Json:
        """``cxl list -D``'s object for a decoder of a memory device."""
        item = self._decoder(decoder)
        if decoder.dpa is not None:
            item["dpa_resource"], item["dpa_size"] = decoder.dpa[0], decoder.dpa_size
        if decoder.mode:
            item["mode"] = decoder.mode
        return item

    def _decoder(self, decoder: PortDecoder | EndpointDecoder) -> Json:
        setting = decoder.setting
        item: Json = {"decoder": decoder.name}
        if setting.size:
            item["resource"], item["size"] = setting.base, setting.size
        _interleave(item, setting.ways, setting.granularity)
        if decoder.region is not None:
            item["region"] = decoder.region.name
        if not setting.size:
            item["state"] = "disabled"
        return item

    def _targets(self, item: Json, targets: Iterable[Dport | None]) -> None:
        there = []
        for one in targets:  # the kernel's list ends at the first that is not there
            if one is None:
                break
            there.append(one)
        item["nr_targets"] = len(there)
        if self.include.targets and there:
            item["targets"] = [
                {"target": one.name, **_alias(one), "position": position, "id": one.id}
                for position, one in reversed(list(enumerate(there)))
            ]

    def region(self, region: Region) -> Json:
        """``cxl list -R``'s object."""
        item: Json = {
            "region": region.name,
            "resource": region.hpa,
            "size": region.size,
            "type": region.type,
            "interleave_ways": region.ways,
            "interleave_granularity": region.granularity,
            "decode_state": "commit" if region.committed else "reset",
            "locked": region.locked,
        }
        if not region.enabled:
            item["state"] = "disabled"
        self._optional(item, "media_errors", self.include.media_errors, region, self._region_errors)
        if self.include.targets:
            item["mappings"] = [
                {"position": position, "memdev": one.memdev.name, "decoder": one.name}
                for position, one in reversed(list(enumerate(region.targets)))
                if one is not None
            ]
        if self.include.dax and region.type == "ram" and region.enabled:
            item["daxregion"] = _dax(region)
        mismatch = any(
            self.system.qos_class(one.memdev, region.type) != region.root.window.qtg
            for one in region.targets
            if one is not None
        )
        if mismatch:
            item["qos_class_mismatch"] = True
        return item

    def _region_errors(self, region: Region) -> list[Json] | None:
        found = [
            {"offset": one.hpa - region.hpa, "length": one.length, "source": one.source}
            for one in media.region_poison(self.system, region)
            if one.hpa is not None
        ]
        return found or None


def _media_errors(memdev: Memdev) -> list[Json] | None:
    found = [{"offset": one.dpa, "length": one.length, "source": one.source} for one in media.poison(memdev)]
    return found or None


def _dax(region: Region) -> Json:
    """A volatile region as a device-dax region with one device, as it is before anybody makes it system RAM."""
    device = {
        "chardev": f"dax{region.number}.0",
        "size": region.size,
        "target_node": region.root.number + 1,
        "align": DAX_ALIGNMENT,
        "mode": "devdax",
    }
    return {"id": region.number, "size": region.size, "align": DAX_ALIGNMENT, "devices": [device]}


def _interleave(item: Json, ways: int, granularity: int) -> None:
    item["interleave_ways"] = ways
    if ways > 1:
        item["interleave_granularity"] = granularity


def _alias(dport: Dport) -> Json:
    return {} if dport.alias is None else {"alias": dport.alias}


def _add(item: Json, key: str, array: list[Json]) -> None:
    if array:
        item[key] = array
