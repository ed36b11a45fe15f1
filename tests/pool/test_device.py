"""The way to the pool inside a guest, over a fake sysfs and the registers of a device in this process."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softcxl.device.access import PoolAccess
from softcxl.pool import device, uio
from softcxl.pool.device import DeviceLink, slots
from softcxl.pool.errors import Foreign, NoServer, Stale
from softcxl.pool.link import Place
from softcxl.spec.pool_access import AccessRegisters
from softcxl.testing.access import ECHO, FakeServer
from softcxl.testing.driver import Machine
from tests.pool.answers import welcome

MIB = 1 << 20
SLOT = "0000:0d:00.0"
HELLO = 1
LONG = 60.0


class Server(FakeServer):
    """A server that answers as a pool's does."""

    def __init__(self) -> None:
        super().__init__([MIB, 2 * MIB])
        self.answer = 0, welcome([(1, 0, 2 * MIB)])
        self.asked: list[tuple[int, int, bytes]] = []

    def ask(self, visitor: object, slot: int, opcode: int, request: bytes) -> tuple[int, bytes]:
        self.asked.append((slot, opcode, request))
        return self.answer if opcode == HELLO else (0, request)


class Registers:
    """Registers of a device in this process, as `softcxl.pool.uio.Registers` has those of a guest's."""

    access: PoolAccess

    def __init__(self, function: uio.Function) -> None:
        assert function.path.name == SLOT

    def load(self, offset: int) -> int:
        return int.from_bytes(self.take(offset, 4), "little")

    def store(self, offset: int, value: int) -> None:
        self.access.control.write(0, offset, value.to_bytes(4, "little"))

    def take(self, offset: int, size: int) -> bytes:
        return self.access.control.read(0, offset, size)

    def put(self, offset: int, data: bytes) -> None:
        if data:
            self.access.control.write(0, offset, data)

    @contextmanager
    def alone(self, until: float | None = None) -> Iterator[None]:
        yield

    def close(self) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


@pytest.fixture
def access(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolAccess]:
    one = PoolAccess("door")
    one.serve(server)
    one.control.attach(Machine())
    monkeypatch.setattr(Registers, "access", one, raising=False)
    monkeypatch.setattr(device, "Registers", Registers)
    yield one
    one.close()


def plant(sysfs: Path, slot: str, identity: str, server: Server | None = None) -> None:
    """A function in a fake sysfs; the BARs of one that has memory are the server's files."""
    folder = sysfs / slot
    folder.mkdir(parents=True)
    for name, text in zip(("vendor", "device"), identity.split(), strict=True):
        (folder / name).write_text(f"{text}\n")
    (folder / "config").write_bytes(struct.pack("<4xH", 2).ljust(64, b"\0"))
    (folder / "irq").write_text("11\n")
    for bar, memory in zip((0, 2, 4), server.memories() if server else (), strict=False):
        (folder / f"resource{bar}").symlink_to(f"/proc/{os.getpid()}/fd/{memory.fd}")


@pytest.fixture
def sysfs(tmp_path: Path, server: Server) -> Path:
    plant(tmp_path, "0000:00:1f.0", "0x8086 0x1234")
    plant(tmp_path, SLOT, "0x1e98 0x5c01")
    plant(tmp_path, "0000:0d:00.1", "0x1e98 0x5c02", server)
    return tmp_path


def test_slots_are_found_by_their_identity(sysfs: Path) -> None:
    assert slots(sysfs) == [SLOT]
    plant(sysfs, "0000:04:00.0", "0x1e98 0x5c01")
    assert slots(sysfs) == ["0000:04:00.0", SLOT]
    assert slots(sysfs / "nowhere") == []


def test_which_of_several_is_meant(sysfs: Path, access: PoolAccess) -> None:
    plant(sysfs, "0000:04:00.0", "0x1e98 0x5c01")
    with pytest.raises(
        NoServer, match=r"has 2 pool access devices; say which: device:0000:04:00.0, device:0000:0d"
    ):
        DeviceLink(sysfs=sysfs)
    assert DeviceLink(SLOT, sysfs=sysfs).address == "device:0000:0d:00.0"
    with pytest.raises(
        NoServer, match=r"0000:05:00.0 is no pool access device; there are 0000:04:00.0, 0000:0d"
    ):
        DeviceLink("0000:05:00.0", sysfs=sysfs)


