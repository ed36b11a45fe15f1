"""Event records of every kind, written by hand, as `softcxl fm events` prints them."""

import json
import struct
from uuid import UUID

import pytest

from softcxl.cli import main
from tests.fm.scripted import Scripts

TAG = UUID("5afe0000-0000-0000-0000-000000000001")
SECOND = 1_000_000_000
NOON = 1_700_000_000  # 2023-11-14T22:13:20Z


def record(identifier, data, *, handle=1, severity=0, timestamp=NOON * SECOND):
    """A common header (CXL 3.2 Table 8-55) and what follows."""
    head = struct.pack(
        "<16sB3sHHQ16x", UUID(identifier).bytes, 0x80, bytes([severity, 0, 0]), handle, 0, timestamp
    )
    return head + data.ljust(0x50, b"\0")


PHYSICAL = "77cf9271-9c02-470b-9fe4-bc7b75f2da97"
VIRTUAL = "40d26425-3396-4c4d-a5da-3d47263af425"
MLD_PORT = "8dc44363-0c96-4710-b7bf-04bb99534c3f"
DYNAMIC = "ca95afa7-f183-4018-8c2f-95268e101a2a"
MEDIA = "fbcd0a77-c260-417f-85a9-088b1621eba6"
STRANGE = "00112233-4455-6677-8899-aabbccddeeff"

# port, type, slot status, reserved, then a port information block from its second byte on
LINK = struct.pack("<BBHB", 7, 0, 0x140, 0) + bytes([3, 2, 0, 5, 0x02, 16, 8, 0x1F, 5, 5, 4, 0, 4, 0])
EXTENT = struct.pack("<QQ16sH6x", 0x4000_0000, 64 << 20, TAG.bytes, 0)


@pytest.mark.parametrize(
    ("kind", "data", "line", "fields"),
    [
        (
            PHYSICAL,
            LINK,
            "port 7: link state change: type 3 MLD, x8 32 GT/s, L0",
            {"port": 7, "state": "dsp", "slot_status": 0x140},
        ),
        (
            VIRTUAL,
            struct.pack("<BBBBBBHH", 1, 2, 0, 3, 4, 5, 0, 0),
            "vPPB 2 of VCS 1: binding change: bound LD (LD 5 of port 4)",
            {"status": "bound_ld", "port": 4, "ld": 5},
        ),
        (
            VIRTUAL,
            struct.pack("<BBBBBBHH", 0, 1, 3, 0, 0, 0xFF, 0x40, 0x7C0),
            "vPPB 1 of VCS 0: slot control register updated: unbound",
            {"status": "unbound", "port": None, "ld": None, "link_control": 0x40, "slot_control": 0x7C0},
        ),
        (
            MLD_PORT,
            bytes([2, 9, 0, 0]) + bytes(range(8)),
            "port 9: fatal error message: 0001020304050607",
            {"port": 9, "type": "fatal_error_message"},
        ),
        (
            DYNAMIC,
            struct.pack("<BBHBBxx", 4, 3, 1, 0, 0) + EXTENT + struct.pack("<24xII", 60, 7),
            f"host 1: add capacity response: 0x40000000, 64MiB, tag {TAG}",
            {"host": 1, "extents_available": 60, "tags_available": 7, "more": False},
        ),
        (
            DYNAMIC,
            struct.pack("<BBHBBxx", 5, 0, 2, 0, 1) + EXTENT[:16] + bytes(24),
            "host 2: capacity released: 0x40000000, 64MiB",
            {"host": 2, "extents_available": None, "more": True},
        ),
        (
            MEDIA,
            struct.pack("<QBBBH", 0x1000, 1, 2, 3, 0),
            "general media event: address {",
            {"event_type": 2, "transaction_type": 3},
        ),
        (STRANGE, b"abc", f'event record: identifier "{STRANGE}", data "616263', {"identifier": STRANGE}),
        (VIRTUAL, struct.pack("<BBBB", 0, 0, 99, 98), "vPPB 0 of VCS 0: 99: 98 (port 0)", {"type": 99}),
    ],
)
def test_a_record(scripts: Scripts, run, kind, data, line, fields):
    head = struct.pack("<B19xH10x", 0, 1)
    scripts.handlers[0x0100] = head + record(kind, data, severity=2)
    assert run("events", "--log", "failure", "--keep").startswith(f"2023-11-14T22:13:20Z failure: {line}")
    found = json.loads(run("events", "--log", "failure", "--keep", "--json"))
    assert found | fields == found
    assert (found["log"], found["severity"], found["handle"]) == ("failure", "failure", 1)
    assert found["timestamp"] == NOON * SECOND


def test_a_log_that_a_component_has_not(scripts: Scripts, run, fail):
    scripts.handlers[0x0100] = lambda payload: (0, bytes(32)) if payload < b"\4" else (2, b"")
    assert run("events") == ""
    status, says = fail("events", "--log", "dynamic_capacity")
    assert status == 1
    assert says.endswith("Get Event Records (0100h) of event_log dynamic_capacity: Invalid Input (0002h)")


def test_kept_records_of_a_log_that_has_more(scripts: Scripts, capsys):
    head = struct.pack("<B19xH10x", 2, 1)
    scripts.handlers[0x0100] = head + record(STRANGE, b"", timestamp=0)
    assert main(["fm", "events", "--log", "fatal", "--keep"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("(no time) fatal: event record: ")
    assert err == "softcxl: the fatal log has more; without --keep all are printed\n"
