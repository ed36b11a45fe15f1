"""Devices that are closed when a test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from softcxl.device.type3 import Type3

MIB = 1 << 20


@pytest.fixture
def made() -> Iterator[Callable[..., list[Type3]]]:
    """`made(3, volatile=…)`: so many memory devices, of 256 MiB each unless said otherwise."""
    devices: list[Type3] = []

    def make(count: int, **given: Any) -> list[Type3]:
        number = len(devices)
        fresh = [
            Type3(f"dev{number + n}", **{"volatile": 256 * MIB, "serial": 0xC0 + number + n, **given})
            for n in range(count)
        ]
        devices.extend(fresh)
        return fresh

    yield make
    for device in devices:
        device.close()
