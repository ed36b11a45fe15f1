"""A device on a bench: a machine it is plugged into, a driver that knows it by its registers, a clock by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import Command
from softcxl.testing.driver import Driver, Machine

MIB = 1 << 20
GIB = 1 << 30

Send = Callable[..., tuple[int, bytes]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def make(clock: ManualClock) -> Iterator[Callable[..., Type3]]:
    """Makes devices of 256 MiB volatile and 256 MiB persistent capacity, or as asked."""
    made: list[Type3] = []

    def build(**options: object) -> Type3:
        given = {
            "volatile": 256 * MIB,
            "persistent": 256 * MIB,
            "label_storage": 4096,
            "serial": 0xC0FFEE01,
            "clock": clock,
        } | options
        device = Type3("mem0", **given)  # type: ignore[arg-type]
        made.append(device)
        return device

    yield build
    for device in made:
        device.close()


@pytest.fixture
def device(make: Callable[..., Type3]) -> Type3:
    return make()


@pytest.fixture
def machine(device: Type3) -> Machine:
    machine = Machine()
    device.attach(machine)
    return machine


@pytest.fixture
def driver(device: Type3) -> Driver:
    return Driver(device)


@pytest.fixture
def send(driver: Driver) -> Send:
    """Sends a declared command through the mailbox: (return code, output payload)."""

    def submit(command: Command, payload: bytes = b"") -> tuple[int, bytes]:
        return driver.send(command.opcode, payload)

    return submit
