"""Hosts in this process that share a switch and a device: each has what is bound to it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.fabric.visitor import Visitor
from softcxl.host.system import System
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.binding import BindingError

GIB, MIB = 1 << 30, 1 << 20
TOPOLOGY = """
devices:
  pool: {{type: mld, volatile: 2GiB, persistent: 1GiB, on_unbind: {policy},
    logical_devices: [1GiB, {{volatile: 256MiB, persistent: 256MiB}}, 0]}}
  spare: {{volatile: 1GiB, serial: 7}}
switches:
  rack:
    ports: [pool, spare, null]
    virtual:
      left: {{ports: [pool.0, null]}}
      right: {{ports: [spare, null]}}
hosts:
  a: {{bridges: {{h: {{ports: [left]}}}}, windows: [{{size: 4GiB, targets: [h]}}]}}
  b: {{bridges: {{h: {{ports: [right]}}}}, windows: [{{size: 4GiB, targets: [h]}}]}}
"""
LEFT, RIGHT = 0, 1
POOL = 0


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY.format(policy="clear")) as live:
        yield live


def both(fabric: Fabric) -> tuple[System, System]:
    return fabric.hosts["a"].boot(), fabric.hosts["b"].boot()


def test_each_host_has_what_is_bound_to_it(fabric: Fabric) -> None:
    a, b = both(fabric)
    assert (a.problems, b.problems) == ([], [])
    assert [one["ram_size"] for one in a.listing()] == [GIB]
    assert [one["serial"] for one in b.listing()] == [7]
    assert set(fabric.hosts["a"].bound) == {"pool.0"}
    assert set(fabric.hosts["b"].bound) == {"spare"}


def test_what_is_bound_arrives_and_two_hosts_use_one_device_at_once(fabric: Fabric) -> None:
    a, b = both(fabric)
    fabric.switches["rack"].bind(RIGHT, 1, POOL, 1)
    (event,) = b.service_slots()
    assert (event.event, event.problem) == ("added", "")
    assert a.service_slots() == []
    assert {one["serial"] for one in b.listing()} == {7, fabric.devices["pool.1"].serial}
    mine, yours = a.create_region(), b.create_region(["mem1"], type="ram")
    mine.write(0, b"mine")
    yours.write(0, b"yours")
    assert (mine.load(0, 4), yours.load(0, 5)) == (b"mine", b"yours")
    assert fabric.devices["pool.0"].space.read(0, 4) == b"mine"
    assert fabric.devices["pool.1"].space.read(0, 5) == b"yours"


def test_a_reset_of_one_host_is_none_of_the_other(fabric: Fabric) -> None:
    b = fabric.hosts["b"].boot()
    fabric.switches["rack"].bind(RIGHT, 1, POOL, 1)
    b.service_slots()
    yours = b.create_region(["mem1"], type="ram")
    yours.write(0, b"yours")
    fabric.hosts["a"].machine.reset()
    assert fabric.devices["pool.0"].decoders.mappings == []
    assert len(fabric.devices["pool.1"].decoders.mappings) == 1
    assert yours.load(0, 5) == b"yours"


@pytest.mark.parametrize(("policy", "kept"), [("clear", b"\0" * 5), ("keep", b"hello"), ("erase", b"\0" * 5)])
def test_contents_go_to_the_next_host_as_the_policy_says(policy: str, kept: bytes) -> None:
    with Fabric.loads(TOPOLOGY.format(policy=policy)) as fabric:
        a, b = both(fabric)
        region = a.create_region()
        region.write(0, b"hello")
        operation = fabric.switches["rack"].unbind(LEFT, 0)
        assert fabric.virtual["left"].vppbs[0].status is BindingStatus.IN_PROGRESS
        (event,) = a.service_slots()
        assert (event.event, [one.name for one in event.regions]) == ("removed", [region.name])
        assert operation.code is ReturnCode.SUCCESS
        fabric.switches["rack"].bind(RIGHT, 1, POOL, 0)
        b.service_slots()
        got = b.create_region(["mem1"])
        assert got.load(0, 5) == kept


@pytest.mark.parametrize("policy", ["clear", "keep", "erase"])
def test_persistent_contents_are_lost_by_erasing_alone(policy: str) -> None:
    with Fabric.loads(TOPOLOGY.format(policy=policy)) as fabric:
        fabric.switches["rack"].bind(RIGHT, 1, POOL, 1)
        device = fabric.devices["pool.1"]
        device.space.write(256 * MIB, b"kept?")
        fabric.switches["rack"].unbind(RIGHT, 1)
        assert device.space.read(256 * MIB, 5) == (b"\0" * 5 if policy == "erase" else b"kept?")


def test_a_surprise_removal_asks_nobody(fabric: Fabric) -> None:
    a = fabric.hosts["a"].boot()
    region = a.create_region()
    operation = fabric.switches["rack"].unbind(LEFT, 0, UnbindOption.SURPRISE_HOT_REMOVE)
    assert operation.code is ReturnCode.SUCCESS
    (event,) = a.service_slots()
    assert (event.event, [one.name for one in event.regions]) == ("lost", [region.name])
    assert a.listing() == []


def test_nobody_has_to_be_asked_of_a_host_that_never_ran(fabric: Fabric) -> None:
    assert fabric.switches["rack"].unbind(LEFT, 0).code is ReturnCode.SUCCESS
    assert fabric.hosts["a"].boot().listing() == []


def test_the_same_logical_device_for_two_hosts_is_refused(fabric: Fabric) -> None:
    with pytest.raises(BindingError):
        fabric.switches["rack"].bind(RIGHT, 1, POOL, 0)
    assert fabric.virtual["right"].vppbs[1].status is BindingStatus.UNBOUND


def test_allocations_make_and_unmake_devices_of_the_fabric(fabric: Fabric) -> None:
    assert sorted(fabric.devices) == ["pool.0", "pool.1", "spare"]
    fabric.mlds["pool"].allocate({2: 512 * MIB, 1: 0})
    assert sorted(fabric.devices) == ["pool.0", "pool.2", "spare"]
    assert fabric.devices["pool.2"].capacity.volatile == 512 * MIB
    b = fabric.hosts["b"].boot()
    fabric.switches["rack"].bind(RIGHT, 1, POOL, 2)
    b.service_slots()
    assert 512 * MIB in [one["ram_size"] for one in b.listing()]


def test_a_host_is_driven_in_process_or_through_doors(fabric: Fabric, tmp_path: Path) -> None:
    a = fabric.hosts["a"].boot()
    assert a.problems == []
    with pytest.raises(BuildError, match=r"left: is in use by a already"), Visitor(fabric, "a", tmp_path):
        pass
    with Visitor(fabric, "b", tmp_path), pytest.raises(BuildError, match="is in use by a guest of b"):
        fabric.hosts["b"].boot()
    assert [one["serial"] for one in fabric.hosts["b"].boot().listing()] == [7]


def test_a_plain_switch_in_a_port_is_bound_with_all_that_is_below() -> None:
    with Fabric.loads(
        """
