"""Devices whose memory is the pool's: in topologies, as memory of a host, and as files of a guest's window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl import Fabric
from softcxl.fabric import topology
from softcxl.fabric.errors import TopologyError
from softcxl.fabric.hosts import Call, Hosts
from softcxl.fabric.tree import tree
from softcxl.lab.boot import plan
from softcxl.testing.access import FakeServer

MIB = 1 << 20
DEVICES = (
    "{mem0: {volatile: 256MiB}, pair: {type: mld, volatile: 512MiB, logical_devices: [256MiB, 256MiB]}, "
)
WINDOW = "{size: 768MiB, targets: [hb0], shared: way}"


def text(
    *,
    way: str = "{type: pool-memory}",
    arena: str = "62MiB",
    window: str = WINDOW,
    more: str = "",
    pool: str | None = None,
) -> str:
    pool = f"{{memory: [mem0, pair.1], arena: {arena}}}" if pool is None else pool
    return (
        f"devices: {DEVICES} way: {way}, {more}}}\npool: {pool}\n"
        f"hosts: {{alpha: {{bridges: {{hb0: {{ports: [way]}}}}, windows: [{window}]}}}}"
    )


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(text()) as live:
        yield live


def problem(given: str) -> str:
    with pytest.raises(TopologyError) as caught:
        topology.loads(given)
    return str(caught.value)


def test_it_has_room_for_all_of_the_pool(fabric: Fabric) -> None:
    device = fabric.pool_memory["way"]
    # 2 MiB of its own, the arena, and 256 MiB twice, are 576 MiB
    assert (device.needed, device.capacity.volatile) == (576 * MIB, 768 * MIB)
    assert device.host == "alpha"
    assert fabric.devices["way"] is device
    assert fabric.hosts["alpha"].routes == {"way": ("hb0", 0)}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (text(pool="null"), "there is no pool whose memory it could have"),
        (text(arena="63MiB"), "a guest maps the pool's arena in whole 2MiB, and it is 63MiB"),
        (text(way="{type: pool-memory, volatile: 1}"), "volatile"),
        (
            text(window="{size: 512MiB, targets: [hb0], shared: way}"),
            "512MiB; way, with all of the pool's memory, takes 768MiB",
        ),
        (
            text(window="{size: 768MiB, targets: [hb0], shared: mem0}"),
            "'mem0' is no device of type `mld` with `dynamic`, and none of type `pool-memory`",
        ),
        (
            text(pool="{memory: [mem0, way]}"),
            "way is a device by which guests reach the pool, and has no memory but the pool's",
        ),
        (
            text(more="other: {type: pool-memory, serial: 0x10}, last: {serial: 0x10, volatile: 256MiB}"),
            "0x10",
        ),
        (
            text(more="far: {type: pool-memory}")
            + "\nswitches: {rack: {ports: [far], virtual: {vcs0: {ports: [null]}}}}",
            "far is for a port of a host, which has a window for it; plug it in there",
        ),
        (
            text().replace("}]}}", "}], regions: [{window: 0, devices: [way]}]}}"),
            "way has the pool's memory; the guest makes the region, so that Linux does not take it",
        ),
        (
            text() + "\nswitches: {rack: {ports: [null], virtual: {vcs0: {ports: [way]}}}}",
            "way is for a port of a host, which has a window for it, and nothing to bind",
        ),
    ],
)
def test_what_cannot_be(given: str, says: str) -> None:
    assert says in problem(given)


def test_two_windows_of_hosts_are_of_the_same_files(fabric: Fabric) -> None:
    given = text(more="too: {type: pool-memory}").replace(
        "hosts: {",
        f"hosts: {{beta: {{bridges: {{hb0: {{ports: [too]}}}}, windows: [{WINDOW.replace('way', 'too')}]}}, ",
    )
    with Fabric.loads(given) as live, FakeServer([62 * MIB]) as server:
        for device in live.pool_memory.values():
            device.show(server.memories())
        one, other = live.pool_memory["way"].space, live.pool_memory["too"].space
        one.write(2 * MIB, b"seen by the other")
        assert other.read(2 * MIB, 17) == b"seen by the other"
        one.write(MIB, b"a front of its own")
        assert other.read(MIB, 18) == bytes(18)


def test_a_host_in_this_process_reaches_it_as_any_memory(fabric: Fabric) -> None:
    with FakeServer([62 * MIB]) as server:
        device = fabric.pool_memory["way"]
        device.show(server.memories())
        system = fabric.hosts["alpha"].boot()
        region = system.create_region()
        assert device.decoded
        region.write(2 * MIB + 7, b"by a host")
        assert region.read(0, 8) == b"SCXLPMEM"
        assert os.pread(server.memories()[0].fd, 9, 7) == b"by a host"


def test_a_guest_maps_each_piece(fabric: Fabric, tmp_path: Path) -> None:
    device = fabric.pool_memory["way"]
    with FakeServer([62 * MIB], start=4096) as server:
        device.show(server.memories())
        (window,) = plan(fabric, "alpha", {"way": tmp_path / "way.sock"}).windows
        assert window.size == 768 * MIB
        assert [(one.offset, one.size, one.start) for one in window.pieces] == [
            (0, 2 * MIB, 0),
            (2 * MIB, 62 * MIB, 4096),
        ]
        files = [os.fstat(one.backing).st_ino for one in window.pieces if isinstance(one.backing, int)]
        assert files == [os.fstat(device.front_fd).st_ino, os.fstat(server.memories()[0].fd).st_ino]


def test_whoever_opens_doors_is_told_of_the_pieces(fabric: Fabric, tmp_path: Path) -> None:
    hosts = Hosts(fabric, "a topology", tmp_path)
    try:
        (window,) = Call(hosts, "alpha", print, print).doors()["windows"]
    finally:
        hosts.close()
    (piece,) = window["pieces"]
    assert window["file"] is None
    assert (piece["offset"], piece["size"], piece["start"]) == (0, 2 * MIB, 0)
    assert Path(piece["file"]).stat().st_ino == os.fstat(fabric.pool_memory["way"].front_fd).st_ino


def test_people_are_told_what_it_is() -> None:
    shown = str(tree(topology.loads(text(way="{type: pool-memory, serial: 0x77}"))))
    assert "way: the pool's memory, serial 0x77" in shown
    assert "window 0: 768MiB over hb0, volatile and persistent, the pool's memory, as that of way" in shown
