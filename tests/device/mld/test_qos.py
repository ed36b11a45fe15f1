"""QoS of a multi-logical device: struct cxlmi_cmd_fmapi_get_qos_control_rsp and its like of libcxlmi; defaults and
ranges of CXL 3.1 §7.6.7.4.4 to §7.6.7.4.10; DevLoad worked out by hand from §3.3.4.3."""

import struct

import pytest

from softcxl.device.mld.qos import DevLoad
from softcxl.memory import Medium, Window
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.route import CxlWindow
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.mld.conftest import GIB, MIB, Door

SUCCESS, INPUT, UNSUPPORTED, LENGTH = 0x00, 0x02, 0x03, 0x16
DEFAULTS = struct.pack("<BBBBHB", 0, 10, 25, 8, 0, 64)
EGRESS, REDUCED = 1, 2
LIGHT, OPTIMAL, MODERATE, SEVERE = DevLoad


def test_control(door):
    assert door.send(0x5403) == (SUCCESS, DEFAULTS)
    for control in ((3, 1, 1, 0, 65535, 255), (0, 100, 100, 15, 0, 0), (1, 20, 40, 4, 1000, 1)):
        asked = struct.pack("<BBBBHB", *control)
        assert door.send(0x5404, asked) == (SUCCESS, asked)
        assert door.send(0x5403) == (SUCCESS, asked)


@pytest.mark.parametrize(
    "wrong",
    [(0, 0, 25, 8), (0, 101, 101, 8), (0, 10, 0, 8), (0, 10, 9, 8), (0, 10, 101, 8), (0, 10, 25, 16)],
    ids=str,
)
def test_control_that_cannot_be(door, wrong):
    assert door.send(0x5404, struct.pack("<BBBBHB", *wrong, 1, 1)) == (INPUT, b"")
    assert door.send(0x5403) == (SUCCESS, DEFAULTS)


def test_reserved_bits_and_lengths(door):
    asked = struct.pack("<BBBBHB", 0xFD, 20, 40, 4, 7, 9)
    answer = b"\1" + asked[1:]
    assert door.send(0x5404, asked) == (SUCCESS, answer)
    assert door.send(0x5404, asked[:-1]) == (LENGTH, b"")
    assert door.send(0x5403, b"\0") == (LENGTH, b"")
    assert door.send(0x5403) == (SUCCESS, answer)


def test_status(door, pool):
    assert door.send(0x5405) == (SUCCESS, b"\0")
    pool.qos.backpressure = 30
    assert door.send(0x5405) == (SUCCESS, b"\x1e")
    pool.logical[0].inject.backpressure(40)  # of the device's port, whoever tells
    assert door.send(0x5405) == (SUCCESS, b"\x28")
    door.send(0x5404, DEFAULTS[:3] + b"\0" + DEFAULTS[4:])  # not sampled
    assert door.send(0x5405) == (SUCCESS, b"\0")
    for wrong in (-1, 101, True, 1.5):
        with pytest.raises(ValueError, match="from 0 to 100"):
            pool.qos.backpressure = wrong


@pytest.mark.parametrize(("get", "set_", "default"), [(0x5406, 0x5407, 0), (0x5408, 0x5409, 0)])
def test_fractions(door, get, set_, default):
    assert door.send(get, b"\4\0") == (SUCCESS, bytes([4, 0, *[default] * 4]))
    assert door.send(set_, b"\2\1\x40\x20") == (SUCCESS, b"\2\1\x40\x20")
    assert door.send(get, b"\4\0") == (SUCCESS, bytes([4, 0, default, 0x40, 0x20, default]))
    assert door.send(get, b"\1\2") == (SUCCESS, b"\1\2\x20")
    for asked in (b"\xff\0", b"\x10\0", b"\5\0"):  # as jack asks, and libcxlmi's tests
        assert door.send(get, asked) == (SUCCESS, bytes([4, 0, default, 0x40, 0x20, default]))
        assert door.send(set_, asked + bytes(asked[0])) == (INPUT, b"")
    assert door.send(get, b"\xff\2") == (SUCCESS, bytes([2, 2, 0x20, default]))
    for asked in (b"\0\0", b"\1\4", b"\xff\xff"):
        assert door.send(get, asked) == (INPUT, b"")
        assert door.send(set_, asked + bytes(asked[0])) == (INPUT, b"")
    assert door.send(set_, b"\2\0\1") == (LENGTH, b"")
    assert door.send(set_, b"\2\0\1\1\1") == (LENGTH, b"")
    assert door.send(get, b"\4\0") == (SUCCESS, bytes([4, 0, default, 0x40, 0x20, default]))


