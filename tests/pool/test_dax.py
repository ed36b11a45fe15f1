"""The way to the pool by memory alone, over a plain file that is laid out as a region, and a fake sysfs."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from softcxl.device.access import PoolMemory
from softcxl.fm.pool.front import Front
from softcxl.pool import address, dax
from softcxl.pool.dax import DaxLink, regions
from softcxl.pool.errors import Foreign, NoServer, Refused, Stale
from softcxl.pool.link import Place
from softcxl.pool.protocol import Status
from softcxl.testing.access import FakeServer
from tests.pool.answers import welcome
from tests.pool.served import wait_until

MIB = 1 << 20
SIZE = 256 * MIB
HELLO, ECHO = 1, 6
CLAIMED, ANSWERED = 1, 3
BELLS, WORDS = 0x3000, 0x3000 + 56 * 8


class Answering:
    """What answers as a pool's server does."""

    def __init__(self) -> None:
        self.welcome = 0, welcome()
        self.asked: list[tuple[int, int, bytes]] = []
        self.rings: list[int] = []

    def ask(self, visitor: object, slot: int, opcode: int, request: bytes) -> tuple[int, bytes]:
        self.asked.append((slot, opcode, request))
        return self.welcome if opcode == HELLO else (0, request)

    def ring(self, offset: int) -> None:
        self.rings.append(offset)

    def gone(self, visitor: object) -> None:
        pass


class Decoded:
    """A device's memory, whose front is the file's first 2 MiB."""

    name, visitor, decoded, comings = "way", None, True, 0

    def __init__(self, fd: int) -> None:
        self.front_fd = fd


class Machine:
    """A guest's files: /dev and sysfs below `folder`, with the dax device of a region in `file`."""

    def __init__(self, folder: Path) -> None:
        self.devices, self.sysfs, self._region = folder / "dev", folder / "sys", folder / "region0"
        for one in (self.devices, self.sysfs, self._region / "dax_region0", folder / "drivers"):
            one.mkdir(parents=True)
        self.file = self.devices / "dax0.0"
        (self._region / "interleave_ways").write_text("1\n")
        self.plant("dax0.0")
        with (
            FakeServer([4 * MIB, 8 * MIB]) as memory,
            self.file.open("w+b") as file,
            ExitStack() as stack,
        ):
            device = PoolMemory("way", 4 * MIB, {"source1": 8 * MIB})
            stack.callback(device.close)
            device.show(memory.memories())
            file.truncate(SIZE)
            os.pwrite(file.fileno(), os.pread(device.front_fd, 2 * MIB, 0), 0)

    def plant(self, name: str, *, driver: str = "device_dax", size: int = SIZE) -> None:
        there = self._region / "dax_region0" / name
        there.mkdir()
        (there / "size").write_text(f"{size}\n")
        (there / "driver").symlink_to(self.sysfs.parent / "drivers" / driver)
        (self.sysfs.parent / "drivers" / driver).mkdir(exist_ok=True)
        (self.sysfs / name).symlink_to(there)

    def put(self, at: int, data: bytes) -> None:
        with self.file.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def get(self, at: int, size: int) -> bytes:
        with self.file.open("rb") as file:
            file.seek(at)
            return file.read(size)

    def link(self, path: str | None = None) -> DaxLink:
        return DaxLink(path, sysfs=self.sysfs, devices=self.devices)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def server(machine: Machine) -> Iterator[Answering]:
    answering = Answering()
    fd = os.open(machine.file, os.O_RDWR)
    with Front(answering, Decoded(fd)):  # type: ignore[arg-type]
        yield answering
    os.close(fd)


def test_a_region_is_found_by_how_it_begins(machine: Machine) -> None:
    assert regions(machine.sysfs, machine.devices) == ["dax0.0"]
    machine.plant("dax1.0")  # whose file is not there
    machine.plant("dax2.0", driver="kmem")
    (machine.devices / "dax2.0").symlink_to(machine.file)
    machine.plant("dax3.0")
    with (machine.devices / "dax3.0").open("wb") as other:
        other.truncate(SIZE)
    assert regions(machine.sysfs, machine.devices) == ["dax0.0"]
    assert machine.link().address == f"dax:{machine.file}"


