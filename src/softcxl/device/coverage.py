"""What of the standard devices and switches have: commands, events, register capabilities, data objects, features.

Everything is derived: names and declarations from `softcxl.spec`, handlers from what a device that has everything
answers, tests from `Evidence`, which is recorded while tests run (see tests/recorder.py).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import softcxl.device
from softcxl.device.cci import CommandSet
from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.notification import NotificationPolicy
from softcxl.device.reach import capabilities
from softcxl.device.type3 import Type3
from softcxl.pci.doe import DoeMailbox
from softcxl.pci.function import Function
from softcxl.spec.command import features, registry
from softcxl.spec.command.events import EVENT_NOTIFICATION
from softcxl.spec.command.features import (
    GET_SUPPORTED_FEATURES,
    GetSupportedFeaturesRequest,
    GetSupportedFeaturesResponse,
)
from softcxl.spec.command.memory import CAPACITY_UNIT
from softcxl.spec.cxl import (
    cdat,
    compliance,
    component,
    cpmu,
    device,
    dvsec,
    events,
    hdm,
    link,
    port,
    security,
)
from softcxl.spec.cxl.component import ComponentCapabilityId
from softcxl.spec.cxl.device import DeviceCapabilityId
from softcxl.spec.cxl.dvsec import VENDOR_CXL, DvsecId, RegisterBlockId
from softcxl.spec.fm import events as fm_events
from softcxl.spec.pci import doe, extended
from softcxl.spec.pci.doe import VENDOR_PCI_SIG, DataObjectType
from softcxl.spec.pci.extended import ExtendedCapabilityId
from softcxl.wire import Block, Record

Evidence = Mapping[str, Mapping[str, str]]
"""By a row's key: the file of a test that exercised it, under `process` (in process) and `guest` (by a real Linux)."""

