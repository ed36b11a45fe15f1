"""Decoders that software set wrongly, each way in a line: the commit that is refused, or the error that an access gets.

A good region of four devices, two behind each of two bridges, is broken at one place by registers. What is broken names
itself; what is not goes on; and no address ever reaches bytes that another one reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from softcxl.device.type3 import Type3
from softcxl.memory import Medium, Window
from softcxl.switch.errors import AccessFault, DecodeError, LinkDown
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from tests.switch.fabrics import BASE, BLOCK, Fabric, Level, Plan
from tests.switch.programmer import COMMIT, ERROR, LOCK, Programmer, committed

PLAN = Plan((Level(2, 256), Level(2, 512)), turn=0)  # blocks go to mem0, mem2, mem1, mem3 in turn
SIZE = PLAN.size
PORT: dict[str, Any] = {"hpa": BASE, "size": SIZE, "ways": 2, "granularity": 512, "targets": [0, 1]}
ENDPOINT: dict[str, Any] = {"hpa": BASE, "size": SIZE, "ways": 4, "granularity": 256}


@dataclass(frozen=True)
class Case:
    """`values` are what bridge 0's or device 0's decoder `number` is set to; `good` offsets go on, `bad` ones end in
    `error`. Where `refused` is not empty the commit is, for that reason, and the decoder is left without effect."""

    name: str
    where: str
    values: dict[str, Any]
    refused: str = ""
    error: str = ""
    kind: type[AccessFault] = DecodeError
    number: int = 0
    good: tuple[int, ...] = (256, 768)  # those of bridge 1
    bad: tuple[int, ...] | None = None  # unless said: all of what is behind what is broken
    fresh: bool = True  # what was there is taken out of effect first


CASES = [
    # ports: refused
    Case("target that is no port", "port", {"targets": [0, 9]}, refused="target 9 is no port of this component"),
    Case("position twice", "port", {"targets": [1, 1]}, refused="one port has two positions"),
    Case("three ways", "port", {"ways": 3, "targets": [0, 1, 2]}, refused="3 ways: a power of two up to 4"),
    Case("more ways than targets", "port", {"ways": 8, "targets": [0, 1, 2]}, refused="a power of two up to 4"),
    Case("ways code reserved", "port", {"code": 7}, refused="interleave ways encoding 7"),
    Case("granularity reserved", "port", {"granularity": 1 << 15}, refused="granularity encoding 7"),
    Case("size not whole", "port", {"size": SIZE - BLOCK}, refused="not a multiple of 2 x 256 MiB"),
    Case("beyond 52 bits", "port", {"hpa": (1 << 52) - BLOCK}, refused="beyond 52 bits"),
    Case(
        "overlap", "port", {"hpa": BASE + BLOCK}, refused="not above the decoders below it", number=1, fresh=False,
        bad=(), good=(0, 256, 512, 768),
    ),
    Case(
        "out of order", "port", {"hpa": BASE + SIZE}, refused="decoder 1 is not committed", number=2, fresh=False,
        bad=(), good=(0, 256, 512, 768),
    ),
    # ports: committed, and contradicted by what is above or below
    Case("one way for two", "port", {"ways": 1}, error="mem0 decoder 0: it has 4 ways, the decoders above it make 2"),
    Case(
        "four ways for two", "port", {"ways": 4, "granularity": 256, "targets": [0, 1, 2, 3]},
        refused="target 3 is no port",
    ),
    Case("granularity of the window", "port", {"granularity": 256}, error="blocks of a round meet in one device"),
    Case("granularity too coarse", "port", {"granularity": 4096}, error="do not make 4 ways at 256"),
    Case("target without a device", "port", {"targets": [2, 1]}, error="below hb0 port 2", kind=LinkDown, bad=(0,),
         good=(256, 512, 768)),
    Case("begins too late", "port", {"hpa": BASE + 2 * BLOCK, "size": 2 * BLOCK}, error="no decoder of hb0 takes it",
         good=(256, 2 * BLOCK, 2 * BLOCK + 512)),
    Case("ends too early", "port", {"size": 2 * BLOCK}, error="no decoder of hb0 takes it",
         bad=(2 * BLOCK, 2 * BLOCK + 512), good=(0, 512, 256, 2 * BLOCK + 256)),
    Case("nothing", "port", {"size": 0}, error="no decoder of hb0 takes it"),
    # devices: refused
    Case("size not whole, device", "device", {"size": SIZE - BLOCK}, refused="not a multiple of 4 x 256 MiB"),
    Case("five ways, device", "device", {"code": 5}, refused="interleave ways encoding 5"),
    Case("not its capacity", "device", {"size": 2 * SIZE}, refused="do not fit"),
    Case("skip beyond it", "device", {"skip": BLOCK}, refused="do not fit"),
    Case("overlap, device", "device", {"hpa": BASE + BLOCK, "size": BLOCK, "ways": 1}, refused="not above", number=1,
         fresh=False, bad=(), good=(0, 256, 512, 768)),
    Case("device coherent", "device", {"flags": 1 << 13}, refused="host-only coherent"),
    # devices: committed, and contradicted by what is above
    Case("fewer ways", "device", {"ways": 2, "size": 2 * BLOCK}, error="it has 2 ways, the decoders above it make 4",
         bad=(0,), good=(256, 512, 768)),
    Case("more ways", "device", {"ways": 8, "size": 8 * BLOCK}, error="it has 8 ways, the decoders above it make 4",
         bad=(0,), good=(256, 512, 768)),
    Case("coarser", "device", {"granularity": 512}, error="its granularity is 512, a decoder above it has 256",
         good=(256, 512, 768)),
    Case("three ways, device", "device", {"ways": 3, "size": 3 * BLOCK}, error="it has 3 ways",
         good=(256, 512, 768)),
    Case("elsewhere", "device", {"hpa": BASE + SIZE}, error="no decoder of mem0 takes it",
         good=(256, 512, 768)),
]  # fmt: skip


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(PLAN) as fabric:
        fabric.program()
        yield fabric


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_each_gets(fabric: Fabric, case: Case) -> None:
    it, machine, device = fabric.programmer, fabric.machine, fabric.devices[0]
    port = case.where == "port"
    block = it.bridge(0) if port else it.endpoints()[0].block
    bank = fabric.bridges[0].decoders if port else device.decoders
    assert bank is not None
    if case.fresh:
        it.decommit(block, 0)
    control = it.decoder(block, case.number, **((PORT if port else ENDPOINT) | case.values))
    assert committed(control) == (not case.refused)
    if case.refused:
        assert control & ERROR
        assert case.refused in bank.refusals[-1]
    error = case.error or f"no decoder of {'hb0' if port else 'mem0'} takes it"
    for offset in ((0, 512) if port else (0,)) if case.bad is None else case.bad:
        with pytest.raises(case.kind, match=error):
            machine.load(BASE + offset, 8)
        with pytest.raises(case.kind, match=error):
            machine.store(BASE + offset, bytes(8))
        assert machine.view(BASE + offset, 8) is None
    for offset in case.good:
        machine.store(BASE + offset, offset.to_bytes(8, "little"))
    for offset in case.good:
        assert machine.load(BASE + offset, 8) == offset.to_bytes(8, "little")
    # and good again when it is set right
    it.decommit(block, case.number)
    if case.fresh:
        assert committed(it.decoder(block, 0, **(PORT if port else ENDPOINT)))
    for offset in (0, 256, 512, 768):
        machine.store(BASE + offset, offset.to_bytes(8, "little"))
        found, dpa = fabric.expected(BASE + offset)
        assert found.space.read(dpa, 8) == offset.to_bytes(8, "little")


def test_a_gap_between_two_ranges_is_nobodys(fabric: Fabric) -> None:
    it = fabric.programmer
    it.decommit(it.bridge(0), 0)
    assert committed(it.decoder(it.bridge(0), 0, **PORT | {"size": 2 * BLOCK}))
    assert committed(it.decoder(it.bridge(0), 1, **PORT | {"hpa": BASE + 3 * BLOCK, "size": 0, "ways": 1}))
    assert committed(
        it.decoder(it.bridge(0), 2, **PORT | {"hpa": BASE + 3 * BLOCK, "size": BLOCK, "ways": 1})
    )
    fabric.machine.store(BASE, b"below it")
    with pytest.raises(DecodeError, match="no decoder of hb0 takes it"):
        fabric.machine.load(BASE + 2 * BLOCK, 8)
    assert fabric.machine.view(BASE, SIZE) is None


@pytest.mark.parametrize("where", ["port", "device"])
def test_a_locked_decoder_takes_nothing(fabric: Fabric, where: str) -> None:
    it = fabric.programmer
    block, good = (it.bridge(0), PORT) if where == "port" else (it.endpoints()[0].block, ENDPOINT)
    it.decommit(block, 0)
    control = it.decoder(block, 0, flags=LOCK, **good)
    assert committed(control)
    other: dict[str, Any] = good | {"hpa": BASE + SIZE, "ways": 1, "size": BLOCK, "targets": None}
    assert it.decoder(block, 0, **other) == control
    assert it.decommit(block, 0) == control
    fabric.machine.store(BASE, b"as it was")
    assert fabric.devices[0].space.read(0, 9) == b"as it was"


def test_a_decoder_that_is_not_there_takes_nothing() -> None:
    bridge, device = HostBridge("hb", 2, decoders=1), Type3("mem", volatile=2 * BLOCK, decoders=1)
    bridge.ports[0].plug(device)
    with Medium.memfd("window", 2 * BLOCK) as medium:
        machine = HostMachine([bridge], [CxlWindow(Window(BASE, 2 * BLOCK, medium), (bridge,))])
        it = Programmer(machine)
        [endpoint] = it.endpoints()
        it.enable(endpoint)
        for block, targets in ((it.bridge(0), [0]), (endpoint.block, None)):
            assert committed(it.decoder(block, 0, hpa=BASE, size=BLOCK, targets=targets))
            assert not it.decoder(block, 1, hpa=BASE + BLOCK, size=BLOCK, targets=targets) & COMMIT
        machine.store(BASE, b"here")
        with pytest.raises(DecodeError, match="no decoder of hb takes it"):
            machine.load(BASE + BLOCK, 4)
    device.close()


BREAK: dict[str, Callable[[Fabric], object]] = {
    "the device is out of effect": lambda fabric: fabric.programmer.decommit(
        fabric.programmer.endpoints()[0].block, 0
    ),
    "the device is not enabled": lambda fabric: fabric.programmer.write32(
        fabric.programmer.hdm(fabric.programmer.endpoints()[0].block) + 4, 0
    ),
    "the bridge is out of effect": lambda fabric: fabric.programmer.decommit(fabric.programmer.bridge(0), 0),
}


@pytest.mark.parametrize("name", BREAK)
def test_taken_out_of_effect_in_use(fabric: Fabric, name: str) -> None:
    seen = fabric.machine.view(BASE, SIZE)
    assert seen is not None
    BREAK[name](fabric)
    with pytest.raises(AccessFault, match=r"mem0|hb0"):
        fabric.machine.load(BASE, 8)
    assert fabric.machine.view(BASE, SIZE) is None
    fabric.machine.store(BASE + 256, b"goes on")