def test_no_device_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match=r"this machine has 0 pool access devices$"):
        DeviceLink(sysfs=tmp_path)


def test_attaching_maps_the_memory(sysfs: Path, access: PoolAccess, server: Server) -> None:
    link = DeviceLink(sysfs=sysfs)
    mapped = link.attach("program", Place())
    assert (mapped.place, mapped.server, mapped.lease) == (Place(3, 5, b"t" * 16), 9, 2.5)
    assert {number: len(one) for number, one in mapped.maps.items()} == {0: MIB, 1: 2 * MIB}
    mapped.maps[0][100:105] = b"guest"
    assert server.memory[100:105] == b"guest"
    slot, opcode, hello = server.asked[-1]
    assert (slot, opcode, hello[112 : 112 + 7]) == (0, HELLO, b"\0" * 7)
    assert hello[48:55] == b"program"
    assert link.ask(ECHO, b"request") == (0, b"request")
    assert server.asked[-1] == (3, ECHO, b"request")


def test_what_the_server_answers_is_raised(sysfs: Path, access: PoolAccess, server: Server) -> None:
    link = DeviceLink(sysfs=sysfs)
    server.answer = 9, b"it is gone"
    with pytest.raises(Stale, match="it is gone"):
        link.attach("program", Place(3, 5, b"t" * 16))
    server.answer = 0, b"nonsense"
    with pytest.raises(Foreign, match="is no pool"):
        link.attach("program", Place())
    server.answer = 0, welcome([(1, 0, 2 * MIB)], protocol=2)
    with pytest.raises(Foreign, match="speaks protocol 2, this client 1"):
        link.attach("program", Place())


def test_memory_that_the_device_does_not_have(sysfs: Path, access: PoolAccess, server: Server) -> None:
    server.answer = 0, welcome([(7, 0, MIB)])
    with pytest.raises(Foreign, match=r"has no memory of the sources \[7\]"):
        DeviceLink(sysfs=sysfs).attach("program", Place())


def test_a_server_that_goes(sysfs: Path, access: PoolAccess) -> None:
    link = DeviceLink(sysfs=sysfs)
    assert not link.gone()
    access.leave()
    assert link.gone()
    with pytest.raises(NoServer, match=r"no server is behind 0000:0d:00.0"):
        link.attach("program", Place())


def test_a_device_that_answers_no_more(sysfs: Path, access: PoolAccess) -> None:
    link = DeviceLink(sysfs=sysfs)
    access.control.silence()
    assert link.gone()
    with pytest.raises(NoServer, match="does not answer"):
        link.ask(ECHO, b"")


def test_a_request_that_takes_too_long_is_given_up(sysfs: Path, access: PoolAccess, server: Server) -> None:
    """Its answer is not taken for that of the next one, which begins when it is over."""
    link = DeviceLink(sysfs=sysfs)
    busy, load = [True], Registers.load

    def loads(registers: Registers, offset: int) -> int:
        working = busy and server.asked and offset == AccessRegisters.result.__layout__.offset
        return load(registers, offset) | bool(working)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Registers, "load", loads)
        for _ in range(2):
            with pytest.raises(NoServer, match=r"the pool behind 0000:0d:00.0 does not answer"):
                link.ask(ECHO, b"first", 0.01)
        assert len(server.asked) == 1
        busy.clear()
        assert link.ask(ECHO, b"second", LONG) == (0, b"second")


def test_another_device_with_its_identity(sysfs: Path, access: PoolAccess) -> None:
    access.control.silence()
    with pytest.raises(Foreign, match="begins with 0xffffffffffffffff"):
        DeviceLink(sysfs=sysfs)


def test_a_request_that_cannot_be(sysfs: Path, access: PoolAccess) -> None:
    with pytest.raises(ValueError, match="1025 bytes; 1024 are the most"):
        DeviceLink(sysfs=sysfs).ask(ECHO, bytes(1025))