def test_which_of_several_is_meant(machine: Machine) -> None:
    machine.plant("dax1.0")
    (machine.devices / "dax1.0").symlink_to(machine.file)
    with pytest.raises(
        NoServer, match=r"2 dax devices with a pool; say which: dax:.*/dax0\.0, dax:.*/dax1\.0"
    ):
        machine.link()
    assert machine.link(str(machine.devices / "dax1.0")).path.name == "dax1.0"


def test_attaching_maps_each_source_at_its_place(machine: Machine, server: Answering) -> None:
    server.welcome = 0, welcome([(1, 0, 8 * MIB)])
    machine.put(2 * MIB, b"arena")
    machine.put(6 * MIB, b"source")
    link = machine.link()
    found = link.attach("program", Place(4, 7, b"before"))
    assert (found.place, found.server, found.lease) == (Place(3, 5, b"t" * 16), 9, 2.5)
    assert {number: (len(one), one[:6]) for number, one in found.maps.items()} == {
        0: (4 * MIB, b"arena\0"),
        1: (8 * MIB, b"source"),
    }
    assert found.files == machine.link().attach("other", Place()).files
    found.maps[1][0:3] = b"SOU"
    assert machine.get(6 * MIB, 6) == b"SOUrce"
    slot, opcode, hello = server.asked[0]
    assert (slot, opcode) == (0, HELLO)
    assert struct.unpack_from("<IIIxxxxQ16s", hello) == (1, os.getpid(), 4, 7, b"before".ljust(16, b"\0"))
    assert link.ask(ECHO, b"hello") == (0, b"hello")
    assert server.asked[-1] == (3, ECHO, b"hello")
    assert machine.get(BELLS, 57 * 8) == bytes(57 * 8)


def test_what_the_server_answers_is_raised(machine: Machine, server: Answering) -> None:
    server.welcome = Status.GONE, b"slot 4 is none of this guest's"
    with pytest.raises(Stale, match="slot 4 is none of this guest's"):
        machine.link().attach("program", Place(4, 7, b"before"))
    server.welcome = 0, b"rubbish"
    with pytest.raises(Foreign, match="is no pool"):
        machine.link().attach("program", Place())
    server.welcome = 0, welcome([(1, 0, 8 * MIB)], protocol=2)
    with pytest.raises(Foreign, match="speaks protocol 2, this client 1"):
        machine.link().attach("program", Place())
    server.welcome = 0, welcome([(2, 0, 1)])
    with pytest.raises(Foreign, match=r"has no memory of the sources \[2\]"):
        machine.link().attach("program", Place())


def test_a_program_that_died_in_a_cell_is_in_nobodys_way(machine: Machine, server: Answering) -> None:
    machine.put(WORDS, struct.pack("<Q", 99 << 8 | CLAIMED))
    machine.put(WORDS + 8, struct.pack("<Q", 99 << 8 | ANSWERED))
    assert machine.link().ask(ECHO, b"x") == (0, b"x")


