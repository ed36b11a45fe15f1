"""The table of what is covered: complete, derived, honest about gaps; and what was recorded for it is not stale."""

import json
from pathlib import Path

import pytest

import softcxl.switch
from softcxl.device import coverage
from softcxl.device.clock import ManualClock
from softcxl.device.coverage import GUEST, PROCESS
from softcxl.device.type3 import Type3
from softcxl.spec.command import registry
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GENERAL_MEDIA_EVENT, EventHeader, GeneralMediaEvent
from softcxl.testing.driver import Driver
from tests.recorder import Recorder

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "docs" / "reference" / "coverage.json"


@pytest.fixture(scope="module")
def tables():
    return coverage.tables(softcxl.switch)


def keys(tables):
    return {row.key: row for rows in tables.values() for row in rows}


def test_every_row_has_a_key_of_its_own(tables):
    assert len(keys(tables)) == sum(map(len, tables.values()))


def test_commands(tables):
    rows = {row.key: row for row in tables["Commands"]}
    assert list(rows) == [f"command {opcode:04X}h" for opcode in sorted(registry.NAMES)]
    identify = rows["command 4000h"]
    assert (identify.name, identify.clause) == ("Identify Memory Device", "CXL 3.1 §8.2.9.9.1.1")
    assert identify.handler == "CapacityCommands.identify"
    assert rows["command 5100h"].clause == "CXL 3.1 §7.6.7.1.1"
    assert rows["command 5100h"].handler == "PhysicalSwitchCommands.identify_switch_device"
    assert rows["command 0106h"].handler == "NotificationPolicy, which sends it"
    assert rows["command 5700h"].clause == rows["command 5700h"].handler == ""


def test_event_records_are_raised_where_their_class_is_used(tables):
    rows = {row.name: row for row in tables["Event records"]}
    assert list(rows) == [
        "General Media Event",
        "DRAM Event",
        "Memory Module Event",
        "Memory Sparing Event",
        "Dynamic Capacity Event",
        "Physical Switch Event",
        "Virtual Switch Event",
        "MLD Port Event",
        "Vendor Specific Event",
    ]
    assert rows["MLD Port Event"].handler == "reports"
    assert "poison" in rows["General Media Event"].handler.split(", ")
    assert all(row.clause for row in rows.values())


def test_capabilities_are_those_that_software_finds(tables):
    """Numbers are those of CXL 3.1 Tables 8-2 and 8-22 and §8.2.8.2.1, as in Linux's drivers/cxl/cxl.h and cxlpci.h."""
    rows = {row.key: row for row in tables["Register capabilities"]}
    assert "extended 0x23" not in rows
    for key, region in (
        ("component 0x2", "BAR 0"),
        ("component 0x5", "BAR 0"),
        ("device 0x1", "BAR 2"),
        ("device 0x2", "BAR 2"),
        ("device 0x4000", "BAR 2"),
        ("dvsec 0x0", "configuration space"),
        ("dvsec 0x8", "configuration space"),
        ("extended 0x2e", "configuration space"),
    ):
        assert rows[key].handler.startswith(region), key
        assert rows[key].clause, key
    assert rows["component 0x7"].handler == ""  # IDE
    assert rows["component 0x7"].clause == "CXL 3.1 §8.2.4.22"


def test_data_objects(tables):
    rows = {row.key: row for row in tables["Data objects"]}
    assert rows["data object 1E98h 02h"].handler == "CdatTable.exchange"
    assert rows["data object 0001h 00h"].handler == "DoeMailbox._discover"
    assert rows["data object 0001h 01h"].handler == ""


def test_features_have_the_identifiers_that_linux_knows(tables):
    """include/cxl/features.h."""
    rows = {row.name: row.number for row in tables["Features"]}
    assert rows["Patrol Scrub"] == "96dad7d6-fde8-482b-a733-75774e06db8a"
    assert len(rows) == 8


# -- what was recorded -----------------------------------------------------------------------------------------


def test_the_record_is_not_stale(tables):
    """It names only what there is, and tests that there are: `make coverage-table` where it does not."""
    seen, known = coverage.evidence(EVIDENCE), keys(tables)
    for key, tests in seen.items():
        assert key in known, key
        # An event may be a script's alone, and no device's own.
        assert known[key].handler or key.startswith("event "), f"{key} is not handled any more"
        assert tests.keys() <= {PROCESS, GUEST}
        for file in tests.values():
            assert (ROOT / file).exists(), file
    assert all(not tests.get(GUEST) or "/kernel/" in tests[GUEST] for tests in seen.values())
    assert len(seen) > 30


