"""Doors of a fabric: who may have one, and what becomes of a device that a host was lent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl import Fabric
from softcxl.fabric.errors import BuildError

MIB = 1 << 20
BASE = 0x1_0000_0000  # where a host with 1 GiB of memory has its first window

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  spare: {volatile: 256MiB}
hosts:
  alpha: {bridges: {hb0: {ports: [mem0, null]}}, windows: [{size: 1GiB, targets: [hb0]}]}
  beta: {bridges: {hb0: {ports: [null]}}, windows: [{size: 256MiB, targets: [hb0]}]}
"""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY) as live:
        yield live


def commit(fabric: Fabric, name: str) -> None:
    decoders = fabric.devices[name].decoders
    decoders.program(0, hpa=BASE, size=256 * MIB, ways=1, granularity=256)


def test_a_host_has_doors_for_the_devices_at_its_ports(fabric: Fabric, tmp_path: Path) -> None:
    with fabric.doors("alpha", tmp_path) as doors:
        assert list(doors) == ["mem0"]
        assert fabric.open_doors == doors
        assert doors["mem0"].path.is_socket()
    assert fabric.open_doors == {}
    assert list(tmp_path.glob("*.sock")) == []


def test_a_device_that_is_nowhere_is_the_hosts_while_its_door_is_open(fabric: Fabric, tmp_path: Path) -> None:
    spare = fabric.devices["spare"]
    with fabric.door("beta", "spare", tmp_path):
        commit(fabric, "spare")
        window = fabric.hosts["beta"].memory.windows[0]
        window.medium.write(64, b"by way of beta")
        assert spare.space.read(64, 14) == b"by way of beta"
        assert fabric.hosts["beta"].memory.members(BASE) == [spare]
    assert fabric.hosts["beta"].memory.members(BASE) == []
    assert not spare.decoders.committed


def test_a_device_can_be_lent_to_one_host_after_another(fabric: Fabric, tmp_path: Path) -> None:
    for host in ("alpha", "beta", "alpha"):
        with fabric.door(host, "spare", tmp_path):
            commit(fabric, "spare")
            assert fabric.hosts[host].memory.members(BASE) == [fabric.devices["spare"]]


def test_a_device_in_use_elsewhere_comes_freshly_powered_on(fabric: Fabric, tmp_path: Path) -> None:
    commit(fabric, "mem0")
    with fabric.door("beta", "mem0", tmp_path):
        assert fabric.hosts["alpha"].memory.members(BASE) == []
        commit(fabric, "mem0")
        assert fabric.hosts["beta"].memory.members(BASE) == [fabric.devices["mem0"]]
    commit(fabric, "mem0")
    assert fabric.hosts["alpha"].memory.members(BASE) == [fabric.devices["mem0"]]


def test_a_device_keeps_its_decoders_when_a_door_of_its_own_host_closes(
    fabric: Fabric, tmp_path: Path
) -> None:
    with fabric.door("alpha", "mem0", tmp_path):
        commit(fabric, "mem0")
    assert fabric.hosts["alpha"].memory.members(BASE) == [fabric.devices["mem0"]]


def test_a_device_has_one_door(fabric: Fabric, tmp_path: Path) -> None:
    with fabric.doors("alpha", tmp_path), pytest.raises(BuildError, match=r"devices\.mem0: is in use"):
        fabric.door("beta", "mem0", tmp_path).__enter__()


def test_no_door_for_a_device_that_there_is_not(fabric: Fabric, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"devices\.mem7: there is none; there are mem0, spare"):
        fabric.door("alpha", "mem7", tmp_path).__enter__()


def test_a_path_that_is_no_socket_is_a_sentence(fabric: Fabric, tmp_path: Path) -> None:
    (tmp_path / "spare.sock").write_text("mine")
    with pytest.raises(BuildError, match=r"devices\.spare: .*no socket"):
        fabric.door("alpha", "spare", tmp_path).__enter__()
    assert fabric.open_doors == {}
    assert (tmp_path / "spare.sock").read_text() == "mine"