def test_a_server_that_is_not_there(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    link = machine.link()
    assert link.gone()
    with pytest.raises(NoServer, match="no server is behind"):
        link.attach("program", Place())
    machine.put(12, b"\1")  # one was there, and was killed
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(dax, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert not link.gone()
    with pytest.raises(NoServer, match="does not answer"):
        link.attach("program", Place())
    assert 104.9 < now[0] < 106
    with pytest.raises(NoServer, match="does not answer"):
        machine.link().ask(ECHO, b"", timeout=1.0)
    assert now[0] < 107.5


def test_a_region_that_is_made_anew_meanwhile(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.put(12, b"\1")
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: machine.put(WORDS, bytes(8)))
    monkeypatch.setattr(dax, "time", clock)
    with pytest.raises(NoServer, match="has forgotten a request"):
        machine.link().ask(ECHO, b"")


def test_a_request_that_cannot_be(machine: Machine, server: Answering) -> None:
    assert machine.link().ask(ECHO, bytes(4032)) == (0, bytes(4032))
    with pytest.raises(ValueError, match="4033 bytes; 4032 are the most"):
        machine.link().ask(ECHO, bytes(4033))


def test_ringing(machine: Machine, server: Answering) -> None:
    link = machine.link()
    for offset in (0, 4096, 8):
        link.ring(offset)
    wait_until(lambda: sorted(server.rings) == [0, 8, 4096])
    link.rest(0, 0.0)


def test_a_ring_finds_no_bell(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is far behind: who rings goes on after a while, and one bell tells of a word once."""
    link = machine.link()
    naps: list[float] = []
    monkeypatch.setattr(dax, "time", SimpleNamespace(monotonic=time.monotonic, sleep=naps.append))
    for offset in (8, 8, 8):
        link.ring(offset)
    assert machine.get(BELLS, 56 * 8).count(struct.pack("<Q", 2)) == 1
    machine.put(BELLS, struct.pack("<Q", 5) * 56)
    link.ring(8)
    assert 0 < len(naps) < 100
    link.close()
    link.ring(8)
    assert link.gone()


def spoiled(offset: int, data: bytes) -> Callable[[Machine], None]:
    return lambda machine: machine.put(offset, data)


def sized(size: int) -> Callable[[Machine], None]:
    def write(machine: Machine) -> None:
        (machine.sysfs / "dax0.0" / "size").write_text(f"{size}\n")

    return write


def driven(machine: Machine) -> None:
    (machine.sysfs.parent / "kmem").mkdir()
    (machine.sysfs / "dax0.0" / "driver").unlink()
    (machine.sysfs / "dax0.0" / "driver").symlink_to(machine.sysfs.parent / "kmem")


def interleaved(machine: Machine) -> None:
    (machine.sysfs.parent / "region0" / "interleave_ways").write_text("2\n")


def gone(machine: Machine) -> None:
    machine.file.unlink()


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (spoiled(0, b"SOMETHING"), Foreign, "no pool, or none that this client knows"),
        (spoiled(8, b"\2"), Foreign, "version 2"),
        (sized(12 * MIB), NoServer, r"has 12582912 bytes, and the pool takes 14680064: make the region anew"),
        (
            driven,
            NoServer,
            r"Linux has dax0.0 as its own memory.*daxctl reconfigure-device -m devdax -f dax0.0",
        ),
        (interleaved, NoServer, "interleaved over 2 devices"),
        (gone, NoServer, "cannot be mapped.*No such file"),
    ],
)
def test_what_cannot_be_used(
    machine: Machine, spoil: Callable[[Machine], None], error: type[Exception], says: str
) -> None:
    spoil(machine)
    with pytest.raises(error, match=says):
        machine.link(str(machine.file))


def test_without_the_rights(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        with pytest.raises(NoServer, match="cannot be mapped, 0x200000 bytes at 0x0: Permission denied"):
            machine.link(str(machine.file))
        assert regions(machine.sysfs, machine.devices) == []


def test_addresses(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link = address.link(f"dax:{machine.file}")
    assert isinstance(link, DaxLink)
    with pytest.raises(Refused, match="or in a guest device:SLOT or dax:PATH"):
        address.link("dox:/dev/dax0.0")
    monkeypatch.delenv("SOFTCXL_POOL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(address, "slots", list)
    monkeypatch.setattr(address, "regions", lambda: ["dax5.0"])
    assert address.found() == "dax:/dev/dax5.0"
    monkeypatch.setattr(address, "regions", lambda: ["dax5.0", "dax6.0"])
    assert address.found() == "dax:"
