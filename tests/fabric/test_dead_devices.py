"""A device that dies, or whose link does, below a machine in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl.device.inject import Death
from softcxl.fabric.build import Fabric
from softcxl.switch.errors import DeviceFault, LinkDown

TOPOLOGY = """
devices: {mem0: {volatile: 256MiB}, mem1: {volatile: 256MiB}}
hosts: {alpha: {bridges: {hb0: {ports: [mem0, mem1]}}, windows: [{size: 512MiB, targets: [hb0]}]}}
"""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY) as live:
        yield live


@pytest.mark.parametrize(
    ("how", "words"),
    [(Death.SILENT, "mem0 does not answer"), (Death.MEDIA, "the media of mem0 are disabled")],
)
def test_memory_of_a_dead_device_does_not_answer(fabric: Fabric, how: Death, words: str) -> None:
    system = fabric.hosts["alpha"].boot()
    region, other = (system.create_region([name], type="ram") for name in ("mem0", "mem1"))
    region.write(0, b"hello")
    other.write(0, b"other")
    fabric.devices["mem0"].inject.die(how)
    with pytest.raises(DeviceFault, match=words):
        region.load(0, 5)
    with pytest.raises(DeviceFault, match=words):
        region.read(0, 5)
    assert other.read(0, 5) == b"other"


def test_a_dead_device_is_not_enumerated_and_comes_back(fabric: Fabric) -> None:
    device = fabric.devices["mem0"]
    device.inject.die()
    assert list(fabric.hosts["alpha"].boot().memdevs) == ["mem0"], "mem1 is all that there is"
    device.inject.revive()
    again = fabric.hosts["alpha"].boot()
    assert [one.serial for one in again.memdevs.values()] == [one.serial for one in fabric.devices.values()]
    assert again.problems == []


def test_firmware_that_has_stopped_keeps_a_driver_away(fabric: Fabric) -> None:
    fabric.devices["mem0"].inject.die(Death.FIRMWARE)
    system = fabric.hosts["alpha"].boot()
    assert len(system.memdevs) == 1
    [problem] = system.problems
    assert "mailbox is not ready" in problem


def test_a_link_that_fails_shows_at_its_port(fabric: Fabric) -> None:
    system, device = fabric.hosts["alpha"].boot(), fabric.devices["mem0"]
    region = system.create_region(["mem0"], type="ram")
    region.write(0, b"hello")
    assert device.seat is not None
    port = device.seat.bus.bridge
    assert port is not None
    link = port.express.link_status
    device.inject.link_down()
    assert not link.data_link_layer_active
    with pytest.raises(LinkDown, match="nothing that has memory answers below hb0 port 0"):
        region.load(0, 5)
    assert not system.memdev("mem0").present
    device.inject.link_up()
    assert link.data_link_layer_active
    assert len(fabric.hosts["alpha"].boot().memdevs) == 2