devices: {m: {volatile: 256MiB}, n: {volatile: 256MiB}}
switches:
  rack: {ports: [box], virtual: {left: {ports: [null]}}}
  box: {ports: [m, n]}
hosts: {a: {bridges: {h: {ports: [left]}}, windows: [{size: 1GiB, targets: [h]}]}}
"""
    ) as fabric:
        fabric.switches["rack"].bind(0, 0, 0)
        a = fabric.hosts["a"].boot()
        assert [one["ram_size"] for one in a.listing()] == [256 * MIB, 256 * MIB]
        region = a.create_region()
        region.write(0, b"both" * 1000)
        assert region.load(0, 4000) == b"both" * 1000


def test_a_device_with_two_heads_gives_each_switch_logical_devices_of_its_own() -> None:
    with Fabric.loads(
        """
devices: {pool: {type: mld, heads: 2, volatile: 1GiB, logical_devices: [256MiB, 256MiB, 256MiB]}}
switches:
  one: {ports: [pool], virtual: {left: {ports: [pool.1, null]}}}
  two: {ports: [null, pool], virtual: {right: {ports: [pool.2]}}}
hosts:
  a: {bridges: {h: {ports: [left]}}}
  b: {bridges: {h: {ports: [right]}}}
"""
    ) as fabric:
        assert list(fabric.hosts["a"].bound) == ["pool.1"]
        assert list(fabric.hosts["b"].bound) == ["pool.2"]
        with pytest.raises(BindingError):
            fabric.switches["one"].bind(0, 1, 0, 2)


def test_a_logical_device_below_the_other_head_is_not_to_be_had() -> None:
    text = """
devices: {pool: {type: mld, heads: 2, volatile: 1GiB, logical_devices: [256MiB, 256MiB]}}
switches:
  one: {ports: [pool], virtual: {left: {ports: [pool.1]}}}
  two: {ports: [pool], virtual: {right: {ports: [null]}}}
"""
    with pytest.raises(BuildError, match=r"^pool\.1 is in no port of one$"), Fabric.loads(text):
        pass
