"""Machines that map a pool's memory, and servers that end meanwhile."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from softcxl.cli.serve_pool import fenced, serve_pool
from softcxl.device.access import PoolAccess
from softcxl.device.access.former import FormerSlot
from softcxl.device.access.machine import Files, Remembered, files
from softcxl.device.access.machine import Machine as AccessMachine
from softcxl.device.persist import StateDamaged, StatePage
from softcxl.fabric.build import Fabric
from softcxl.testing.access import FakeServer
from softcxl.testing.driver import Machine
from tests.pool.served import wait_until

if TYPE_CHECKING:
    from softcxl.fm.pool.leases import Leases
    from softcxl.fm.pool.server import PoolServer

MIB = 1 << 20
MAPS = "import mmap, sys; held = mmap.mmap(int(sys.argv[1]), 4096); print(flush=True); sys.stdin.read()"
IDLE = "import sys; print(flush=True); sys.stdin.read()"


class Machinery(Machine):
    """As a door is that knows whose connection it has."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self.process = process


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer([3 * MIB, MIB]) as one:
        yield one


@contextmanager
def machine(server: FakeServer, program: str = MAPS) -> Iterator[subprocess.Popen[bytes]]:
    fd = server.memories()[1].fd
    command = [sys.executable, "-c", program, str(fd)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd]) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"\n"
        yield one
        one.kill()


def served(server: FakeServer, path: Path) -> PoolAccess:
    door = PoolAccess("door", path)
    door.host = "alpha"
    door.serve(server)
    return door


def test_a_server_after_a_kill_knows_of_a_machine_that_maps_memory_yet(
    server: FakeServer, tmp_path: Path
) -> None:
    path = tmp_path / "door.machines"
    with machine(server) as one:
        served(server, path).control.attach(Machinery(one.pid))  # and is killed
        door = served(server, path)
        assert not door.reached_by("alpha")
        door.recall()
        assert door.reached_by("alpha")
        assert not door.reached_by("beta")
        served(server, path).recall()  # and the one after that
        third = served(server, path)
        third.recall()
        assert third.reached_by("alpha")
        one.kill()
        wait_until(lambda: not door.reached_by("alpha") and not third.reached_by("alpha"))
    wait_until(lambda: json.loads(path.read_text())["sections"]["machines"]["all"] == [])
    door.close()


@pytest.mark.parametrize("program", [MAPS, IDLE])
def test_one_that_has_let_go_is_no_more_than_any_other_process(
    server: FakeServer, tmp_path: Path, program: str
) -> None:
    path = tmp_path / "door.machines"
    with machine(server, program) as one:
        served(server, path).control.attach(Machinery(one.pid))
        page = json.loads(path.read_text())
        if program == MAPS:  # its number is another's by now
            page["sections"]["machines"]["all"][0][2] += 1
            path.write_text(json.dumps(page))
        door = served(server, path)
        door.recall()
        assert not door.reached_by("alpha")
        assert json.loads(path.read_text())["sections"]["machines"]["all"] == []
        door.close()


