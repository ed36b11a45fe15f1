"""SRAT and HMAT of a plan, read back with struct: layouts by Linux include/acpi/actbl1.h and actbl3.h."""

import struct
from pathlib import Path

import pytest

from softcxl.lab import firmware
from softcxl.lab.plan import Bridge, GiB, GuestPlan, MiB, RootPort, Window

BRIDGES = tuple(Bridge(f"hb{number}", 12 + 2 * number, (RootPort(f"rp{number}"),)) for number in range(2))


def plan(memory=GiB, cpus=1, windows=()):
    return GuestPlan(memory=memory, cpus=cpus, bridges=BRIDGES, windows=windows)


def structures(table, start):
    while start < len(table):
        yield table[start : start + table[start + 1]]
        start += table[start + 1]


@pytest.mark.parametrize("make", [firmware.cedt, firmware.srat, firmware.hmat])
def test_a_table_has_its_length_adds_up_to_zero_and_stands_before_qemus(make):
    table = make(plan())
    assert struct.unpack_from("<I", table, 4) == (len(table),)
    assert sum(table) % 256 == 0
    assert table[10:24] == b"BOCHS BXPC    "
    assert struct.unpack_from("<I", table, 24)[0] > 1


@pytest.mark.parametrize(
    ("memory", "ranges"),
    [
        (GiB, [(0, 640 << 10), (MiB, GiB)]),
        (0xB0000000 - MiB, [(0, 640 << 10), (MiB, 0xB0000000 - MiB)]),
        (0xB0000000, [(0, 640 << 10), (MiB, 2 * GiB), (4 * GiB, 4 * GiB + 0xB0000000 - 2 * GiB)]),
        (8 * GiB, [(0, 640 << 10), (MiB, 2 * GiB), (4 * GiB, 10 * GiB)]),
    ],
)
def test_ordinary_memory_is_in_domain_0_and_windows_in_none(memory, ranges):
    window = Window("window0", 64 * GiB, GiB, Path("never-opened"), (12,))
    table = firmware.srat(plan(memory, windows=(window,)))
    found = [struct.unpack("<BBI2xQQ4xI8x", one) for one in structures(table, 48) if one[0] == 1]
    assert [(start, start + size) for _, _, _, start, size, _ in found] == ranges
    assert {(domain, flags) for _, _, domain, _, _, flags in found} == {(0, 1)}


def test_every_processor_is_in_domain_0():
    table = firmware.srat(plan(cpus=3))
    found = [struct.unpack("<BBBBIB3sI", one) for one in structures(table, 48) if one[0] == 0]
    assert found == [(0, 16, 0, number, 1, 0, bytes(3), 0) for number in range(3)]


def test_every_bridge_is_a_port_in_a_domain_beyond_those_of_windows():
    table = firmware.srat(plan())
    found = [struct.unpack("<BBxBI8sI4xI4x", one) for one in structures(table, 48) if one[0] == 6]
    assert [(hid, uid, kind, flags) for _, _, kind, _, hid, uid, flags in found] == [
        (b"ACPI0016", 12, 0, 1),
        (b"ACPI0016", 14, 0, 1),
    ]
    domains = [domain for _, _, _, domain, *_ in found]
    assert len(set(domains)) == 2
    assert all(16 < domain < 256 for domain in domains)  # MAX_PXM_DOMAINS is at least 256


def test_the_hmat_says_how_far_memory_and_ports_are():
    srat, hmat = firmware.srat(plan()), firmware.hmat(plan())
    ports = [struct.unpack_from("<I", one, 4)[0] for one in structures(srat, 48) if one[0] == 6]
    kinds = {}
    start = 40
    while start < len(hmat):
        head = struct.unpack_from("<H2xIBBBxII4xQ", hmat, start)
        kind, length, flags, data, _, initiators, targets, unit = head
        assert (kind, flags, initiators, targets) == (1, 0, 1, 3)
        assert struct.unpack_from("<4I", hmat, start + 32) == (0, 0, *ports)
        kinds[data] = [entry * unit for entry in struct.unpack_from("<3H", hmat, start + 48)]
        start += length
    assert kinds == {
        1: [100_000, 20_000, 20_000],  # ACPI_HMAT_READ_LATENCY, ps
        2: [100_000, 20_000, 20_000],
        4: [128_000, 64_000, 64_000],  # ACPI_HMAT_READ_BANDWIDTH, MB/s
        5: [128_000, 64_000, 64_000],
    }
