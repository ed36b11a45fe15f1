"""A physical switch with two virtual ones, what is in its ports, and its fabric manager."""

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.type3 import Type3
from softcxl.switch.physical import PhysicalSwitch
from tests.switch.manager import Manager, Slow

MIB = 1 << 20


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def memory(clock):
    device = Type3("mem0", volatile=256 * MIB, serial=0xC0FFEE, clock=clock)
    yield device
    device.close()


@pytest.fixture
def pool(clock):
    made = MultiLogicalDevice(
        "pool", volatile=1024 * MIB, logical_devices=[256 * MIB, 256 * MIB, 0], clock=clock, serial=7
    )
    yield made
    made.close()


@pytest.fixture
def switch(memory, pool, clock):
    """Ports 0: a device, 1: a device of logical devices, 2: nothing; 3 and 4 upstream."""
    made = PhysicalSwitch(
        "rack", ports=3, virtual=[("left", 3), ("right", 2)], clock=clock, serial=0x5EED, hdm_decoders=10
    )
    made.ports[0].insert(memory)
    made.ports[1].insert(pool)
    yield made
    made.close()


@pytest.fixture
def fm(switch):
    manager = Manager(switch)
    yield manager
    manager.door.close()


@pytest.fixture
def slow(switch):
    switch.virtual[0].tenant = Slow()
    return switch.virtual[0].tenant
