"""A pool on a bench: a fabric manager's door to it, and a clock by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.mld.management import OwnerCci

MIB = 1 << 20
GIB = 1 << 30

Make = Callable[..., MultiLogicalDevice]


class Door:
    """A command interface, and what was sent to it unasked."""

    def __init__(self, interface: Callable[..., OwnerCci]) -> None:
        self.sent: list[bytes] = []
        self.cci = interface(lambda notification: self.sent.append(notification.pack()))

    def send(self, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
        reply = self.cci.execute(opcode, payload)
        return reply.code, reply.payload


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def make(clock: ManualClock) -> Iterator[Make]:
    """Makes pools of 4 GiB of volatile and 2 GiB of persistent memory for four logical devices, or as asked."""
    made: list[MultiLogicalDevice] = []

    def build(**options: Any) -> MultiLogicalDevice:
        given: dict[str, Any] = {
            "volatile": 4 * GIB,
            "persistent": 2 * GIB,
            "logical_devices": [GIB, (512 * MIB, 256 * MIB), 0, 0],
            "serial": 0xC0FFEE01,
            "clock": clock,
        } | options
        device = MultiLogicalDevice("pool", **given)
        made.append(device)
        return device

    yield build
    for device in made:
        device.close()


@pytest.fixture
def pool(make: Make) -> MultiLogicalDevice:
    return make()


@pytest.fixture
def door(pool: MultiLogicalDevice) -> Door:
    return Door(pool.management)
