"""Tables against bytes by hand from Linux's actbl1.h and actbl2.h, by Linux's reading, and by iasl where it is."""

import shutil
import struct
import subprocess

import pytest

from softcxl.host import firmware, tables
from softcxl.host.errors import TableError
from softcxl.host.firmware import Bridge, Window

GIB = 1 << 30
BRIDGES = [Bridge(7, 0x40, 0xFE00_0000), Bridge(9, 0x80, 0xFE01_0000)]
MAPS = (0x404100, 0x808200)


def made(*windows, bridges=BRIDGES):
    return firmware.tables(bridges, list(windows), ecam=0xB000_0000)


def test_cedt_bytes():
    table = made(Window(4 * GIB, GIB, (7, 9), 1024, qtg=42))["CEDT"]
    # struct acpi_table_header, acpi_cedt_chbs x 2, acpi_cedt_cfmws with two targets
    body = struct.pack("<BxHIIIQQ", 0, 32, 7, 1, 0, 0xFE00_0000, 0x10000)
    body += struct.pack("<BxHIIIQQ", 0, 32, 9, 1, 0, 0xFE01_0000, 0x10000)
    body += struct.pack("<BxHIQQBBHIHHII", 1, 44, 0, 4 * GIB, GIB, 1, 0, 0, 2, 0b1110, 42, 7, 9)
    assert table[36:] == body
    assert table[:8] == struct.pack("<4sI", b"CEDT", len(table))
    assert table[8] == 1
    assert sum(table) % 256 == 0


def test_xor_window_has_its_cxims():
    table = made(Window(4 * GIB, GIB, (7, 9), xor=True, maps=MAPS))["CEDT"]
    assert struct.pack("<BxHxxBBQQ", 2, 24, 0, 2, *MAPS) in table
    (window,) = tables.discover({"CEDT": table}).windows
    assert window.maps == (0x404100,)
    # Linux's cxl_test: the bit of the target is the parity of the address under the map
    for hpa in (4 * GIB, 4 * GIB + 0x100, 4 * GIB + 0x4000, 4 * GIB + 0x404100, 4 * GIB + 0x40_0000):
        assert window.target(hpa) == (hpa & 0x404100).bit_count() % 2


def test_mcfg_bytes():
    table = made()["MCFG"]
    assert table[44:] == struct.pack("<QHBBI", 0xB000_0000, 0, 0, 255, 0)
    assert tables.ecam({"MCFG": table}) == [(0xB000_0000, 0, 255)]


def test_what_was_written_is_read():
    found = tables.discover(made(Window(4 * GIB, GIB, (9,), 4096, qtg=3), Window(8 * GIB, GIB, (9, 7))))
    assert found.bridges == {7: 0xFE00_0000, 9: 0xFE01_0000}
    first, second = found.windows
    assert (first.base, first.size, first.targets, first.qtg, first.xor) == (4 * GIB, GIB, (9,), 3, False)
    assert first.granularity == 256  # of no meaning for one way
    assert [second.target(8 * GIB + offset) for offset in (0, 255, 256, 512, 768)] == [0, 0, 1, 0, 1]


def test_three_ways():
    bridges = [Bridge(uid, uid << 4, 0xFE00_0000 + (uid << 16)) for uid in (1, 2, 3)]
    (window,) = tables.discover(made(Window(6 * GIB, 3 * GIB, (1, 2, 3)), bridges=bridges)).windows
    # Linux: position = (hpa >> granularity bits) mod 3, of the whole address
    assert [window.target(6 * GIB + 256 * n) for n in range(4)] == [
        (6 * GIB // 256 + n) % 3 for n in range(4)
    ]


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (Window(4 * GIB, GIB, (8,)), "no host bridge has _UID 8; there are 7, 9"),
        (Window(4 * GIB + 4096, GIB, (7,)), "base 0x100001000 is not a multiple of 256 MiB"),
        (Window(4 * GIB, GIB >> 3, (7,)), "size 0x8000000 is not a multiple of 1 x 256 MiB"),
        (Window(4 * GIB, 3 << 28, (7, 9)), "size 0x30000000 is not a multiple of 2 x 256 MiB"),
        (Window(4 * GIB, GIB, (7, 9), 300), "granularity 300: allowed are"),
        (Window(4 * GIB, GIB, (7, 9, 7, 9, 7)), "5 ways: allowed are"),
        (Window(4 * GIB, GIB, (7, 9), xor=True), "2 ways need 1 XOR maps, 0 given"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window, reason):
    with pytest.raises(TableError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        made(window)


def test_windows_that_contradict_each_other_are_refused():
    with pytest.raises(TableError, match=r"window 1 at 0x120000000 overlaps window 0 at 0x100000000"):
        made(Window(4 * GIB, GIB, (7,)), Window(4 * GIB + (GIB >> 1), GIB, (9,)))
    with pytest.raises(TableError, match=r"other XOR maps"):
        made(
            Window(4 * GIB, GIB, (7, 9), xor=True, maps=(0x404100,)),
            Window(8 * GIB, GIB, (7, 9), xor=True, maps=(0x808100,)),
        )


def _broken(change):
    table = bytearray(made(Window(4 * GIB, GIB, (7,)))["CEDT"])
    change(table)
    table[9] = (table[9] - sum(table)) & 0xFF
    return {"CEDT": bytes(table)}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "has no CEDT"),
        ({"CEDT": b"CEDT"}, "4 bytes are less"),
        ({"CEDT": made()["MCFG"]}, "signature is 'MCFG'"),
        ({"CEDT": made()["CEDT"][:-1] + b"\xff"}, "add up to"),
        ({"CEDT": made()["CEDT"][:-1]}, "length field says"),
        (_broken(lambda t: t.__setitem__(slice(38, 40), b"\xff\xff")), "has a length of 0xffff"),
        (_broken(lambda t: t.__setitem__(36 + 64 + 24, 7)), "interleave ways encoding 7"),
        (_broken(lambda t: t.__setitem__(36 + 64 + 24, 1)), "2 ways, and 1 targets"),
        (_broken(lambda t: t.__setitem__(36 + 64 + 25, 2)), "arithmetic 2 is unknown"),
        (_broken(lambda t: t.__setitem__(36 + 64 + 8, 1)), "not aligned to 256 MiB"),
    ],
)
def test_a_damaged_table_is_a_sentence(given, reason):
    with pytest.raises(TableError, match=reason):
        tables.discover(given)


@pytest.mark.parametrize("signature", ["CEDT", "MCFG", "SRAT", "HMAT"])
def test_iasl_reads_the_tables(signature, tmp_path):
    if not shutil.which("iasl"):
        pytest.skip("iasl (Debian: acpica-tools) is not installed")
    file = tmp_path / f"{signature.lower()}.dat"
    file.write_bytes(made(Window(4 * GIB, GIB, (7, 9), qtg=42), Window(8 * GIB, GIB, (7,)))[signature])
    done = subprocess.run(["iasl", "-d", file.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = file.with_suffix(".dsl").read_text()
    assert f'Signature : "{signature}"' in text
    # iasl disassembles the CEDT since 2021; older ones say so and show its bytes
    for bad in ("Incorrect checksum", "Invalid", "Error"):
        assert bad not in text + done.stderr
