"""Features as Linux has them: scrubs, error check scrub and repair of media by EDAC, a vendor's by fwctl.

Words and limits are those of drivers/cxl/core/edac.c and features.c, and of Documentation/edac.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

import pytest

from softcxl import Fabric, Type3
from softcxl.device.faults import Fault
from softcxl.device.geometry import Scope
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.features import GET_FEATURE, GET_SUPPORTED_FEATURES, PATROL_SCRUB, SET_FEATURE
from softcxl.spec.command.maintenance import PERFORM_MAINTENANCE
from tests.kernel.conftest import Linux
from tests.kernel.traces import Traces, fields, until

OURS = UUID("11112222-3333-4444-5555-666677778888")
LATER = UUID("11112222-3333-4444-5555-666677779999")
TOPOLOGY = f"""
devices:
  mem0:
    volatile: 512MiB
    serial: 1
    event_log_depth: 64
    features:
      - {{uuid: {OURS}, size: 6000, default: c0ffee}}
      - {{uuid: {LATER}, size: 4, effect: cold-reset}}
hosts:
  alpha:
    bridges: {{hb0: {{ports: [mem0]}}}}
    windows: [{{size: 512MiB, targets: [hb0]}}]
"""
KERNEL = "own"
EDAC = "/sys/bus/edac/devices/cxl_mem0"
REPAIRS = ["cacheline-sparing", "row-sparing", "bank-sparing", "rank-sparing", "ppr"]
NEVER = 1e9
INVALID, TIMED_OUT = "Invalid argument", "Connection timed out"


@pytest.fixture
def device(fabric: Fabric) -> Iterator[Type3]:
    """The device; what a test has broken in it is no longer so afterwards, and its logs are empty."""
    device = fabric.devices["mem0"]
    yield device
    with device.lock:
        device.repair.reset()
        device.faults.mend()
        device.poison.clear(0, device.capacity.end)


def read(guest: Linux, name: str) -> str:
    return guest.sh(f"cat {EDAC}/{name}").strip()


def write(guest: Linux, name: str, value: object) -> str:
    """Empty, or what the kernel has against it."""
    return guest.run(f"echo {value} > {EDAC}/{name}").stderr.decode().rpartition("error: ")[2].strip()


def repair(guest: Linux, number: int, **attributes: object) -> str:
    """Set the attributes of a mem_repair directory, and do it; returns what the kernel has against it."""
    for name, value in attributes.items():
        assert write(guest, f"mem_repair{number}/{name}", value) == ""
    return write(guest, f"mem_repair{number}/repair", 1)


# -- scrubs ------------------------------------------------------------------------------------------------------


def test_patrol_scrub(guest: Linux, device: Type3) -> None:
    assert {name: read(guest, f"scrub0/{name}") for name in guest.sh(f"ls {EDAC}/scrub0").split()} == {
        "current_cycle_duration": "43200",
        "enable_background": "1",
        "min_cycle_duration": "3600",
        "max_cycle_duration": "918000",
    }
    assert write(guest, "scrub0/current_cycle_duration", 7200) == ""
    assert device.patrol_scrub.value == b"\2\1"
    assert device.patrol_scrub.saved == b"\2\1"  # Linux asks for that
    assert write(guest, "scrub0/enable_background", 0) == ""
    assert device.patrol_scrub.value == b"\2\0"
    assert write(guest, "scrub0/current_cycle_duration", 3599) == INVALID
    assert read(guest, "scrub0/current_cycle_duration") == "7200"
    assert write(guest, "scrub0/enable_background", 1) == ""


def test_error_check_scrub(guest: Linux, device: Type3) -> None:
    names = ("log_entry_type", "mode", "threshold")
    for fru in ("ecs_fru0", "ecs_fru1"):
        assert [read(guest, f"{fru}/{name}") for name in names] == ["1", "0", "256"]
    device.faults.correct(0x40, 7)  # in channel 1, the second FRU
    assert device.ecs.counters[1].errors == 7
    for name, value in (("threshold", 4096), ("mode", 1), ("reset", 1)):
        assert write(guest, f"ecs_fru1/{name}", value) == ""
    assert write(guest, "ecs_fru1/threshold", 999) == INVALID
    assert [read(guest, f"ecs_fru1/{name}") for name in names] == ["1", "1", "4096"]
    assert [read(guest, f"ecs_fru0/{name}") for name in names] == ["1", "0", "256"]
    assert device.ecs.counters[1].errors == 0


# -- repair ------------------------------------------------------------------------------------------------------


def faulty(device: Type3, dpa: int, scope: Scope = Scope.ROW, every: float = NEVER) -> Fault:
    return device.faults.add(dpa, scope=scope, every=every, endurance=1000)


def test_what_can_be_repaired(guest: Linux) -> None:
    for number, kind in enumerate(REPAIRS):
        names = ("repair_type", "persist_mode", "repair_safe_when_in_use", "min_dpa", "max_dpa")
        found = [read(guest, f"mem_repair{number}/{name}") for name in names]
        assert found == [kind, "0", "1", "0x0", "0x1fffffff"]


@pytest.mark.parametrize("number", range(4), ids=REPAIRS[:4])
def test_sparing(guest: Linux, device: Type3, number: int) -> None:
    traces = Traces(guest)
    fault = faulty(device, 0x2345640, Scope(number))
    place = fault.place
    names = ["channel", "rank", "bank_group", "bank", "row", "column", "sub_channel"]
    usual = {Scope.RANK: 2, Scope.BANK: 4, Scope.ROW: 5, Scope.CACHELINE: 7}[fault.scope]
    where = {name: getattr(place, name) for name in names[:usual]}
    if number < 3:  # there is one spare rank
        assert repair(guest, number, **{**where, "rank": 1 - place.rank}) == ""
        assert not fault.spared
    assert repair(guest, number, **where) == ""
    assert fault.spared
    told = traces.wait("cxl_memory_sparing", 2 if number < 3 else 1)[-1]
    assert (told["maint_op_class"], told["maint_op_sub_class"], told["result"]) == ("2", str(number), "0")
    assert {name: int(told[name], 0) for name in where} == where


def test_a_hard_repair_is_done_though_linux_does_not_wait(guest: Linux, device: Type3) -> None:
    """The kernel gives a background command no time unless its table of commands says how much."""
    fault = faulty(device, 0x3456780)
    place = fault.place
    where = {name: getattr(place, name) for name in ("channel", "rank", "bank_group", "bank", "row")}
    before = device.repair.spares["row"]
    assert repair(guest, 1, persist_mode=1, **where) == TIMED_OUT
    assert until(lambda: fault.spared, bool)
    assert device.repair.spares["row"] == before - 1
    assert write(guest, "mem_repair1/persist_mode", 0) == ""


def test_post_package_repair_until_there_is_no_spare(guest: Linux, device: Type3) -> None:
    fault = faulty(device, 0x123400)
    assert repair(guest, 4, dpa="0x223400") == ""
    assert not fault.spared
    assert repair(guest, 4, dpa="0x123400") == ""
    assert fault.spared
    while device.repair.spares["ppr"]:
        assert repair(guest, 4, dpa="0x323400") == ""
    assert repair(guest, 4, dpa="0x323400") == "No such device or address"  # ENXIO, of Resources Exhausted


def test_a_row_that_decays_until_it_is_repaired(guest: Linux, device: Type3) -> None:
    traces = Traces(guest)
    fault = faulty(device, 0x423400, every=0.05)
    place = fault.place
    told = fields(until(lambda: traces.texts("cxl_dram"), lambda texts: len(texts) >= 3)[-1])
    assert int(told["dpa"], 16) == 0x423400
    assert (told["type"], told["nibble_mask"]) == ("ECC Error", "1")
    names = ("channel", "rank", "bank_group", "bank", "row", "column", "sub_channel")
    where = {name: int(told[name], 0) for name in names}
    assert where == {name: getattr(place, name) for name in names}
    assert repair(guest, 0, **where) == ""  # a line is less than the row
    assert not fault.spared
    assert repair(guest, 1, **{name: where[name] for name in names[:5]}) == ""
    assert fault.spared
    errors = fault.errors
    told_all = until(lambda: traces.texts("cxl_dram"), lambda texts: len(texts) >= errors)
    assert len(told_all) == fault.errors == errors


def test_memory_in_use_is_repaired_where_an_event_has_told_of_it(
    guest: Linux, device: Type3, tidy: None
) -> None:
    """The kernel looks the address up as the record has it, with the bit that says volatile memory."""
    guest.create_region(["mem0"])
    traces = Traces(guest)
    fault = faulty(device, 0x523400)
    assert repair(guest, 4, dpa="0x523400", nibble_mask=1) == INVALID
    device.faults.correct(fault.dpa)
    traces.wait("cxl_dram", 1)
    assert repair(guest, 4, dpa="0x523400", nibble_mask=1) == INVALID
    assert not fault.spared
    assert repair(guest, 4, dpa="0x523401", nibble_mask=1) == ""
    assert fault.spared
    assert write(guest, "mem_repair4/nibble_mask", 0) == ""


def test_the_scrub_rate_of_a_region(guest: Linux, device: Type3, tidy: None) -> None:
    guest.create_region(["mem0"])
    region = guest.sh("ls -d /sys/bus/edac/devices/cxl_region*").strip()
    guest.sh(f"echo 10800 > {region}/scrub0/current_cycle_duration")
    assert device.patrol_scrub.value[0] == 3
    assert read(guest, "scrub0/current_cycle_duration") == "10800"


# -- fwctl -------------------------------------------------------------------------------------------------------

CONFIGURATION, READ, WRITE, WRITE_ALL = range(4)


def ask(guest: Linux, scope: int, opcode: int, payload: bytes, room: int = 4096) -> tuple[int, bytes]:
    """(the device's return code, or minus the kernel's error number; the answer)."""
    command = f"softcxl-fwctl /dev/fwctl/fwctl* {scope} {opcode:#x} {payload.hex()} {room}"
    code, _, answer = guest.run(command).stdout.decode().strip().partition(" ")
    return int(code), bytes.fromhex(answer)


def get(guest: Linux, identifier: UUID, count: int, offset: int = 0, selection: int = 0) -> tuple[int, bytes]:
    payload = identifier.bytes + struct.pack("<HHB", offset, count, selection)
    return ask(guest, CONFIGURATION, GET_FEATURE.opcode, payload, count)


def put(guest: Linux, scope: int, identifier: UUID, data: bytes, offset: int = 0, version: int = 1) -> int:
    head = identifier.bytes + struct.pack("<IHB9x", 0, offset, version)
    return ask(guest, scope, SET_FEATURE.opcode, head + data)[0]


def test_the_list(guest: Linux, device: Type3) -> None:
    """The standard's features are the kernel's own: it shows them as unchangeable."""
    payload = struct.pack("<IHxx", 4096, 0)
    code, answer = ask(guest, CONFIGURATION, GET_SUPPORTED_FEATURES.opcode, payload)
    assert code == 0
    assert struct.unpack_from("<HH", answer) == (10, 10)
    entries = [struct.unpack_from("<16sHHHI", answer, 8 + 48 * number) for number in range(10)]
    assert [UUID(bytes=one[0]) for one in entries] == list(device.features.features)
    assert [(one[3], one[4] & 1) for one in entries] == [(0, 0)] * 8 + [(6000, 1), (4, 1)]


def test_a_vendor_s_feature_in_parts(guest: Linux, device: Type3) -> None:
    """Longer than the mailbox's 4096 bytes: the kernel gets and sets it in parts."""
    assert get(guest, OURS, 6000) == (0, b"\xc0\xff\xee".ljust(6000, b"\0"))
    assert get(guest, OURS, 2, 1) == (0, b"\xff\xee")
    value = bytes(range(250)) * 24
    for scope in (CONFIGURATION, READ, WRITE):
        assert put(guest, scope, OURS, value) == -22  # it counts at once
    assert put(guest, WRITE_ALL, OURS, value) == 0
    assert device.features[OURS].value == value
    assert get(guest, OURS, 6000) == (0, value)
    assert get(guest, OURS, 3, selection=1) == (0, b"\xc0\xff\xee")
    assert get(guest, OURS, 3, selection=2) == (0, value[:3])  # Linux always asks to save
    assert get(guest, OURS, 3, selection=3) == (0x1A, b"")
    assert put(guest, WRITE_ALL, OURS, b"x", version=2) == 0x19
    assert put(guest, WRITE_ALL, PATROL_SCRUB, b"\1\1") < 0


def test_a_feature_that_changes_at_a_cold_reset(guest: Linux, device: Type3) -> None:
    assert put(guest, CONFIGURATION, LATER, b"next") == -22
    assert put(guest, WRITE, LATER, b"next") == 0
    assert get(guest, LATER, 4) == (0, bytes(4))
    guest.power_cycle(device)
    assert get(guest, LATER, 4) == (0, b"next")


def test_raw_maintenance_asks_for_spares(guest: Linux, device: Type3) -> None:
    guest.sh("echo Y > /sys/kernel/debug/cxl/mbox/raw_allow_all")
    payload = struct.pack("<BBBQ3x", 1, 0, 1, 0x1000)
    asked = guest.sh(f"softcxl-mailbox /dev/cxl/mem0 {PERFORM_MAINTENANCE.opcode:#x} {payload.hex()} 0")
    assert asked.split()[0] == "0"
    assert device.repair.spares["ppr"] == 4
    assert not device.events.logs[EventLog.FATAL].records
