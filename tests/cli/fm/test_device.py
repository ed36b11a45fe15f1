"""Verbs about devices, at an endpoint whose answers are written by hand; commands go to it or through a tunnel."""

import struct

import pytest

from tests.fm.scripted import tunnelled

GIB = 1 << 30
MIB = 1 << 20


def allocations(ranges):
    def handle(payload):
        start, limit = payload
        shown = ranges[start : start + limit]
        return 0, struct.pack("<BBBB", len(ranges), 0, start, len(shown)) + b"".join(
            struct.pack("<QQ", *one) for one in shown
        )

    return handle


MLD = {
    0x5400: struct.pack("<QHB", 4 * GIB, 16, 2),
    0x5401: allocations([(4, 0), (2, 1), (0, 0)]),
    0x5402: lambda payload: (0, payload),
}


def test_logical_devices(scripts, ask, run):
    scripts.handlers |= MLD
    assert ask("ld", "list") == {
        "memory_size": 4 * GIB,
        "supported_lds": 16,
        "granularity": 256 * MIB,
        "qos_telemetry": ["temporary_throughput_reduction"],
        "lds": [
            {"ld": 0, "range1": GIB, "range2": 0},
            {"ld": 1, "range1": 512 * MIB, "range2": 256 * MIB},
            {"ld": 2, "range1": 0, "range2": 0},
        ],
    }
    assert run("ld", "list").splitlines() == [
        "4GiB, 2304MiB of it free, in multiples of 256MiB; up to 16 logical devices",
        "LD  range 1  range 2",
        "0   1GiB     0",
        "1   512MiB   256MiB",
        "2   0        0",
    ]


@pytest.mark.parametrize(
    ("options", "targets"),
    [
        (["--port", 3], ["0300"]),
        (["--port", 3, "--ld", 5], ["0300", "0500"]),
        (["--ld", 5], ["0500"]),
        (["--port", 3, "--pool"], ["0300", "0001"]),
        (["--pool", "--ld", 2], ["0001", "0200"]),
    ],
)
def test_a_device_behind_a_port(scripts, ask, options, targets):
    outermost = tunnelled(MLD)
    for _ in targets[1:]:
        outermost = tunnelled({0x5300: outermost})
    asked: list[bytes] = []

    def top(payload):
        asked.append(payload)
        return outermost(payload)

    scripts.handlers[0x5300] = top
    assert len(ask("ld", "list", *options)["lds"]) == 3
    # each layer: port or LD, target type, two bytes of size, a header of 12 bytes
    assert [asked[0][at : at + 2].hex() for at in range(0, 16 * len(targets), 16)] == targets


def test_allocating(scripts, ask, run):
    scripts.handlers |= MLD
    assert ask("ld", "allocate", 1, "1GiB", "512MiB,256MiB") == [
        {"ld": 1, "range1": GIB, "range2": 0},
        {"ld": 2, "range1": 512 * MIB, "range2": 256 * MIB},
    ]
    assert scripts.asked[-1] == (0x5402, "02010000" + struct.pack("<QQQQ", 4, 0, 2, 1).hex())
    assert run("ld", "allocate", 0, 0).splitlines() == ["LD  range 1  range 2", "0   0        0"]


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (["100MiB"], "Invalid value: 100MiB is no multiple of the device's granularity, 256MiB"),
        (["1GiB,1,1"], "Invalid value for 'RANGE1[,RANGE2]...': '1GiB,1,1' has more than two sizes"),
        (
            ["1GB"],
            "Invalid value for 'RANGE1[,RANGE2]...': '1GB' has no known unit; units are B, KiB, MiB, GiB, TiB",
        ),
        ([], "Missing argument 'RANGE1[,RANGE2]...'"),
    ],
)
def test_allocations_that_cannot_be(scripts, fail, sizes, says):
    scripts.handlers |= MLD
    status, said = fail("ld", "allocate", 0, *sizes)
    assert status == 2
    assert said.startswith(says)
    assert 0x5402 not in [opcode for opcode, _ in scripts.asked]


