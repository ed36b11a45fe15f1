"""Slots by which guests reach the pool: in topologies, and as doors of a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl import Fabric
from softcxl.fabric import topology
from softcxl.fabric.errors import BuildError, TopologyError
from softcxl.fabric.tree import tree
from softcxl.fabric.visitor import Visitor
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.testing.access import FakeServer
from softcxl.testing.vfio_client import Client

MIB = 1 << 20
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  near: {type: pool-access}
  far: {type: pool-access}
pool: {memory: [mem0]}
switches:
  rack: {ports: [far], virtual: {vcs0: {ports: [far]}}}
hosts:
  alpha: {bridges: {hb0: {ports: [near, vcs0]}}}
"""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY) as live, FakeServer([3 * MIB, MIB, MIB, MIB]) as server:
        for access in live.access.values():
            access.serve(server)
        yield live


def problem(text: str) -> str:
    with pytest.raises(TopologyError) as caught:
        topology.loads(text)
    return str(caught.value)


def test_without_a_pool_there_is_nothing_to_reach() -> None:
    said = problem("devices: {door: {type: pool-access}}")
    assert "devices.door" in said
    assert "there is no pool to reach; give one (`pool`)" in said


def test_a_slot_has_room_for_20_memory_devices() -> None:
    names = [f"mem{number}" for number in range(21)]
    devices = "\n".join(f"  {name}: {{volatile: 256MiB}}" for name in names)

    def text(count: int) -> str:
        return f"devices:\n{devices}\n  door: {{type: pool-access}}\npool: {{memory: [{', '.join(names[:count])}]}}"

    topology.loads(text(20))
    assert "the pool's memory is 21 devices; a slot has room for 20 beside the arena" in problem(text(21))


def test_it_is_no_memory_of_the_pool() -> None:
    said = problem("devices: {door: {type: pool-access}}\npool: {memory: [door]}")
    assert "door is a slot by which guests reach the pool, and has no memory" in said


def test_it_has_no_keys() -> None:
    assert "size" in problem("devices: {door: {type: pool-access, size: 1}}")


def test_each_function_has_a_door(fabric: Fabric, tmp_path: Path) -> None:
    assert fabric.hosts["alpha"].functions == ["near", "near.1", "near.2"]
    with fabric.doors("alpha", tmp_path) as doors:
        assert list(doors) == ["near", "near.1", "near.2"]
        assert fabric.access["near"].host == "alpha"
        with Client(doors["near.1"].path) as client:
            client.negotiate()
            assert client.region_info(0).info.size == 4 * MIB
        with pytest.raises(BuildError, match=r"near\.1: is in use"), fabric.door("alpha", "near.1", tmp_path):
            pass
    with pytest.raises(BuildError, match=r"near\.3: there is none"), fabric.door("alpha", "near.3", tmp_path):
        pass


def test_a_guest_gets_all_functions_of_what_is_bound(fabric: Fabric, tmp_path: Path) -> None:
    with Visitor(fabric, "alpha", tmp_path) as visitor:
        visitor.begin()
        visitor.arrive()
        assert list(visitor.doors) == ["far", "far.1", "far.2"]
        rack = fabric.switches["rack"]
        unbinding = rack.unbind(0, 0, UnbindOption.SURPRISE_HOT_REMOVE)
        (pull,) = visitor.take(lambda: False)
        assert (pull.act, pull.device, pull.functions) == ("pull", "far", ())
        assert fabric.access["far"].control.silent
        visitor.told(pull.number)
        assert unbinding.wait(60) is ReturnCode.SUCCESS
        assert visitor.doors == {}
        rack.bind(0, 0, 0)
        (add,) = visitor.take(lambda: False)
        assert (add.act, add.device) == ("add", "far")
        assert [Path(one).name for one in (add.socket, *add.functions)] == [
            "far.sock",
            "far.1.sock",
            "far.2.sock",
        ]
        assert not fabric.access["far"].control.silent


def test_people_are_told_what_it_is() -> None:
    assert repr(tree(topology.loads(TOPOLOGY))).count("access to the pool") >= 2
