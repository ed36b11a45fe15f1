"""Owner and host at once, from threads of their own: nothing is lost or given twice."""

import threading
from contextlib import suppress
from uuid import UUID

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.errors import DynamicCapacityError
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from tests.device.dynamic.dc_host import BASE, MIB, DcHost
from tests.device.dynamic.pool import START, Ld, pool_of

ROUNDS = 60


def test_an_owner_and_a_host(make):
    device = make(dynamic=[DynamicRegion(length=64 * MIB)])
    host = DcHost(device)
    done = threading.Event()

    def own():
        try:
            for number in range(ROUNDS):
                try:
                    device.dynamic.add(length=2 * MIB * (1 + number % 3))
                    if number % 5 == 4:
                        held = device.dynamic.extents
                        device.dynamic.release(extents=held[:1], forced=True)
                except DynamicCapacityError:
                    pass  # all is given out, or the host was faster
        finally:
            done.set()

    thread = threading.Thread(target=own)
    thread.start()
    codes = set()
    while True:
        last = done.is_set()
        for one in host.events():
            if one.kind == 0:
                codes.add(host.accept(one.extent[:2]))
        for held in host.extents():
            codes.add(host.release(held[:2]))
        if last:
            break
    thread.join()
    assert codes <= {0, 0x0F}  # what was withdrawn or taken meanwhile is Invalid Physical Address
    assert [one[:2] for one in host.extents()] == [(one.start, one.length) for one in device.dynamic.extents]
    taken = [one.range for one in (*device.dynamic.extents, *device.dynamic.pending)]
    free = device.dynamic.free()
    assert sum(end - start for start, end in [*taken, *free]) == 64 * MIB
    assert min(start for start, _ in [*taken, *free]) == BASE


def test_an_owner_and_two_hosts_of_one_pool():
    """Shared extents come and go by force while both hosts answer, each in a machine of its own."""
    tags, clock = [UUID(int=number) for number in (1, 2, 3)], ManualClock()
    with pool_of([DynamicRegion(length=64 * MIB, sharable=True, sanitize_on_release=True)], clock) as pool:
        lds = [Ld(f"pool.{host}", pool, host, volatile=256 * MIB, clock=clock) for host in (0, 1)]
        done, codes = threading.Event(), set()

        def live(device):
            host = DcHost(device)
            while True:
                last = done.is_set()
                for one in host.events():
                    if one.kind == 0:
                        codes.add(host.accept(one.extent[:2]))
                        if device.dynamic.refusal(one.extent.start, 4, host=device.dynamic_host) is None:
                            device.space.write(one.extent.start, b"mark")
                for held in host.extents()[:1]:
                    codes.add(host.release(held[:2]))
                if last:
                    return

        threads = [threading.Thread(target=live, args=(device,)) for device in lds]
        for thread in threads:
            thread.start()
        for number in range(ROUNDS):
            tag = tags[number % 3]
            for act in (
                lambda tag=tag: pool.add(length=2 * MIB, tag=tag, host=0),
                lambda tag=tag: pool.add(selection=Selection.SHARED, tag=tag, host=1),
                lambda tag=tag, host=number % 2: pool.release(tag=tag, host=host, forced=True),
            ):
                with suppress(DynamicCapacityError):  # a host was faster
                    act()
        done.set()
        for thread in threads:
            thread.join(500)
            assert not thread.is_alive()
        assert codes <= {0, 0x0F}
        for host in (0, 1):
            pool.deprive(host)
        assert pool.free(0) == [(START, START + 64 * MIB)]
        for device in lds:
            device.close()
