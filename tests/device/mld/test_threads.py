"""Fabric managers, hosts and whoever binds and resets, all at once: each command is whole, and nothing is dealt out
twice."""

import random
import struct
from concurrent.futures import ThreadPoolExecutor

from softcxl.device.mld.errors import LogicalDeviceError
from softcxl.testing.driver import CONFIG, Driver
from tests.device.mld.conftest import GIB, MIB, Door
from tests.device.mld.test_owner import mld_dvsec
from tests.device.mld.test_tunnels import message, tunnel

SUCCESS, INPUT = 0, 2
ROUNDS = 150


def test_all_at_once(make, caplog):
    pool = make(logical_devices=[GIB, GIB, 256 * MIB, 0])
    pool.logical[0].bind("a host")  # whose logical device nobody takes

    def manager(seed):
        numbers, door = random.Random(seed), Door(pool.management)
        for _ in range(ROUNDS):
            start = numbers.randrange(1, 4)
            wanted = [
                (numbers.randrange(8), numbers.randrange(5)) for _ in range(numbers.randrange(1, 5 - start))
            ]
            body = b"".join(struct.pack("<QQ", *one) for one in wanted)
            code, answer = door.send(0x5402, struct.pack("<BBxx", len(wanted), start) + body)
            assert (code, answer[4:]) in ((SUCCESS, body), (INPUT, b""))
            code, answer = door.send(0x5401, b"\0\4")
            dealt = list(struct.iter_unpack("<QQ", answer[4:]))
            assert sum(one for one, _ in dealt) <= 16
            assert sum(one for _, one in dealt) <= 8
            assert door.send(0x5300, tunnel(numbers.randrange(4), message(0x4000)))[0] in (SUCCESS, INPUT)
        door.cci.close()

    def host(seed):
        numbers, driver = random.Random(seed), Driver(pool.logical[0])
        for _ in range(ROUNDS):
            assert struct.unpack_from("<16xQ", driver.send(0x4000)[1]) == (4,)
            pool.logical[0].space.write(numbers.randrange(GIB), b"x")

    def binder(seed):
        numbers = random.Random(seed)
        for _ in range(ROUNDS):
            device = pool.logical.get(numbers.randrange(1, 4))
            try:
                if device is not None:
                    device.bind(str(seed))
                    device.unbind()
            except LogicalDeviceError:
                pass  # the other one has it, or a fabric manager has taken it

    def resetter(seed):
        numbers, owned = random.Random(seed), pool.pool.fm_owned
        for _ in range(ROUNDS):
            owned.write(CONFIG, mld_dvsec(owned) + 0x0C, bytes([numbers.randrange(16) & ~1, 0]))

    with ThreadPoolExecutor() as threads:
        work = [
            threads.submit(one, seed)
            for seed, one in enumerate((manager, manager, host, binder, binder, resetter))
        ]
        for one in work:
            one.result()
    assert caplog.records == []
    assert pool.pool.fm_owned.doors == []
    assert sorted(pool.logical) == [ld for ld, one in enumerate(pool.allocations.each) if any(one)]
