"""A door opens, serves one client after another, and closes, whatever happens."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from softcxl.testing.vfio_client import Client, Gone
from softcxl.transport import Bus, Port
from softcxl.transport.vfio_user import Door, DoorError, DoorInUse
from tests.transport.ports import BAR, CONFIG, SPARSE, ScratchPort


def test_a_port_is_known_by_its_shape(port: ScratchPort, client: Client) -> None:
    assert isinstance(port, Port)
    assert isinstance(port.bus, Bus)


def test_the_socket_is_for_its_owner_only_and_goes_away(port: ScratchPort, path: Path) -> None:
    with Door(port, path) as door:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert not door.connected
    assert not path.exists()


def test_a_door_opens_again(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    for _ in range(3):
        with door, Client(path) as client:
            client.negotiate()
            assert door.connected
        assert not door.connected
    assert door.traffic.connections == 3
    assert port.calls == [("attach",), ("detach",)] * 3


def test_closing_twice_or_without_opening(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    door.close()
    door.open()
    with pytest.raises(DoorError, match="open already"):
        door.open()
    door.close()
    door.close()


def test_a_path_in_use_by_a_live_server(door: Door, port: ScratchPort) -> None:
    with pytest.raises(DoorInUse, match="live server"), Door(port, door.path):
        pass
    with Client(door.path) as client:  # the first one is none the worse for it
        client.negotiate()


def test_a_server_too_busy_to_answer_is_live(port: ScratchPort, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        queued = []
        while True:
            caller = socket.socket(socket.AF_UNIX)
            queued.append(caller)
            caller.setblocking(False)
            if caller.connect_ex(str(path)):
                break
        with pytest.raises(DoorInUse), Door(port, path):
            pass
        for caller in queued:
            caller.close()


def test_a_dead_servers_socket_is_replaced(port: ScratchPort, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with Door(port, path), Client(path) as client:
        client.negotiate()


def test_other_files_are_left_alone(port: ScratchPort, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(DoorError, match="no socket"), Door(port, path):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["missing/door.sock", "x" * 120])
def test_paths_that_cannot_be(port: ScratchPort, tmp_path: Path, name: str) -> None:
    with pytest.raises(DoorError, match=name.split("/")[0]), Door(port, tmp_path / name):
        pass


def test_a_socket_that_somebody_else_put_there_is_not_removed(port: ScratchPort, path: Path) -> None:
    with Door(port, path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_clients_come_one_after_another(port: ScratchPort, door: Door) -> None:
    first, second = Client(door.path), Client(door.path)
    first.negotiate()
    first.write(BAR, 0, b"kept")
    second.send(1, bytes(4))  # waits in the queue
    first.close()
    second.receive().check()
    assert second.read(BAR, 0, 4) == b"kept"
    second.close()
    assert port.detached.wait(60)
    assert port.calls[:4] == [("attach",), ("write", BAR, 0, b"kept"), ("detach",), ("attach",)]


def test_doors_are_independent(port: ScratchPort, door: Door, tmp_path: Path) -> None:
    with Door(port, tmp_path / "other.sock") as other, Client(door.path) as one, Client(other.path) as two:
        one.negotiate()
        two.negotiate()
        one.send_bytes(b"\xff" * 16)
        assert one.is_gone()
        assert two.read(CONFIG, 0, 1) == b"\0"


def test_areas_that_a_guest_maps_are_the_regions_memory(
    client: Client, port: ScratchPort, door: Door
) -> None:
    areas = client.map_region(BAR)
    assert tuple((offset, len(view)) for offset, view in areas.items()) == SPARSE
    areas[0x4000][:4] = b"fast"
    assert client.read(BAR, 0x4000, 4) == b"fast"
    client.write(BAR, 0xC000, b"slow")
    assert areas[0xC000][:4] == b"slow"
    assert door.traffic.traps == 2
    for view in areas.values():
        view.close()
    assert client.map_region(1) == {}


def test_close_while_a_client_waits_for_nothing(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    door.open()
    with Client(path) as client:
        client.negotiate()
        door.close()
        assert client.is_gone()
        with pytest.raises(Gone):
            client.reset()
    assert port.calls == [("attach",), ("detach",)]


def test_close_in_the_middle_of_a_message(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    door.open()
    with Client(path) as client:
        client.negotiate()
        client.send_bytes(b"\0" * 7)
        door.close()
    assert port.calls == [("attach",), ("detach",)]


def test_close_while_the_client_does_not_read(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    door.open()
    with Client(path) as client:
        client.negotiate()
        for _ in range(40):  # 40 replies of 64 KiB are more than a socket holds
            client.send(9, bytes(8) + bytes(4) + (0x10000).to_bytes(4, "little"))
        door.close()
    assert port.calls[-1] == ("detach",)


def test_close_by_the_port_itself(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    door.open()
    port.on_write[0] = lambda _: door.close()
    with Client(path) as client:
        client.negotiate()
        client.write(BAR, 0, b"close", posted=True)
        assert client.is_gone()
    door.close()
    assert not path.exists()


def test_close_by_many_threads(port: ScratchPort, path: Path) -> None:
    door = Door(port, path)
    door.open()
    with Client(path) as client:
        client.negotiate()
        threads = [threading.Thread(target=door.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not path.exists()


def test_a_failing_detach_does_not_end_the_door(
    port: ScratchPort, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed = threading.Event()

    def detach() -> None:
        failed.set()
        raise RuntimeError("a bug")

    port.detach = detach  # type: ignore[method-assign]
    with Door(port, path):
        with Client(path) as client:
            client.negotiate()
        assert failed.wait(60)
        with Client(path) as client:
            client.negotiate()
    assert "a bug" in caplog.text


def test_spinning(port: ScratchPort, path: Path) -> None:
    with Door(port, path, spin_us=200) as door, Client(path) as client:
        client.negotiate()
        memory = client.dma_map(0x1000, 0x1000, shared=False)
        memory.view[:4] = b"spin"
        port.on_read[0] = lambda size: port.bus.dma_read(0x1000, size)  # type: ignore[union-attr]
        for _ in range(50):
            assert client.read(BAR, 0, 4) == b"spin"
            client.write(BAR, 8, b"posted", posted=True)
        client.reset()
        assert door.traffic.traps == 100
        client.send_bytes(b"\0" * 3)


def test_the_repr_names_the_path(port: ScratchPort, path: Path) -> None:
    assert str(path) in repr(Door(port, path))


def test_out_of_descriptors(port: ScratchPort, door: Door, client: Client) -> None:
    """A message whose descriptors do not fit into the process is refused, and the door goes on."""
    import resource

    event = os.eventfd(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
    try:
        while True:
            try:
                fillers.append(os.dup(event))
            except OSError:
                break
        with pytest.raises(OSError):
            client.set_irqs(1, 0, 1, events=[event])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    client.set_irqs(1, 0, 1, events=[event])
    os.close(event)


def test_whoever_asks_is_told_that_a_client_has_gone(port: ScratchPort, path: Path) -> None:
    left: SimpleQueue[bool] = SimpleQueue()
    with Door(port, path, left=lambda: left.put(door.connected)) as door:
        for _ in range(2):
            with Client(path) as client:
                client.negotiate()
            assert left.get(timeout=60) is False
    assert left.empty()