def test_no_more_than_all_bandwidth_is_allocated(door):
    assert door.send(0x5407, b"\4\0\x40\x40\x40\x40")[0] == SUCCESS
    assert door.send(0x5407, b"\1\2\x41") == (INPUT, b"")
    assert door.send(0x5406, b"\1\2") == (SUCCESS, b"\1\2\x40")
    assert door.send(0x5409, b"\4\0\xff\xff\xff\xff")[0] == SUCCESS  # limits overlap


def test_resets(door, pool):
    door.send(0x5404, struct.pack("<BBBBHB", 1, 20, 40, 4, 7, 9))
    door.send(0x5407, b"\1\0\x40")
    for device in pool.logical.values():
        for kind in Reset:
            device.reset(kind)
    assert door.send(0x5403)[1] == struct.pack("<BBBBHB", 1, 20, 40, 4, 7, 9)
    for kind in (Reset.HOT, Reset.COLD):
        door.send(0x5404, struct.pack("<BBBBHB", 1, 20, 40, 4, 7, 9))
        pool.reset(kind)
        assert door.send(0x5403) == (SUCCESS, DEFAULTS)
        assert door.send(0x5406, b"\1\0") == (SUCCESS, b"\1\0\x40")


def test_logical_devices_have_none_of_it(pool):
    for device in pool.logical.values():
        driver = Driver(device)
        for opcode, payload in ((0x4700, b""), (0x4701, DEFAULTS[:4]), (0x4702, b""), (0x5403, b"")):
            assert driver.send(opcode, payload)[0] == UNSUPPORTED
        assert driver.send(0x4000)[1][0x44] == 0  # QoS Telemetry Capabilities of an SLD


# -- load ------------------------------------------------------------------------------------------------------


def control(door, bits=0, basis=0, interval=1):
    asked = struct.pack("<BBBBHB", bits, 10, 25, 8, basis, interval)
    assert door.send(0x5404, asked) == (SUCCESS, asked)


def requests(pool, text):
    """Requests of logical devices, by their LD IDs; returns the loads that both see then."""
    for ld in text:
        pool.logical[int(ld)].qos.read(0, 0, 64)
    return pool.logical[0].qos.load, pool.logical[1].qos.load


def test_egress_port_congestion(door, pool):
    """It is moderate from 10 percent on, severe from 25; a logical device that asks for nothing is told of less."""
    pool.qos.backpressure = 100
    assert requests(pool, "0") == (LIGHT, LIGHT)  # it does not count
    control(door, EGRESS)
    requests(pool, "0")
    for percent, one, other in (
        (9, LIGHT, LIGHT),
        (10, MODERATE, OPTIMAL),
        (24, MODERATE, OPTIMAL),
        (25, SEVERE, MODERATE),
        (100, SEVERE, MODERATE),
    ):
        pool.qos.backpressure = percent
        assert requests(pool, "") == (one, other)


def test_a_reduction_of_throughput(door, pool):
    pool.qos.reduced = True
    assert requests(pool, "0") == (LIGHT, LIGHT)
    control(door, REDUCED)
    assert requests(pool, "0") == (MODERATE, OPTIMAL)
    pool.qos.internal = SEVERE
    assert requests(pool, "") == (SEVERE, MODERATE)


def test_beyond_its_limit(door, pool):
    """LD 0 may have a quarter of 8 requests, of the last 16: two."""
    control(door, basis=8)
    door.send(0x5409, b"\2\0\x40\xff")
    assert requests(pool, "00") == (LIGHT, LIGHT)
    assert requests(pool, "0") == (MODERATE, LIGHT)
    assert requests(pool, "1" * 7) == (MODERATE, LIGHT)
    assert (pool.qos.count(0), pool.qos.count(1)) == (3, 7)
    assert requests(pool, "1") == (MODERATE, MODERATE)  # 8 of them are more than 255/256 of 8
    assert requests(pool, "1" * 6) == (LIGHT, MODERATE)  # the first of LD 0 is not among the last 16 any more
    assert pool.logical[0].qos.usage.responses == [2, 0, 1, 0]
    control(door, basis=0)
    assert requests(pool, "0" * 16) == (LIGHT, LIGHT)  # no limits
    control(door, basis=8, interval=0)
    assert requests(pool, "0" * 16) == (LIGHT, LIGHT)  # nothing is collected
    assert (pool.qos.count(0), pool.logical[0].qos.usage.requests) == (0, 35)