def test_gaps_show_as_gaps(tables, reference):
    """What is handled has a mark, or stands in the list of gaps."""
    seen, page = coverage.evidence(EVIDENCE), reference.commands.page()
    for title, rows in tables.items():
        section = page.split(f"\n## {title}\n")[1].partition("\n## ")[0]
        lines = {line.split(":")[0]: line for line in section.splitlines() if line.startswith("- Handled")}
        for kind, lead in (
            (PROCESS, "- Handled, but in no test in process"),
            (GUEST, "- Handled, but never by Linux in a guest"),
        ):
            missing = [row.name for row in rows if row.handler and kind not in seen.get(row.key, {})]
            assert lines[lead] == f"{lead}: {', '.join(missing) or 'none'}."


def test_commands_that_the_kernel_needs_were_sent_by_it(tables):
    """Without these drivers/cxl binds no device."""
    seen = coverage.evidence(EVIDENCE)
    for opcode in (0x0100, 0x0103, 0x0400, 0x0401, 0x4000):
        assert GUEST in seen[f"command {opcode:04X}h"]


# -- the recorder ----------------------------------------------------------------------------------------------


@pytest.fixture
def recorder():
    recorder = Recorder()
    recorder.starts("tests/docs/test_coverage.py", guest=False)
    with recorder.watching():
        yield recorder


def noted(recorder):
    return {key for key, _ in recorder.seen}


def test_recorder_notes_what_succeeds(recorder):
    device = Type3("mem0", volatile=256 << 20, clock=ManualClock())
    driver = Driver(device)
    assert "device 0x4000" not in noted(recorder)
    assert driver.send(0x4000)[0] == 0
    assert driver.send(0x4103)[0] != 0
    device.record_event(
        EventLog.WARNING, GeneralMediaEvent(header=EventHeader(identifier=GENERAL_MEDIA_EVENT))
    )
    assert f"event {GENERAL_MEDIA_EVENT}" not in noted(recorder)
    assert driver.send(0x0100, b"\1")[0] == 0
    driver.read64(2, driver.capabilities[0x4000][0])
    driver.cdat()
    assert noted(recorder) == {
        "command 4000h",
        "command 0100h",
        f"event {GENERAL_MEDIA_EVENT}",
        "data object 1E98h 02h",
        "device 0x2",
        "device 0x4000",
        "dvsec 0x8",
        "extended 0x2e",
    }
    device.close()


def test_recorder_tells_linux_from_the_test_beside_it(recorder):
    import threading

    recorder.starts("tests/kernel/test_x.py", guest=True)
    recorder.note("command 4000h")
    thread = threading.Thread(target=lambda: recorder.note("command 4100h"), name="door mem0")
    thread.start()
    thread.join()
    assert set(recorder.seen) == {("command 4100h", GUEST)}
    recorder.starts("tests/transport/test_x.py", guest=False)
    thread = threading.Thread(target=lambda: recorder.note("command 4200h"), name="door mem0")
    thread.start()
    thread.join()
    assert ("command 4200h", PROCESS) in recorder.seen


def test_a_record_keeps_what_did_not_run_and_is_still_there(tmp_path):
    file = tmp_path / "coverage.json"
    for name in ("test_a.py", "test_b.py"):
        (tmp_path / name).touch()
    before = {
        "command 4000h": {"process": "test_a.py", "guest": "test_b.py"},
        "command 4100h": {"process": "test_a.py"},
        "command 4200h": {"process": "test_gone.py"},
        "command FFFFh": {"process": "test_b.py"},
    }
    file.write_text(json.dumps(before))
    recorder = Recorder()
    recorder.starts("test_a.py", guest=False)
    recorder.note("command 4000h")
    recorder.note("command 4300h")
    recorder.starts("test_narrow.py", guest=False)
    recorder.note("command 4300h")
    recorder.merge(file, tmp_path)
    assert coverage.evidence(file) == {
        "command 4000h": {"guest": "test_b.py", "process": "test_a.py"},
        "command 4300h": {"process": "test_narrow.py"},
    }
