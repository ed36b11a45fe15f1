"""Power fails: who has time to save. Offsets and bits are those of Linux's cxl_gpf_port_setup (drivers/cxl/core/pci.c),
which gives every downstream port 20 s for either phase, and of QEMU's device, which takes 3 s."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl.device.type3 import Type3
from softcxl.fabric.build import Fabric
from softcxl.spec.command.health import ShutdownState
from softcxl.switch.machine import HostMachine
from softcxl.testing.driver import CONFIG, Driver
from softcxl.wire import Reset
from tests.switch.programmer import Found, Programmer

PORT_GPF, DEVICE_GPF = 4, 5
PHASE1, PHASE2, DURATION = 0x0C, 0x0E, 0x0A
TWENTY_SECONDS, TWO_SECONDS, THREE_SECONDS = 0x702, 0x602, 0x603
SET_SHUTDOWN_STATE, GET_HEALTH_INFO = 0x4204, 0x4200


class Careful(Type3):
    """A device that takes as long as QEMU's."""

    flush_seconds = 3


TOPOLOGY = f"""
devices:
  quick: {{persistent: 256MiB}}
  slow: {{persistent: 256MiB, class: "{__name__}:Careful"}}
switches: {{sw0: {{ports: [slow]}}}}
hosts: {{alpha: {{bridges: {{hb0: {{ports: [quick, sw0]}}}}, windows: [{{size: 512MiB, targets: [hb0]}}]}}}}
"""


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY) as fabric:
        for device in fabric.devices.values():
            assert Driver(device).send(SET_SHUTDOWN_STATE, b"\x01") == (0, b"")
        yield fabric


def ports(it: Programmer) -> list[Found]:
    """Every downstream port with a GPF DVSEC, root ports first."""
    found: list[Found] = []
    level = [one for roots in it.roots for one in roots]
    while level:
        found += [one for one in level if one.kind in (4, 6)]
        level = [below for one in level for below in one.below]
    return found


def give(machine: HostMachine, *times: int) -> None:
    """Set the timeout of phase 2 of each port, in order; the last one is for all that are left."""
    it = Programmer(machine)
    for number, port in enumerate(ports(it)):
        at = it.dvsec(port.bus, port.device, PORT_GPF)
        for phase in (PHASE1, PHASE2):
            it.write(port.bus, port.device, at + phase, times[min(number, len(times) - 1)], 2)


def counts(fabric: Fabric) -> dict[str, int]:
    return {
        name: int.from_bytes(Driver(device).send(GET_HEALTH_INFO)[1][6:10], "little")
        for name, device in fabric.devices.items()
    }


def test_what_a_device_says(fabric: Fabric) -> None:
    for name, expected in (("quick", 0), ("slow", THREE_SECONDS)):
        driver = Driver(fabric.devices[name])
        assert driver.read16(CONFIG, driver.dvsec(DEVICE_GPF) + DURATION) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(15, 0x60F), (16, 0x702), (150, 0x70F)])
def test_longer_times_are_rounded_up(seconds: int, expected: int) -> None:
    model = type("Model", (Type3,), {"flush_seconds": seconds})
    device = model("mem0", volatile=256 << 20)
    driver = Driver(device)
    assert driver.read16(CONFIG, driver.dvsec(DEVICE_GPF) + DURATION) == expected
    device.close()


def test_all_have_time_as_linux_gives_it(fabric: Fabric) -> None:
    machine = fabric.hosts["alpha"].machine
    give(machine, TWENTY_SECONDS)
    assert machine.power_fail() == []
    assert counts(fabric) == {"quick": 0, "slow": 0}
    assert {one.shutdown.state for one in fabric.devices.values()} == {ShutdownState.CLEAN}


@pytest.mark.parametrize(
    "times",
    [
        (TWO_SECONDS,),
        (
            TWENTY_SECONDS,
            TWO_SECONDS,
            TWENTY_SECONDS,
        ),  # a root port has less patience than the switch below it
        (0,),
    ],
)
def test_a_device_is_cut_off(fabric: Fabric, times: tuple[int, ...]) -> None:
    machine = fabric.hosts["alpha"].machine
    give(machine, *times)
    assert machine.power_fail() == ["slow"]
    assert counts(fabric) == {"quick": 0, "slow": 1}
    assert fabric.devices["slow"].shutdown.state is ShutdownState.CLEAN
    machine.reset(Reset.COLD)
    assert counts(fabric) == {"quick": 0, "slow": 1}


def test_a_clean_device_loses_nothing(fabric: Fabric) -> None:
    assert Driver(fabric.devices["slow"]).send(SET_SHUTDOWN_STATE, b"\x00") == (0, b"")
    machine = fabric.hosts["alpha"].machine
    give(machine, TWO_SECONDS)
    assert machine.power_fail() == ["slow"]
    assert counts(fabric) == {"quick": 0, "slow": 0}
