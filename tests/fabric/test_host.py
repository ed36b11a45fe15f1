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


SIX_BY_FIRMWARE = """
devices:
  mem0: {volatile: 256MiB}
  mem1: {volatile: 256MiB}
  mem2: {volatile: 256MiB}
  mem3: {volatile: 256MiB}
  mem4: {volatile: 256MiB}
  mem5: {volatile: 256MiB}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem3]}, hb1: {ports: [mem1, mem4]}, hb2: {ports: [mem2, mem5]}}
    windows: [{size: 1GiB, targets: [hb0]}, {size: 1536MiB, targets: [hb0, hb1, hb2]}]
    regions: [{window: 1, devices: [mem0, mem1, mem2, mem3, mem4, mem5]}]
"""


def test_a_firmware_region_over_three_bridges_is_where_its_decoders_lead() -> None:
    with Fabric.loads(SIX_BY_FIRMWARE) as fabric:
        for name, device in fabric.devices.items():
            device.space.write(0, name[-1:].encode() * 256)
        host = fabric.hosts["alpha"]
        # 6 GiB over 256 B leaves 0 of 3 and 0 of 2, and each 256 B further one more of both
        turns = ["0", "4", "2", "3", "1", "5"]
        assert [host.machine.load((6 << 30) + 256 * at, 1).decode() for at in range(6)] == turns
