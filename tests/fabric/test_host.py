"""Whose bytes are at which host address, when firmware has had its say and when it has not."""

from __future__ import annotations

import pytest

from softcxl import Fabric, Type3

MIB = 1 << 20
BASE = 4 << 30
PROGRAMMED = """
devices: {mem0: {volatile: 256MiB}, mem1: {volatile: 256MiB}}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 1GiB, targets: [hb0], restrictions: [volatile]}]
    regions: [{window: 0, devices: [mem0, mem1], granularity: 256}]
"""


def program(device: Type3) -> None:
    device.decoders.program(0, hpa=BASE, size=512 * MIB, ways=2, granularity=256)


def window_bytes(fabric: Fabric) -> bytes:
    return fabric.hosts["alpha"].memory.windows[0].medium.read(0, 512)


def mark(fabric: Fabric) -> None:
    for name, device in fabric.devices.items():
        device.space.write(0, name[-1:].encode() * 512)


def test_firmware_has_its_own_order() -> None:
    with Fabric.loads(PROGRAMMED) as fabric:
        mark(fabric)
        assert window_bytes(fabric) == b"0" * 256 + b"1" * 256


def test_what_firmware_had_is_no_matter_to_the_system_after_it() -> None:
    with Fabric.loads(PROGRAMMED) as fabric:
        mark(fabric)
        for name in ("mem0", "mem1"):
            fabric.devices[name].decoders.reset()
        for name in ("mem1", "mem0"):
            program(fabric.devices[name])
        assert window_bytes(fabric) == b"1" * 256 + b"0" * 256


BRIDGES = ("hb0", "hb1", "hb2")
TWELVE = [f"mem{number:x}" for number in range(12)]


@pytest.mark.parametrize("ways", [3, 6, 12])
@pytest.mark.parametrize("before", [1, 2, 5], ids="{}GiB".format)
def test_three_bridges_take_turns_as_their_decoders_say(ways: int, before: int) -> None:
    # the same region, once by the decoders of every bridge, once by what a guest's devices know
    devices = "".join(f"  {name}: {{volatile: 256MiB}}\n" for name in TWELVE)
    ports = ", ".join(f"{name}: {{ports: [{', '.join(TWELVE[at::3])}]}}" for at, name in enumerate(BRIDGES))
    text = f"""
devices:
{devices}
hosts:
  alpha:
    bridges: {{{ports}}}
    windows:
      - {{size: {before}GiB, targets: [hb0]}}
      - {{size: 3GiB, targets: [hb0, hb1, hb2], granularity: 512}}
"""
    with Fabric.loads(text) as fabric:
        host = fabric.hosts["alpha"]
        system = host.boot()
        by_serial = {one.serial: one.name for one in system.memdevs.values()}
        order = TWELVE[:ways]
        region = system.create_region(
            [by_serial[fabric.devices[name].serial] for name in order], type="ram", decoder="decoder0.1"
        )
        assert region.hpa == (4 + before) << 30
        window = host.memory.windows[1]
        for position, name in enumerate(order):
            turn = window.turn(region.hpa, ways, 512, position)
            assert host.machine.trace(region.hpa + 512 * turn).device.name == name