def test_a_slot_that_is_called_otherwise_now_has_had_its_machines_nevertheless(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A slot of another name in the same topology, and its host's, too: the earlier one's machine is waited for."""
    path, others = tmp_path / "pool.yaml", Heard()

    def write(slot: str, host: str) -> None:
        path.write_text(
            f"devices: {{mem0: {{volatile: 256MiB}}, {slot}: {{type: pool-access}}}}\n"
            f"hosts: {{{host}: {{bridges: {{hb0: {{ports: [{slot}]}}}}}}}}\n"
            "pool: {memory: [mem0], arena: 32MiB, fence_guests: true}\nstate: state\n"
        )

    write("door", "alpha")
    with Fabric.load(path, serves=True) as before:
        assert before.pool_files is not None
        page = before.pool_files.machines_of("door")
        fd = os.dup(before.pool_files.arena.fd)
    command = [sys.executable, "-c", MAPS, str(fd)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd]) as one:
        os.close(fd)
        assert one.stdout is not None
        assert one.stdout.readline() == b"\n"
        found = AccessMachine.of(one.pid)
        assert found is not None
        Remembered(page).keep([("alpha", found)])  # and the server is killed
        found.close()
        write("gate", "beta")
        for _ in range(2):  # the one after that, too
            with Fabric.load(path, serves=True) as fabric, serve_pool(fabric, tmp_path / "socket"):

                def gone(host: str, fabric: Fabric = fabric) -> bool:
                    return fenced(fabric, cast("PoolServer", others), cast("Leases", others), host)

                assert (
                    "a server before this one had a slot door: machines of alpha that came by it"
                    in caplog.text
                )
                assert not gone("alpha")
                assert gone("beta")
                assert page.exists()
        with Fabric.load(path, serves=True) as fabric, serve_pool(fabric, tmp_path / "socket"):
            one.kill()
            wait_until(lambda: gone("alpha", fabric))
            assert not page.exists()


def test_a_former_slot_whose_machines_have_all_gone_is_not_remembered(
    server: FakeServer, tmp_path: Path
) -> None:
    wanted = files([one.fd for one in server.memories()])
    path = tmp_path / "door.machines"
    path.write_text('{"format": 1, "sections": {"machines": {"all": [["alpha", 1, 1]]}}}')
    former = FormerSlot("door", path)
    assert not former.reached_by("alpha")
    assert path.exists()  # nobody has looked yet
    assert former.recall(wanted) == []
    assert not path.exists()
    former.close()
    path.write_text("{")
    with pytest.raises(StateDamaged, match=r"door\.machines"):
        FormerSlot("door", path)


def test_two_who_ask_a_former_slot_at_once_are_told_the_same(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each program that is silent has a thread of its own that fences its host."""
    path, maps, told = tmp_path / "door.machines", AccessMachine.maps, []
    with machine(server) as one:
        served(server, path).control.attach(Machinery(one.pid))  # and is killed
        former = FormerSlot("door", path)
        assert former.recall(files([one.fd for one in server.memories()])) == ["alpha"]
        other = threading.Thread(target=lambda: told.append(former.reached_by("alpha")))

        def slowly(found: AccessMachine, wanted: Files) -> bool:
            if other.ident is None:
                other.start()
                other.join(0.2)  # who looks is in the middle of it when the other asks
            return maps(found, wanted)

        monkeypatch.setattr(AccessMachine, "maps", slowly)
        told.append(former.reached_by("alpha"))
        other.join()
        assert told == [True, True]
        former.close()


def test_what_cannot_be_written_down_keeps_no_guest_out(
    server: FakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    with machine(server) as one:
        door = PoolAccess("door")
        door.control._remembered._page.path = folder / "door.machines"
        door.serve(server)
        door.control.attach(Machinery(one.pid))
        assert "will not know which machines map memory" in caplog.text
        door.close()


def test_what_could_not_be_written_down_is_written_as_soon_as_there_is_room(
    server: FakeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, put, full = tmp_path / "door.machines", StatePage.put, [True, True, True]

    def puts(page: StatePage, section: str, **content: Any) -> None:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        put(page, section, **content)

    monkeypatch.setattr(StatePage, "put", puts)
    with machine(server) as one:
        door = served(server, path)
        door.control.attach(Machinery(one.pid))
        assert not path.exists()
        wait_until(path.exists)
        wait_until(lambda: "is written down again" in caplog.text)
        assert json.loads(path.read_text())["sections"]["machines"]["all"][0][:2] == ["alpha", one.pid]
        assert caplog.text.count("will not know which machines map memory: [Errno 28]") == 1
        door.close()


def test_nobody_tries_to_write_for_a_device_that_is_closed(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "door.machines").mkdir()  # which no page replaces
    with machine(server) as one:
        door = PoolAccess("door")
        door.control._remembered._page.path = tmp_path / "door.machines"
        door.serve(server)
        door.control.attach(Machinery(one.pid))
        again = door.control._remembered._again
        assert again is not None
        door.close()
        assert not again.is_alive()
        door.control.detach()
        assert door.control._remembered._again is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"format": 1, "sections": {"machines": {"all": [["alpha", "x", 1]]}}}',
        '{"format": 1, "sections": {"machines": {}}}',
    ],
)
def test_a_page_that_is_damaged_is_said_to_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "door.machines").write_text(text)
    with pytest.raises(StateDamaged, match=r"door\.machines"):
        PoolAccess("door", tmp_path / "door.machines")


def test_a_number_that_no_process_has_is_nobodys(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "door.machines"
    page = {"format": 1, "sections": {"machines": {"all": [["alpha", 1 << 80, 1], ["alpha", -1, 1]]}}}
    path.write_text(json.dumps(page))
    door = served(server, path)
    door.recall()
    assert not door.reached_by("alpha")
    door.close()


class Heard:
    """A pool's server that hears of programs on every host, and the fabric manager's leases."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clients = self
        self.fenced: list[str] = []

    def heard(self) -> set[str]:
        return {"alpha"}

    def fence(self, host: str) -> bool:
        self.fenced.append(host)
        return True


def test_a_host_that_is_heard_of_in_another_machine_is_not_fenced_in_the_first_one(
    server: FakeServer,
) -> None:
    others = Heard()
    with machine(server) as first, machine(server) as second:
        door = PoolAccess("door")
        door.host = "alpha"
        door.serve(server)
        fabric = cast("Fabric", SimpleNamespace(access={"door": door}, former={}))

        def gone() -> bool:
            return fenced(fabric, cast("PoolServer", others), cast("Leases", others), "alpha")

        door.control.attach(Machinery(first.pid))
        assert gone()  # others in that machine live
        door.control.detach()
        assert not gone()
        door.control.attach(Machinery(second.pid))
        assert not gone()
        first.kill()
        wait_until(gone)
        assert others.fenced == []  # those in the second one keep what they have
        second.kill()
        door.control.detach()
        door.close()