@pytest.mark.parametrize(
    ("fractions", "asked", "beyond"),
    [
        ((2, 1, 0), "0011", (False, True)),  # of 4 LD 0 may have 2, LD 1 only 1
        ((2, 1, 0), "0111", (False, True)),  # LD 0 leaves 1, which LD 1 may have, too: 2 in all
        ((2, 1, 1), "0011", (False, False)),  # LD 2 leaves 1
        ((1, 1, 2), "0001", (False, False)),  # LD 2 leaves 2: 3 for LD 0, and it has 3
        ((1, 1, 2), "00011", (True, False)),  # LD 2 leaves 2.5, a half for each of the others: 2.5 in all
        ((0, 0, 0), "0001", (True, True)),
        ((0, 4, 0), "01", (True, False)),
        ((0, 4, 0), "11", (False, True)),  # 255/256 of two are not two
        ((4, 0, 0), "", (False, False)),
    ],
    ids=str,
)
def test_allocated_fractions(make, fractions, asked, beyond):
    """Fractions in quarters: what is left of them goes to who wants more, in proportion (CXL 3.1 §3.3.4.3.7)."""
    pool = make(logical_devices=[256 * MIB] * 3)
    door = Door(pool.management)
    door.send(0x5407, bytes([3, 0, *(64 * one - (one == 4) for one in fractions)]))
    control(door)
    requests(pool, asked)
    assert (pool.qos.beyond_allocation(0), pool.qos.beyond_allocation(1)) == beyond


@pytest.mark.parametrize(
    ("total", "limit", "allocation", "told"),
    [
        *((LIGHT, False, over, LIGHT) for over in (False, True)),
        *((OPTIMAL, False, over, OPTIMAL) for over in (False, True)),
        *((total, True, over, MODERATE) for total in (LIGHT, OPTIMAL, MODERATE) for over in (False, True)),
        (MODERATE, False, False, OPTIMAL),
        (MODERATE, False, True, MODERATE),
        *((SEVERE, over, False, MODERATE) for over in (False, True)),
        *((SEVERE, over, True, SEVERE) for over in (False, True)),
    ],
)
def test_what_a_response_tells(door, pool, total, limit, allocation, told):
    """CXL 3.1 Table 3-32, row by row."""
    control(door, basis=4)
    door.send(0x5409, b"\1\0" + (b"\x10" if limit else b"\xff"))
    door.send(0x5407, b"\1\0" + (b"\x10" if allocation else b"\xff"))
    pool.qos.internal = total
    assert requests(pool, "01")[0] is told


def test_requests_of_hosts(make, clock):
    """Each access of a host in this process counts, at the logical device that it reaches."""
    pool = make(logical_devices=[GIB, GIB, 0, 0], cpmu=True)
    machines = []
    for device in pool.logical.values():
        bridge = HostBridge("hb0", 1)
        bridge.ports[0].plug(device)
        window = Window(1 << 32, GIB, Medium.memfd("window", GIB))
        machines.append(HostMachine([bridge], [CxlWindow(window, (bridge,))]))
        assert bridge.decoders is not None
        bridge.decoders.program(0, hpa=1 << 32, size=GIB, targets=[0])
        device.decoders.program(0, hpa=1 << 32, size=GIB, ways=1, granularity=256)
        device.dvsec.control.mem_enable = True
    machines[0].store(1 << 32, bytes(512))
    machines[0].load(1 << 32, 8)
    machines[1].load((1 << 32) + 4096, 64)
    used = [(one.qos.usage.requests, one.qos.usage.bytes) for one in pool.logical.values()]
    assert used == [(3, 520), (1, 64)]  # in parts of 256 bytes
    assert pool.logical[0].space.read(0, 512) == bytes(512)
    for one in machines:
        one.windows[0].window.medium.close()


def test_they_outlive_power(make, tmp_path):
    page = tmp_path / "pool.state"
    first = Door(make(state=page).management)
    first.send(0x5407, b"\4\0\1\2\3\4")
    first.send(0x5409, b"\2\1\x10\x20")
    again = Door(make(state=page).management)
    assert again.send(0x5406, b"\4\0") == (SUCCESS, b"\4\0\1\2\3\4")
    assert again.send(0x5408, b"\4\0") == (SUCCESS, b"\4\0\0\x10\x20\0")