def test_a_device_that_has_no_logical_devices(scripts, fail):
    status, says = fail("ld", "list")
    assert status == 1
    assert says.endswith(": Get LD Info (5400h): Unsupported (0003h)")


# control, egress moderate and severe, sample interval, ReqCmpBasis, collection interval
CONTROL = struct.pack("<BBBBHB", 1, 10, 25, 8, 0, 64)


def test_quality_of_service(scripts, ask, run):
    scripts.handlers |= MLD | {
        0x5403: CONTROL,
        0x5405: b"\x2a",
        0x5406: lambda payload: (0, payload + bytes([128, 64, 0])),
        0x5408: lambda payload: (0, payload + bytes([255, 255, 0])),
    }
    found = ask("qos", "show")
    assert found["backpressure_average_percentage"] == 42
    assert found["control"]["egress_severe_percentage"] == 25
    assert found["lds"][1] == {"ld": 1, "allocated": 64, "limit": 255}
    lines = run("qos", "show").splitlines()
    assert "telemetry                        egress port congestion" in lines
    assert lines[-3] == "0   128/256    255/256"


def test_setting_quality_of_service(scripts, ask, run):
    scripts.handlers |= {
        0x5403: CONTROL,
        0x5404: lambda payload: (0, payload),
        0x5407: lambda payload: (0, payload),
        0x5409: lambda payload: (0, payload),
    }
    found = ask("qos", "set", "--moderate", 20, "--basis", 7, "--no-egress", "--throughput")
    assert found["egress_moderate_percentage"] == 20
    assert scripts.asked[-1] == (0x5404, struct.pack("<BBBBHB", 2, 20, 25, 8, 7, 64).hex())
    assert ask("qos", "allocate", 1, 128, 64) == [{"ld": 1, "allocated": 128}, {"ld": 2, "allocated": 64}]
    assert scripts.asked[-1] == (0x5407, "02018040")
    assert run("qos", "limit", 0, 255).splitlines() == ["LD  limit", "0   255/256"]
    assert scripts.asked[-1] == (0x5409, "0100ff")


def test_heads(scripts, ask, run):
    head = bytes([3, 16, 8, 0x1F, 5, 4, 4, 1, 3])
    scripts.handlers |= {
        0x5500: struct.pack("<BBxxBBxx", 3, 1, 0, 3) + bytes([3, 3, 0xFF]),
        0x5501: struct.pack("<B3x", 1) + head,
    }
    found = ask("heads")
    assert [one["head"] for one in found["lds"]] == [3, 3, None]
    assert found["heads"][0]["link"]["speed"] == 16.0
    assert run("heads").splitlines() == ["head  port  link            LDs", "0     3     x8 16 GT/s, L0  0-1"]


def test_memory_of_a_logical_device(scripts, run, ask):
    def memory(payload):
        if payload[3] & 0x80:
            return 0, struct.pack("<HH", len(payload) - 16, 0)
        size = int.from_bytes(payload[6:8], "little")
        return 0, struct.pack("<HH", size, 0) + bytes(range(size))

    scripts.handlers[0x5302] = memory
    assert run("memory", "read", 3, 1, "0x1000", 20) == (
        "00001000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f\n00001010: 10 11 12 13\n"
    )
    assert ask("memory", "read", 3, 1, 8, 4) == {"offset": 8, "data": "00010203"}
    assert run("memory", "write", 3, 1, 8, "0xdeadbeef") == ""
    # port 3, byte enables F and none, LD 1, 4 bytes at 8
    assert scripts.asked[-1] == (0x5302, "0300f080" + "01000400" + "0800000000000000" + "deadbeef")


def test_configuration_space_of_a_logical_device(scripts, run):
    scripts.handlers[0x5301] = bytes.fromhex("981e1100")
    assert run("config", "read", 3, 0, "--ld", 1) == "00000000: 98 1e 11 00\n"
    assert scripts.asked[-1] == (0x5301, "0300f000" + "0100" + "0000" + "00000000")
    run("config", "read", 3, 0, "--ld", "fm")
    assert scripts.asked[-1] == (0x5301, "0300f000" + "ffff" + "0000" + "00000000")
