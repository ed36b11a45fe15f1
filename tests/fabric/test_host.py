"""Whose bytes are at which host address, when firmware has had its say and when it has not."""

from __future__ import annotations

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
