"""A device with dynamic capacity, and its host."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from tests.device.dynamic.dc_host import MIB, DcHost


@pytest.fixture
def dcd(make: Callable[..., Type3]) -> Type3:
    """Region 0: 256 MiB in blocks of 2 MiB, volatile. Region 1: 128 MiB in blocks of 1 MiB, sharable, non-volatile."""
    return make(
        dynamic=[
            DynamicRegion(length=256 * MIB),
            DynamicRegion(length=128 * MIB, block_size=MIB, sharable=True, non_volatile=True),
        ]
    )


@pytest.fixture
def host(dcd: Type3) -> DcHost:
    return DcHost(dcd)
