"""Owner and host at once, from threads of their own: nothing is lost or given twice."""

import threading

from softcxl.device.dynamic.errors import DynamicCapacityError
from softcxl.device.dynamic.region import DynamicRegion
from tests.device.dynamic.dc_host import BASE, MIB, DcHost

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
