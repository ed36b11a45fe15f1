"""What was shared is erased when the last goes who could have it, be it that he was only offered it."""

from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.device.mld.device import MultiLogicalDevice
from tests.device.dynamic.dc_host import DcHost

MIB = 1 << 20
TAG = UUID(int=7)


@pytest.fixture
def shared():
    """Host 0 has left what it stored; host 1 was offered it before."""
    region = DynamicRegion(length=256 * MIB, sharable=True, sanitize_on_release=True)
    pool = MultiLogicalDevice(
        "pool",
        volatile=512 * MIB,
        logical_devices=[256 * MIB, 256 * MIB],
        dynamic=[region],
        clock=ManualClock(),
    )
    dynamic = pool.dynamic
    assert dynamic is not None
    dynamic.add(length=2 * MIB, tag=TAG, host=0)
    assert DcHost(pool.logical[0]).accept((dynamic.start, 2 * MIB)) == 0
    dynamic.medium.write(0, b"mark")
    dynamic.add(selection=Selection.SHARED, tag=TAG, host=1, timeout=10)
    dynamic.release(tag=TAG, host=0, forced=True)
    assert dynamic.medium.read(0, 4) == b"mark"  # host 1 may still take it
    yield pool
    pool.close()


def gone(pool):
    return pool.dynamic.medium.read(0, 4) == bytes(4) and not pool.dynamic.tags


def test_an_offer_that_is_not_answered(shared):
    shared.clock.advance(10)
    assert gone(shared)


def test_an_offer_that_is_declined(shared):
    assert DcHost(shared.logical[1]).accept() == 0
    assert gone(shared)


def test_an_offer_that_is_taken_back(shared):
    shared.dynamic.release(tag=TAG, host=1, forced=True)
    assert gone(shared)


def test_a_host_that_goes(shared):
    shared.dynamic.disconnect(1)
    assert gone(shared)


def test_an_offer_that_is_taken(shared):
    assert DcHost(shared.logical[1]).accept((shared.dynamic.start, 2 * MIB)) == 0
    assert shared.dynamic.medium.read(0, 4) == b"mark"