def test_ringing(sysfs: Path, access: PoolAccess, server: Server) -> None:
    DeviceLink(sysfs=sysfs).ring(0x12340)
    assert server.rings == [0x12340]


def test_without_interrupts_one_looks_again(
    sysfs: Path, access: PoolAccess, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no driver in the fake sysfs: resting is short, and said to be so once."""
    link = DeviceLink(sysfs=sysfs)
    for _ in range(2):
        link.rest(64, 60.0)
    assert caplog.text.count("waiting takes processor time") == 1


def test_registers_are_accessed_in_words(tmp_path: Path) -> None:
    plant(tmp_path, SLOT, "0x1e98 0x5c01")
    (tmp_path / SLOT / "resource0").write_bytes(bytes(range(256)) * 16)
    registers = uio.Registers(uio.Function(tmp_path / SLOT))
    assert registers.load(8) == 0x0B0A0908
    assert registers.take(16, 12) == bytes(range(16, 28))
    registers.store(8, 0xDEADBEEF)
    registers.put(32, b"0123456789")
    with (
        (tmp_path / SLOT / "resource0").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen,
    ):
        assert seen[8:12] == b"\xef\xbe\xad\xde"
        assert seen[32:48] == b"0123456789\0\0\0\0\0\0"
    with registers.alone():
        pass
    with registers.alone(time.monotonic() + LONG):
        pass
    registers.close()


@pytest.mark.parametrize("who", ["thread", "program"])
def test_who_waits_for_the_registers_waits_no_longer_than_said(tmp_path: Path, who: str) -> None:
    plant(tmp_path, SLOT, "0x1e98 0x5c01")
    (tmp_path / SLOT / "resource0").write_bytes(bytes(4096))
    registers = uio.Registers(uio.Function(tmp_path / SLOT))
    other = registers if who == "thread" else uio.Registers(uio.Function(tmp_path / SLOT))
    said = "another request to the pool behind 0000:0d:00.0 is not answered"
    with other.alone(), pytest.raises(NoServer, match=said), registers.alone(time.monotonic() + 0.01):
        pass
    with registers.alone(time.monotonic() + LONG):  # and is no worse for it
        pass
    for one in {registers, other}:
        one.close()


def test_a_function_that_does_not_answer_is_enabled(tmp_path: Path) -> None:
    plant(tmp_path, SLOT, "0x1e98 0x5c01")
    function = uio.Function(tmp_path / SLOT)
    function.enable()
    assert not (tmp_path / SLOT / "enable").exists()
    (tmp_path / SLOT / "config").write_bytes(bytes(64))
    function.enable()
    assert (tmp_path / SLOT / "enable").read_text() == "1"


def test_interrupts_below_an_expander_bridge_of_qemu_are_led_where_its_tables_say(tmp_path: Path) -> None:
    plant(tmp_path, SLOT, "0x1e98 0x5c01")
    plant(tmp_path, "0000:00:1f.0", "0x8086 0x2918")
    bridge = tmp_path / "0000:00:1f.0"
    (bridge / "subsystem_vendor").write_text("0x1af4\n")
    (bridge / "config").write_bytes(b"\x80" * 256)
    (tmp_path / SLOT / "driver").mkdir()
    (tmp_path / SLOT / "uio/uio0").mkdir(parents=True)
    uio.Interrupts(uio.Function(tmp_path / SLOT))
    assert (bridge / "config").read_bytes() == b"\x80" * 0x68 + b"\x0b" * 4 + b"\x80" * (256 - 0x6C)


def test_another_driver_has_it(tmp_path: Path) -> None:
    plant(tmp_path, SLOT, "0x1e98 0x5c01")
    (tmp_path / "vfio-pci").mkdir()
    (tmp_path / SLOT / "driver").symlink_to(tmp_path / "vfio-pci")
    with pytest.raises(NoServer, match="has another driver than uio_pci_generic: vfio-pci"):
        uio.Interrupts(uio.Function(tmp_path / SLOT))
