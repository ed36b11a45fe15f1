"""What a fabric manager reaches of a fabric, and that locks are held when it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.fabric import topology
from softcxl.fabric.build import Fabric
from softcxl.fabric.endpoints import endpoints
from softcxl.spec.command.base import ReturnCode

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 1}
  mem1: {volatile: 256MiB, serial: 2}
  pool: {type: mld, volatile: 1GiB, logical_devices: [512MiB, 512MiB]}
switches:
  rack:
    ports: [pool, mem1]
    virtual: {left: {ports: [pool.0, null]}}
hosts:
  alpha: {bridges: {hb0: {ports: [mem0]}}}
"""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(topology.loads(TOPOLOGY, folder=Path()), folder=Path(), clock=ManualClock()) as fabric:
        yield fabric


def test_switches_come_first_and_logical_devices_not_at_all(fabric: Fabric) -> None:
    found = endpoints(fabric)
    assert {eid: one.name for eid, one in found.items()} == {8: "rack", 9: "pool", 10: "mem0", 11: "mem1"}
    for one in found.values():
        interface = one.open(lambda opcode, payload: None)
        assert interface.execute(0x0001, b"").code == ReturnCode.SUCCESS
        interface.close()


def test_an_answer_that_comes_later_has_the_lock_of_its_device(fabric: Fabric) -> None:
    device = fabric.devices["mem0"]
    assert isinstance(device, Type3)
    device.inject.delay(0x4000, 1.0, times=1)
    held: list[bool] = []
    device.inject.watch(lambda opcode, payload, reply: held.append(device.lock._is_owned()))  # type: ignore[attr-defined]
    interface = endpoints(fabric)[10].open(lambda opcode, payload: None)
    later = interface.execute(0x4000, b"")
    assert (later.code, held) == (ReturnCode.BUSY, [])
    answer = later.run()  # type: ignore[attr-defined]
    assert (answer.code, held) == (ReturnCode.SUCCESS, [True])
    assert not device.lock._is_owned()  # type: ignore[attr-defined]
    interface.close()
