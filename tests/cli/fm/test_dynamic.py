"""Verbs about dynamic capacity, at an endpoint whose answers are written by hand."""

import struct
from uuid import UUID

import pytest

GIB = 1 << 30
MIB = 1 << 20
TAG = UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_what_the_device_has(scripts, ask, run):
    blocks = [1 << 21 | 1 << 28, 1 << 21, *[0] * 6]
    scripts.handlers[0x5600] = struct.pack("<BBxxHxxHBxQ8Q", 4, 2, 0b101, 0b10, 0b10, 16, *blocks)
    assert ask("dc", "info") == {
        "hosts": 4,
        "regions": 2,
        "total_capacity": 4 * GIB,
        "selection_policies": ["free", "prescriptive"],
        "removal_policies": ["prescriptive"],
        "sanitize_on_release_configurable": [1],
        "block_sizes": [[2 * MIB, 256 * MIB], [2 * MIB]],
    }
    assert "block sizes                       2MiB 256MiB, 2MiB\n" in run("dc", "info")


def test_regions(scripts, ask, run):
    region = struct.pack("<QQQQB3xB3x", 4 * GIB, 4, GIB, 2 * MIB, 0x28, 1)
    scripts.handlers[0x5601] = struct.pack("<HBB", 1, 1, 1) + region + struct.pack("<IIII", 64, 60, 8, 7)
    found = ask("dc", "regions", 1)
    assert found["extents_available"] == 60
    assert found["regions"] == [
        {
            "region": 0,
            "base": 4 * GIB,
            "decode_length": GIB,
            "length": GIB,
            "block_size": 2 * MIB,
            "attributes": ["shareable", "dynamic_capacity"],
            "sanitize_on_release": True,
        }
    ]
    assert run("dc", "regions", 1).splitlines()[1].split()[:4] == ["0", "0x100000000", "1GiB", "1GiB"]
    assert scripts.asked[-1] == (0x5601, "01000800")


def test_configuring(scripts, run):
    scripts.handlers[0x5602] = b""
    assert run("dc", "configure", 3, "--block-size", "2MiB", "--sanitize-on-release") == ""
    assert scripts.asked[-1] == (0x5602, struct.pack("<B3xQB3x", 3, 2 * MIB, 1).hex())


def test_extents(scripts, ask, run):
    listed = struct.pack("<QQ16sH6x", GIB, MIB, TAG.bytes, 1) + struct.pack(
        "<QQ16sH6x", 2 * GIB, MIB, bytes(16), 0
    )
    scripts.handlers[0x5603] = struct.pack("<HxxIIIIxxxx", 2, 0, 2, 2, 9) + listed
    assert ask("dc", "extents", 2) == [
        {"dpa": GIB, "length": MIB, "tag": str(TAG), "sequence": 1},
        {"dpa": 2 * GIB, "length": MIB, "tag": None, "sequence": 0},
    ]
    assert run("dc", "extents", 2).splitlines()[1:] == [
        f"0x40000000  1MiB    {TAG}  1",
        "0x80000000  1MiB    -                                     0",
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (["add", 2, "--length", "64MiB"], struct.pack("<HBBQ16sI", 2, 0, 0, 64 * MIB, bytes(16), 0)),
        (
            ["add", 2, "--length", "1MiB", "--region", 1, "--contiguous", "--tag", TAG],
            struct.pack("<HBBQ16sI", 2, 1, 1, MIB, TAG.bytes, 0),
        ),
        (
            ["add", 2, "--extent", "0x40000000:2MiB", "--extent", "0x80000000:1MiB", "--tag", TAG],
            struct.pack("<HBBQ16sI", 2, 2, 0, 0, bytes(16), 2)
            + struct.pack("<QQ16sH6x", GIB, 2 * MIB, TAG.bytes, 0)
            + struct.pack("<QQ16sH6x", 2 * GIB, MIB, TAG.bytes, 0),
        ),
        (["share", 3, TAG, "--region", 1], struct.pack("<HBBQ16sI", 3, 3, 1, 0, TAG.bytes, 0)),
        (["release", 2, "--length", "1MiB", "--tag", TAG], struct.pack("<HBxQ16sI", 2, 0, MIB, TAG.bytes, 0)),
        (
            ["release", 2, "--extent", "0x40000000:1MiB", "--force", "--sanitize"],
            struct.pack("<HBxQ16sI", 2, 0x31, 0, bytes(16), 1)
            + struct.pack("<QQ16sH6x", GIB, MIB, bytes(16), 0),
        ),
        (["reference", "add", TAG], TAG.bytes),
        (["reference", "remove", TAG], TAG.bytes),
    ],
)
def test_what_changes_capacity(scripts, run, arguments, sent):
    scripts.handlers |= dict.fromkeys((0x5604, 0x5605, 0x5606, 0x5607), b"")
    assert run("dc", *arguments) == ""
    opcodes = {"add": 0x5604, "share": 0x5604, "release": 0x5605, "reference": 0x5606}
    opcode = opcodes[arguments[0]] + (arguments[1] == "remove")
    assert scripts.asked[-1] == (opcode, sent.hex())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", 0], "give either --length or --extent"),
        (["release", 0, "--length", 1, "--extent", "0:1"], "give either --length or --extent"),
        (["add", 0, "--extent", "0:1MiB", "--region", 1], "--region and --contiguous go with --length"),
        (
            ["add", 0, "--extent", "5"],
            "Invalid value for '--extent': '5' is no extent; write one like 0x10000000:64MiB",
        ),
        (
            ["add", 0, "--length", "1MiB", "--tag", "red"],
            "Invalid value for '--tag': 'red' is no tag; write 32 hexa",
        ),
        (["share", 0, UUID(int=0)], "Invalid value for 'TAG': a tag of zeros stands for none"),
        (["configure", 8, "--block-size", 1], "Invalid value for 'REGION': 8; 0 to 7 are allowed"),
    ],
)
def test_bad_usage(scripts, fail, arguments, says):
    status, said = fail("dc", *arguments)
    assert status == 2
    assert said.startswith(says)


def test_tags(scripts, ask, run):
    entry = struct.pack("<16sB3x32s32s", TAG.bytes, 1, (0b1011).to_bytes(32, "little"), bytes(32))
    scripts.handlers[0x5608] = struct.pack("<IIIB3x", 1, 1, 1, 1) + entry
    assert ask("dc", "tags") == [{"tag": str(TAG), "fm_reference": True, "hosts": [0, 1, 3], "pending": None}]
    assert run("dc", "tags").splitlines()[1] == f"{TAG}  yes        0-1, 3  -"