PROCESS, GUEST = "process", "guest"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of the standard. `clause` is empty where it is not declared, `handler` where nothing in the rooms that
    were looked at has it. `key` is what `Evidence` knows it by."""

    key: str
    number: str
    name: str
    clause: str
    handler: str


def _modules(rooms: Iterable[ModuleType]) -> list[ModuleType]:
    """All modules of the rooms."""
    return [
        importlib.import_module(one.name)
        for room in rooms
        for one in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
        if one.name != __name__
    ]


def tables(*rooms: ModuleType) -> dict[str, list[Row]]:
    """The rows by subject: commands (of all components), events, capabilities, data objects, features. What handles
    them is looked for in this room, and in `rooms`, packages of the same kind."""
    modules = _modules([softcxl.device, *rooms])
    memory = Type3(
        "mem0",
        volatile=CAPACITY_UNIT,
        persistent=CAPACITY_UNIT,
        label_storage=4096,
        partition_alignment=CAPACITY_UNIT,
        dynamic=[DynamicRegion(length=CAPACITY_UNIT)],
        cpmu=True,
        compliance=True,
        secondary_mailbox=True,
        clock=ManualClock(),
    )
    pool = MultiLogicalDevice("pool", clock=ManualClock())
    try:
        return {
            "Commands": list(_commands(memory, modules)),
            "Event records": list(_events(modules)),
            "Register capabilities": list(_capabilities(memory, pool.pool.fm_owned)),
            "Data objects": list(_objects(memory)),
            "Features": list(_features(memory)),
        }
    finally:
        memory.close()
        pool.close()


def evidence(file: Path) -> Evidence:
    """What `file` says was exercised."""
    found: Evidence = json.loads(file.read_text("utf-8"))
    return found


# -- commands --------------------------------------------------------------------------------------------------


def command_key(opcode: int) -> str:
    return f"command {opcode:04X}h"


def _commands(memory: Type3, modules: list[ModuleType]) -> Iterator[Row]:
    names = {one.__name__ for one in modules}
    handlers = {opcode: _name(handler) for opcode, (_, handler) in memory.cci.handlers.items()}
    handlers[EVENT_NOTIFICATION.opcode] = f"{NotificationPolicy.__name__}, which sends it"
    # Those that no mailbox has, but other doors.
    for kind in sorted(_subclasses(CommandSet), key=lambda one: one.__module__):
        for name, value in vars(kind).items():
            declared = getattr(value, "__command__", None)
            if declared is not None and kind.__module__ in names:
                handlers.setdefault(declared.opcode, f"{kind.__name__}.{name}")
    for opcode, name in sorted(registry.NAMES.items()):
        declared = registry.COMMANDS.get(opcode)
        clause = declared.spec if declared else ""
        yield Row(command_key(opcode), f"{opcode:04X}h", name, clause, handlers.get(opcode, ""))


def _subclasses(kind: type[CommandSet]) -> list[type[CommandSet]]:
    return [one for direct in kind.__subclasses__() for one in (direct, *_subclasses(direct))]


def _name(handler: Callable[..., Any]) -> str:
    """The class that defines the bound method `handler`, and its name."""
    owner: CommandSet = handler.__self__  # type: ignore[attr-defined]
    defined = next(base for base in type(owner).__mro__ if handler.__name__ in vars(base))
    return f"{defined.__name__}.{handler.__name__}"


# -- event records ---------------------------------------------------------------------------------------------


def event_key(identifier: UUID) -> str:
    return f"event {identifier if identifier in _EVENTS else 'vendor'}"


_EVENTS: dict[UUID, type[Record]] = {
    events.GENERAL_MEDIA_EVENT: events.GeneralMediaEvent,
    events.DRAM_EVENT: events.DramEvent,
    events.MEMORY_MODULE_EVENT: events.MemoryModuleEvent,
    events.MEMORY_SPARING_EVENT: events.MemorySparingEvent,
    events.DYNAMIC_CAPACITY_EVENT: events.DynamicCapacityEvent,
    fm_events.PHYSICAL_SWITCH_EVENT: fm_events.PhysicalSwitchEvent,
    fm_events.VIRTUAL_SWITCH_EVENT: fm_events.VirtualSwitchEvent,
    fm_events.MLD_PORT_EVENT: fm_events.MldPortEvent,
}


def _events(modules: list[ModuleType]) -> Iterator[Row]:
    for identifier, record in _EVENTS.items():
        raised = [one.__name__.rpartition(".")[2] for one in modules if record in vars(one).values()]
        yield Row(
            event_key(identifier),
            str(identifier),
            _title(re.findall("[A-Z][a-z]+", record.__name__)),
            record.__layout__.spec,
            ", ".join(raised),
        )
    yield Row(
        "event vendor",
        "any other",
        "Vendor Specific Event",
        events.EventRecord.__layout__.spec,
        "EventLogs.record",
    )


# -- register capabilities -------------------------------------------------------------------------------------

_DECLARED: dict[str, type[Block]] = {
    f"component {ComponentCapabilityId.RAS:#x}": component.Ras,
    f"component {ComponentCapabilityId.SECURITY:#x}": security.Security,
    f"component {ComponentCapabilityId.LINK:#x}": link.Link,
    f"component {ComponentCapabilityId.HDM_DECODER:#x}": hdm.HdmDecoders,
    f"component {ComponentCapabilityId.IDE:#x}": security.Ide,
    f"component {ComponentCapabilityId.BI_DECODER:#x}": component.BiDecoder,
    f"device {DeviceCapabilityId.DEVICE_STATUS:#x}": device.DeviceStatus,
    f"device {DeviceCapabilityId.PRIMARY_MAILBOX:#x}": device.Mailbox,
    f"device {DeviceCapabilityId.SECONDARY_MAILBOX:#x}": device.Mailbox,
    f"device {DeviceCapabilityId.MEMORY_DEVICE_STATUS:#x}": device.MemoryDevice,
    f"dvsec {DvsecId.DEVICE:#x}": dvsec.DeviceDvsec,
    f"dvsec {DvsecId.NON_CXL_FUNCTION_MAP:#x}": port.NonCxlFunctionMapDvsec,
    f"dvsec {DvsecId.DEVICE_GPF:#x}": dvsec.DeviceGpfDvsec,
    f"dvsec {DvsecId.FLEX_BUS_PORT:#x}": port.FlexBusPortDvsec,
    f"dvsec {DvsecId.REGISTER_LOCATOR:#x}": dvsec.RegisterLocatorDvsec,
    f"dvsec {DvsecId.MLD:#x}": port.MldDvsec,
    f"extended {ExtendedCapabilityId.ADVANCED_ERROR_REPORTING:#x}": extended.AdvancedErrorReporting,
    f"extended {ExtendedCapabilityId.DEVICE_SERIAL_NUMBER:#x}": extended.DeviceSerialNumber,
    f"extended {ExtendedCapabilityId.DATA_OBJECT_EXCHANGE:#x}": extended.DataObjectExchange,
    f"block {RegisterBlockId.CPMU:#x}": cpmu.Cpmu,
}

_OF_DEVICES: dict[str, tuple[int, ...]] = {
    # What only hosts, switches and their ports have is left out (CXL 3.1 Tables 8-2 and 8-22).
    "component": (
        *(ComponentCapabilityId.RAS, ComponentCapabilityId.SECURITY, ComponentCapabilityId.LINK),
        *(ComponentCapabilityId.HDM_DECODER, ComponentCapabilityId.IDE, ComponentCapabilityId.BI_DECODER),
        *(ComponentCapabilityId.CACHE_MEM_EXTENDED, ComponentCapabilityId.EXTENDED_METADATA),
    ),
    "device": tuple(one for one in DeviceCapabilityId if one is not DeviceCapabilityId.ARRAY),
    "dvsec": tuple(one for one in DvsecId if one not in (DvsecId.PORT_EXTENSIONS, DvsecId.PORT_GPF)),
    "extended": (
        *(ExtendedCapabilityId.ADVANCED_ERROR_REPORTING, ExtendedCapabilityId.DEVICE_SERIAL_NUMBER),
        ExtendedCapabilityId.DATA_OBJECT_EXCHANGE,
    ),
    "block": (RegisterBlockId.CPMU,),
}


def _capabilities(*functions: Function) -> Iterator[Row]:
    present = {one.key: one for function in reversed(functions) for one in capabilities(function)}
    for place, numbers in _OF_DEVICES.items():
        for number in numbers:
            key = f"{place} {number:#x}"
            declared, found = _DECLARED.get(key), present.get(key)
            yield Row(
                key,
                f"{place} {number:X}h",
                _title(number.name.split("_")),  # type: ignore[attr-defined]  # an enumeration's
                declared.__layout__.spec if declared else "",
                found.where if found else "",
            )


# -- data objects ----------------------------------------------------------------------------------------------


def object_key(vendor: int, kind: int) -> str:
    return f"data object {vendor:04X}h {kind:02X}h"


def _objects(memory: Type3) -> Iterator[Row]:
    served = {
        object_key(*kind): f"{type(handler.__self__).__name__}.{handler.__name__}"  # type: ignore[attr-defined]
        for one in memory.parts
        if isinstance(one, DoeMailbox)
        for kind, handler in one.protocols.items()
    }
    for vendor, kind, name, declared in (
        (VENDOR_PCI_SIG, DataObjectType.DISCOVERY, "Discovery", doe.DiscoveryRequest),
        (VENDOR_PCI_SIG, DataObjectType.CMA_SPDM, "CMA/SPDM", None),
        (VENDOR_PCI_SIG, DataObjectType.SECURED_CMA_SPDM, "Secured CMA/SPDM", None),
        (VENDOR_CXL, compliance.DATA_OBJECT_TYPE_COMPLIANCE, "Compliance", compliance),
        (VENDOR_CXL, cdat.DATA_OBJECT_TYPE_CDAT, "Table access (CDAT)", cdat),
    ):
        key = object_key(vendor, kind)
        yield Row(key, f"{vendor:04X}h, {kind:02X}h", name, _clause(declared), served.get(key, ""))


def _clause(declared: type[Record] | ModuleType | None) -> str:
    """The clause of a declaration, or of the first one in a module."""
    if isinstance(declared, ModuleType):
        declared = next(one for one in vars(declared).values() if _is_record_of(one, declared))
    return declared.__layout__.spec if declared else ""


def _is_record_of(thing: object, module: ModuleType) -> bool:
    return isinstance(thing, type) and issubclass(thing, Record) and thing.__module__ == module.__name__


# -- features --------------------------------------------------------------------------------------------------


def feature_key(identifier: UUID) -> str:
    return f"feature {identifier}"


def _features(memory: Type3) -> Iterator[Row]:
    listed: dict[UUID, str] = {}
    if GET_SUPPORTED_FEATURES.opcode in memory.cci.handlers:
        request = GetSupportedFeaturesRequest(count=memory.cci.payload_max, starting_index=0)
        reply = memory.cci.execute(GET_SUPPORTED_FEATURES.opcode, request.pack())
        for one in GetSupportedFeaturesResponse.unpack(reply.payload).features:
            listed[one.identifier] = f"index {one.index}, {one.get_size} bytes"
    clause = GET_SUPPORTED_FEATURES.spec
    for name, value in vars(features).items():
        if isinstance(value, UUID):
            yield Row(feature_key(value), str(value), _title(name.split("_")), clause, listed.get(value, ""))


_LETTERS = {"RAS", "HDM", "IDE", "BI", "CXL", "GPF", "MLD", "PPR", "CPMU", "DRAM"}


def _title(words: list[str]) -> str:
    """A name in words, as the standard writes it."""
    return " ".join(one.upper() if one.upper() in _LETTERS else one.capitalize() for one in words)
