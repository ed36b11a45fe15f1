"""Nothing is declared that no second source speaks of, save what is named here; everything has its clause."""

from __future__ import annotations

import enum
import importlib
import pkgutil
from types import ModuleType

import pytest

import softcxl.spec
from softcxl.wire import Block, Record, Register
from tests.spec.vectors import (
    bridge,
    compliance,
    cpmu,
    cxl,
    events,
    fm_payloads,
    generic_payloads,
    link,
    mctp,
    memory_payloads,
    pci,
    repair_payloads,
    tables,
)

PLACES = pci.PLACES + bridge.PLACES + cxl.PLACES + link.PLACES + cpmu.PLACES


def _modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(softcxl.spec.__path__, "softcxl.spec.")]
    return [
        importlib.import_module(name)
        for name in names
        if not name.endswith(("vfio_user", "pool_access", "pool_region"))
    ]


DECLARED = [
    value
    for module in _modules()
    for value in vars(module).values()
    if isinstance(value, type) and value.__module__ == module.__name__
]
TABLES = [value for value in DECLARED if issubclass(value, Register | Block | Record)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.__module__}.{table.__name__}")
def test_clause_and_description(table: type[Register] | type[Block] | type[Record]) -> None:
    layout = table.__layout__
    assert layout.spec.startswith(
        ("CXL 3.", "PCIe 6.0 ", "ACPI 6.5 ", "CDAT 1.03 ", "PCI Firmware 3.3 ", "DSP02")
    )
    assert layout.doc


@pytest.mark.parametrize(
    "kind", [value for value in DECLARED if issubclass(value, enum.Enum)], ids=lambda kind: kind.__name__
)
def test_every_enum_names_its_clause(kind: type[enum.Enum]) -> None:
    assert kind.__doc__ is not None
    assert any(clause in kind.__doc__ for clause in ("(CXL 3.", "(PCI", "(CDAT 1.03", "(ACPI 6.5", "(DSP02"))


VECTORS = (
    generic_payloads.PAYLOADS
    + memory_payloads.PAYLOADS
    + repair_payloads.PAYLOADS
    + events.PAYLOADS
    + tables.PAYLOADS
    + compliance.PAYLOADS
    + fm_payloads.PAYLOADS
    + mctp.PAYLOADS
)

# Records that no other project lays out, checked against the standard's own table alone: copied wrongly twice, they
# would pass. One of these leaves the list when a second source is found.
STANDARD_ALONE = {
    "ComponentStateDump",
    "EcsLog",
    "EcsLogEntry",
    "ErrorSignature",
    "MediaTest",
    "MediaTestCapabilityLog",
    "MediaTestLongResults",
    "MediaTestResults",
    "MediaTestResultsLongLog",
    "MediaTestResultsShortLog",
    "MldPortEvent",
    "PhysicalSwitchEvent",
    "VirtualSwitchEvent",
}


def test_every_record_has_a_vector() -> None:
    checked = {payload.record for payload in VECTORS}
    assert {table for table in TABLES if issubclass(table, Record)} - checked == set()


def test_which_records_have_no_second_source() -> None:
    confirmed = {payload.record for payload in VECTORS if payload.second_source}
    alone = {payload.record.__name__ for payload in VECTORS if payload.record not in confirmed}
    assert alone == STANDARD_ALONE


def test_every_placed_register_is_checked() -> None:
    checked = {(place.register.__layout__.block, place.offset) for place in PLACES}
    # Blocks whose places no other project names: offsets are the standard's alone
    unnamed = {"ComponentCapabilityEntry", "NonCxlFunctionMapDvsec", "MldDvsec"}
    unnamed |= {"ExtendedSecurity", "RootPortSecurity", "SnoopFilter"}
    # Entries of arrays, at offset 0 of themselves
    unnamed |= {"EventCapabilityEntry", "CounterConfigurationEntry", "FilterEntry", "CounterEntry"}
    missing = {
        (table.__name__, placed.name)
        for table in TABLES
        if issubclass(table, Block) and table.__name__ not in unnamed
        for placed in table.__layout__.registers
        if (placed.register.__layout__.block, placed.offset) not in checked  # a block may inherit it
    }
    assert missing == set()
