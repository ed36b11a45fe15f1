"""Performance counters over routed accesses: lines are counted in the device that each falls to."""

from __future__ import annotations

from typing import Any

import pytest

from softcxl.fabric.build import Fabric
from softcxl.fabric.topology import Topology, TopologyError, Type3, loads, validate
from softcxl.switch.errors import PoisonError
from softcxl.testing.driver import Driver
from tests.device.test_cpmu import M2S_REQ, M2S_RWD, Pmu

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, cpmu: true}
  mem1: {volatile: 256MiB}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 512MiB, targets: [hb0]}]
"""


def test_what_a_host_reads_and_writes_is_counted() -> None:
    with Fabric.loads(TOPOLOGY) as fabric:
        system = fabric.hosts["alpha"].boot()
        region = system.create_region(["mem0", "mem1"], granularity=256)
        machine, base = fabric.hosts["alpha"].machine, region.hpa
        device = fabric.devices["mem0"]
        pmu = Pmu(device)
        assert 4 not in Driver(fabric.devices["mem1"]).blocks
        pmu.start(0, M2S_REQ, 1 << 1)
        pmu.start(1, M2S_RWD, 1 << 1 | 1 << 2)
        machine.load(base, 1024)
        machine.store(base + 256, bytes(300))
        assert (pmu.value(0), pmu.value(1)) == (8, 1)
        device.inject_poison(0)
        with pytest.raises(PoisonError):
            machine.load(base, 64)
        assert pmu.value(0) == 9
        assert pmu.value(1) == 1


@pytest.mark.parametrize(("given", "said"), [("yes", "'yes' is not true or false"), ("[true]", "not a list")])
def test_it_is_there_or_not(given: str, said: str) -> None:
    with pytest.raises(TopologyError, match=rf"<topology>:1:42: devices\.mem0\.cpmu: .*{said}"):
        loads(f"devices: {{mem0: {{volatile: 256MiB, cpmu: {given}}}}}")


def test_what_python_gives_is_checked_too() -> None:
    device: Any = 1
    with pytest.raises(TopologyError, match="'1' is not true or false"):
        validate(Topology(devices={"mem0": Type3(volatile=256 << 20, cpmu=device)}))
