"""The guest's CEDT, byte by byte from CXL 3.1 §9.18.1 and Linux's include/acpi/actbl1.h; and decoders by qtest."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import replace

import pytest

from softcxl.lab import firmware
from softcxl.lab.errors import MonitorError, PlanError
from softcxl.lab.plan import Bridge, BridgeDecoder, GiB, GuestPlan, Piece, RootPort, Window
from softcxl.lab.qtest import Qtest
from softcxl.spec.acpi.cedt import InterleaveArithmetic

PORT = (RootPort("p0"), RootPort("p1"))
ONE = GuestPlan(
    bridges=(Bridge("hb0", 12, PORT),),
    windows=(Window("w0", 4 * GiB, GiB, 3, (12,), qtg=42),),
)
TWO = GuestPlan(
    bridges=(Bridge("hb0", 12, PORT), Bridge("hb1", 15, (RootPort("p2"),))),
    windows=(
        Window("w0", 4 * GiB, 4 * GiB, 3, (12, 15), granularity=4096),
        Window("w1", 8 * GiB, GiB, 3, (15,)),
        Window("w2", 9 * GiB, GiB, 3, (15,)),
        Window("w3", 10 * GiB, GiB, 3, (15,)),
    ),
)


def structures(table: bytes) -> list[bytes]:
    found, at = [], 36
    while at < len(table):
        (length,) = struct.unpack_from("<H", table, at + 2)
        found.append(table[at : at + length])
        at += length
    return found


def test_header() -> None:
    table = firmware.cedt(ONE)
    signature, length, revision, _, oem, table_id, oem_revision = struct.unpack_from("<4sIBB6s8sI", table)
    assert (signature, length, revision) == (b"CEDT", len(table), 1)
    # what Linux compares to take it for QEMU's own, whose revision is 1 (drivers/acpi/tables.c)
    assert (oem, table_id, oem_revision) == (b"BOCHS ", b"BXPC    ", 2)
    assert sum(table) % 256 == 0


def test_bridges_are_a_gib_further_for_each_file_of_a_window() -> None:
    pieces = (Piece(0, 2 << 20, 3), Piece(2 << 20, 62 << 20, 4), Piece(64 << 20, 256 << 20, 5))
    plan = replace(ONE, windows=(replace(ONE.windows[0], backing=pieces),))
    chbs, _ = structures(firmware.cedt(plan))
    assert chbs == struct.pack("<BBHIIIQQ", 0, 0, 32, 12, 1, 0, 8 * GiB, 0x10000)


def test_one_bridge_one_window() -> None:
    chbs, cfmws = structures(firmware.cedt(ONE))
    # type, reserved, length, uid, version (1: CXL 2.0), reserved, base, length
    assert chbs == struct.pack("<BBHIIIQQ", 0, 0, 32, 12, 1, 0, 6 * GiB, 0x10000)
    # type, reserved, length, reserved, base, size, ways, arithmetic, reserved, granularity, restrictions, qtg, targets
    assert cfmws == struct.pack("<BBHIQQBBHIHHI", 1, 0, 40, 0, 4 * GiB, GiB, 0, 0, 0, 0, 0xE, 42, 12)


def test_bridges_are_in_reverse_order_after_device_memory() -> None:
    # seen with -m 1G,slots=4,maxmem=8G: 7 GiB for DIMMs, 1 GiB for each of 4 slots, then the bridges
    assert firmware.bridge_registers(TWO) == {15: 0x3C0000000, 12: 0x3C0010000}
    # and without memory devices they begin where these would
    assert firmware.bridge_registers(replace(ONE, windows=())) == {12: 0x100000000}


def test_interleaved_window() -> None:
    cfmws = structures(firmware.cedt(TWO))[2]
    assert cfmws[24:26] == bytes([1, 0])  # two ways, modulo
    assert struct.unpack_from("<I", cfmws, 28) == (4,)  # 256 bytes << 4
    assert struct.unpack_from("<II", cfmws, 36) == (12, 15)


def test_xor_window_has_its_maps() -> None:
    maps = (0x2020900,)
    xor = replace(TWO.windows[0], arithmetic=InterleaveArithmetic.XOR, xor_maps=maps)
    found = structures(firmware.cedt(replace(TWO, windows=(xor,))))
    # type, reserved, length, reserved, granularity, number of maps, maps
    assert found[2] == struct.pack("<BBHHBBQ", 2, 0, 16, 0, 4, 1, *maps)
    assert found[3][25] == 1


def test_xor_windows_of_one_granularity_share_their_maps() -> None:
    first = replace(TWO.windows[0], size=GiB, arithmetic=InterleaveArithmetic.XOR, xor_maps=(0x3000,))
    second = replace(first, name="x", base=5 * GiB)
    same = firmware.cedt(replace(TWO, windows=(first, second)))
    assert [one[0] for one in structures(same)] == [0, 0, 2, 1, 1]
    with pytest.raises(PlanError, match=r"the window x has other XOR maps than an earlier one"):
        firmware.cedt(replace(TWO, windows=(first, replace(second, xor_maps=(0x5000,)))))


def test_archive() -> None:
    archive = firmware.tables(ONE)
    assert archive.startswith(b"070701")
    assert b"kernel/firmware/acpi/cedt.aml\0" in archive
    assert firmware.cedt(ONE) in archive
    assert firmware.tables(GuestPlan()) == b""


class Machine:
    """Answers the qtest protocol with a host bridge whose HDM capability is third, at offset 0x140 of its array."""

    def __init__(self, commits: bool = True) -> None:
        self.here, there = socket.socketpair()
        self.words: dict[int, int] = {}
        self.commits = commits
        block = firmware.bridge_registers(ONE)[12] + 0x1000
        self.words |= {block: 3 << 24 | 0x1110001, block + 4: 0x1000_0002, block + 8: 0x1100_0004}
        self.words[block + 12] = 0x140 << 20 | 0x10005
        self.hdm = block + 0x140
        self.thread = threading.Thread(target=self.serve, args=(there,))
        self.thread.start()

    def serve(self, line: socket.socket) -> None:
        with line, line.makefile("rw") as file:
            for request in file:
                verb, address, *value = request.split()
                if verb == "readl":
                    file.write(f"IRQ raise 4\nOK {self.words.get(int(address, 16), 0):#018x}\n")
                elif verb == "writel":
                    word = int(value[0], 16)
                    if int(address, 16) == self.hdm + 0x20 and self.commits:
                        word |= 0x400
                    self.words[int(address, 16)] = word
                    file.write("OK\n")
                file.flush()

    def close(self) -> None:
        self.here.close()
        self.thread.join()


DECODER = BridgeDecoder(12, 4 * GiB, 512 << 20, 256, (1, 0))


def test_program_writes_the_decoder() -> None:
    machine = Machine()
    firmware.program(Qtest(machine.here), replace(ONE, decoders=(DECODER,)))
    machine.close()
    decoder = [machine.words[machine.hdm + 0x10 + 4 * index] for index in range(7)]
    # base, size; 256 bytes, 2 ways, commit, committed, host-only; target list: position 0 is port 1
    assert decoder == [0, 1, 0x20000000, 0, 0x1610, 0x0001, 0]
    assert machine.words[machine.hdm + 4] == 2


def test_decoder_that_does_not_commit() -> None:
    machine = Machine(commits=False)
    with pytest.raises(MonitorError, match=r"The decoder 0 of the bridge on bus 12 did not commit"):
        firmware.program(Qtest(machine.here), replace(ONE, decoders=(DECODER,)))
    machine.close()


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
def test_qemu_that_hangs_up(reads: bool) -> None:
    here, there = socket.socketpair()

    def hang_up() -> None:
        with there:
            there.recv(100, 0 if reads else socket.MSG_PEEK)

    thread = threading.Thread(target=hang_up)
    thread.start()
    with here:
        for _ in range(2):  # while it waits for an answer, and when it asks
            with pytest.raises(MonitorError, match=r"test socket failed at 'readl 0x4': QEMU hung up\.$"):
                Qtest(here).read32(4)
    thread.join()


def test_bridge_without_decoders() -> None:
    machine = Machine()
    machine.words[machine.hdm - 0x140] = 0
    with pytest.raises(MonitorError, match=r"has no HDM decoders"):
        firmware.program(Qtest(machine.here), replace(ONE, decoders=(DECODER,)))
    machine.close()
