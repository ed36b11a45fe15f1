"""The fake machine and the real one, side by side: an operating system sees and does the same on both."""

from __future__ import annotations

import softcxl
from softcxl.host import firmware
from softcxl.host.system import System
from tests.host.fake import Fake, machine, switch

TOPOLOGY = """
devices:
  {d0: {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 1}, d1: {volatile: 256MiB, serial: 2},
   d2: {volatile: 256MiB, serial: 3}, d3: {volatile: 256MiB, serial: 4}}
switches: {s0: {ports: [d0, d1]}}
hosts:
  alpha:
    bridges: {hb0: {ports: [s0, null]}, hb1: {ports: [d2, d3]}}
    windows: [{size: 2GiB, targets: [hb0, hb1], qtg: 3}, {size: 1GiB, targets: [hb1]}]
"""


def _fake(fabric: softcxl.Fabric, made) -> Fake:
    (a,) = made(1, persistent=256 << 20, label_storage=128 << 10, serial=1)
    b, c, d = (made(1, serial=serial)[0] for serial in (2, 3, 4))
    fake = machine(
        [switch(a, b), None],
        [c, d],
        windows=[{"targets": (0, 1), "size": 2 << 30, "qtg": 3}, {"targets": (1,)}],
        hot_plug=True,
    )
    real = fabric.hosts["alpha"].machine
    uids = {}
    for bridge, (uid, bus) in zip(fake.bridges, real.host_bridges, strict=True):
        uids[bridge.uid] = uid
        bridge.uid, bridge.bus = uid, bus
        bridge.component = type(bridge.component)(8)
    fake.windows = [
        firmware.Window(one.base, one.size, tuple(uids[uid] for uid in one.targets), qtg=one.qtg)
        for one in fake.windows
    ]
    fake.tables = firmware.tables(
        [firmware.Bridge(one.uid, one.bus, one.registers) for one in fake.bridges], fake.windows, ecam=0
    )
    return fake


def test_they_list_alike_and_take_the_same_regions(made):
    with softcxl.Fabric.loads(TOPOLOGY) as fabric:
        real, fake = fabric.hosts["alpha"].boot(), System(_fake(fabric, made))
        assert fake.problems == real.problems == []
        assert fake.listing(verbose=3) == real.listing(verbose=3)
        for system in (real, fake):
            first = system.create_region(["mem0", "mem2", "mem1", "mem3"], type="ram")
            first.write(777, b"the same bytes" * 100)
        assert fake.listing(verbose=2) == real.listing(verbose=2)
        assert [str(one) for one in fake.explain(first.hpa + 777).steps] == [
            str(one) for one in real.explain(first.hpa + 777).steps
        ]
        for address in range(first.hpa, first.hpa + 5000, 321):
            assert fake.machine.load(address, 7) == real.machine.load(address, 7)
        for system in (real, fake):
            system.destroy_region("region0")
        assert fake.listing(verbose=2) == real.listing(verbose=2)
