"""Multi-headed devices: struct cxlmi_cmd_fmapi_get_multiheaded_info_rsp, cxlmi_cmd_fmapi_get_head_info_blkfmt of
libcxlmi; a head of one logical device is an SLD to whoever is at its link."""

import struct

import pytest

from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.physical import PhysicalSwitch
from softcxl.testing.driver import Machine
from softcxl.wire import Reset
from tests.device.mld.conftest import GIB, MIB, Door
from tests.device.mld.test_owner import CEL
from tests.device.mld.test_tunnels import message, through, tunnel

SUCCESS, INPUT, UNSUPPORTED, LENGTH = 0x00, 0x02, 0x03, 0x16
L0, DETECT = 4, 0
WIDTH, SPEEDS, SPEED = 8, 0x1F, 5  # the register resets of a function: x8, 2.5 to 32 GT/s


def pool_info(start, *heads, count, lds=4):
    return struct.pack("<BBxxBBxx", lds, count, start, len(heads)) + bytes(heads)


def test_multi_headed_info(make):
    door = Door(make(heads=2).management)
    assert door.send(0x5500, b"\0\xff") == (SUCCESS, pool_info(0, 0, 0, 1, 1, count=2))
    assert door.send(0x5500, b"\1\2") == (SUCCESS, pool_info(1, 0, 1, count=2))
    for asked in (b"\4\1", b"\xff\xff", b"\0\0"):
        assert door.send(0x5500, asked) == (INPUT, b"")
    assert door.send(0x5500, b"\0") == (LENGTH, b"")


def test_an_ld_map_of_ones_own(make):
    door = Door(make(heads=3, ld_map=[2, 0, 1, 2]).management)
    assert door.send(0x5500, b"\0\4") == (SUCCESS, pool_info(0, 2, 0, 1, 2, count=3))


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 0},
        {"heads": 5},
        {"heads": 2, "ld_map": [0, 0, 0, 0]},
        {"heads": 2, "ld_map": [0, 1, 2, 0]},
        {"heads": 2, "ld_map": [0, 1]},
    ],
    ids=str,
)
def test_heads_that_cannot_be(make, options):
    with pytest.raises(ValueError, match=r"possible|LD map"):
        make(**options)


def test_more_than_sixteen_of_them(make):
    """Each head has sixteen at most; the pool has as many as heads have."""
    with pytest.raises(ValueError, match="head 0 has more than 16 logical devices"):
        make(logical_devices=[0] * 17)
    pool = make(logical_devices=[0] * 32, heads=2)
    pool.allocate({31: 256 * MIB})
    assert pool.heads[1].function(15) is pool.logical[31]
    door = Door(pool.management)
    assert door.send(0x5500, b"\x0e\4") == (SUCCESS, pool_info(14, 0, 0, 1, 1, count=2, lds=32))
    assert door.send(0x5401, b"\x1f\1")[1] == struct.pack("<BBBBQQ", 32, 0, 31, 1, 1, 0)


def test_head_info(make):
    pool = make(heads=4)
    door = Door(pool.management)

    def heads(start, count):
        code, payload = door.send(0x5501, bytes([start, count]))
        assert (code, payload[1:4]) == (SUCCESS, bytes(3))
        found = list(struct.iter_unpack("9B", payload[4:]))
        assert payload[0] == len(found)
        return found

    down = (WIDTH, 0, SPEEDS, SPEED, 0, DETECT, 0, 0)
    up = (WIDTH, WIDTH, SPEEDS, SPEED, SPEED, L0, 0, 0)
    assert heads(0, 4) == [(number, *down) for number in range(4)]
    pool.heads[2].link_changed(up=True)
    pool.logical[1].attach(Machine())
    pool.heads[3].link_changed(up=False, perst=True)
    assert heads(1, 2) == [(1, *up), (2, *up)]
    assert heads(3, 1) == [(3, *down[:-1], 2)]
    pool.logical[1].detach()
    assert heads(1, 0) == []
    for asked in (b"\4\1", b"\xff\1", b"\0\5", b"\3\2", b"\4\0", b"\0\xff"):
        assert door.send(0x5501, asked) == (INPUT, b"")


def test_heads_in_ports_of_switches(make, clock):
    """Two switches have a head each: bound through one, an LD is not there for the other; each sees its own link."""
    pool = make(heads=2, logical_devices=[256 * MIB] * 4)
    switches = [PhysicalSwitch(name, ports=2, virtual=[("left", 2)], clock=clock) for name in ("one", "two")]
    for switch, head in zip(switches, pool.heads, strict=True):
        switch.ports[1].insert(head)
    door = Door(pool.management)

    def links():
        return [row[6:9] for row in struct.iter_unpack("9B", door.send(0x5501, b"\0\2")[1][4:])]

    assert links() == [(L0, 0, 0), (L0, 0, 0)]
    switches[1].bind(0, 0, port=1, ld=1)
    assert [device.holder for device in pool.logical.values()] == [None, None, None, "two.left.0"]
    switches[0].ports[1].assert_perst()
    assert links() == [(DETECT, 0, 2), (L0, 0, 0)]
    switches[0].ports[1].deassert_perst()
    switches[1].unbind(0, 0)
    switches[1].ports[1].remove()
    assert links() == [(L0, 0, 0), (DETECT, 0, 0)]
    assert not any(device.in_use for device in pool.logical.values())


def test_logical_devices_count_from_0_at_each_head(make):
    pool = make(heads=2, logical_devices=[GIB, 0, 512 * MIB, 256 * MIB])
    assert pool.heads[1].function(0) is pool.logical[2]
    assert pool.heads[1].function(1) is pool.logical[3]
    assert pool.heads[0].function(1) is pool.heads[1].function(2) is pool.heads[1].function(None) is None
    assert list(pool.heads[1].logical.values()) == [pool.logical[2], pool.logical[3]]
    door = Door(pool.heads[1].management)
    assert door.send(0x5400)[1][8:10] == b"\2\0"
    assert door.send(0x5401, b"\0\xff")[1] == struct.pack("<BBBBQQQQ", 2, 0, 0, 2, 2, 0, 1, 0)
    asked = struct.pack("<BBxxQQ", 1, 1, 3, 0)
    assert door.send(0x5402, asked) == (SUCCESS, asked)
    assert pool.logical[3].capacity.volatile == 768 * MIB
    assert door.send(0x5402, struct.pack("<BBxxQQ", 1, 2, 0, 0)) == (INPUT, b"")
    assert struct.unpack_from("<16xQ", through(door, 1, 0x4000)[1]) == (3,)
    assert door.send(0x5500, b"\0\1") == (UNSUPPORTED, b"")  # that is the pool's
    door.send(0x5407, b"\2\0\x40\x20")
    assert Door(pool.management).send(0x5406, b"\4\0") == (SUCCESS, b"\4\0\0\0\x40\x20")


def test_a_head_that_is_a_single_logical_device(make):
    pool = make(heads=4)
    head = pool.heads[1]
    door = Door(head.management)
    assert head.function() is pool.logical[1]
    assert struct.unpack_from("<16xQQQ", door.send(0x4000)[1]) == (3, 2, 1)
    assert door.send(0x5400) == (UNSUPPORTED, b"")
    size = dict(struct.iter_unpack("<16sI", door.send(0x0400)[1][8:]))[CEL]
    listed = dict(struct.iter_unpack("<HH", door.send(0x0401, CEL + struct.pack("<II", 0, size))[1]))
    assert {0x0001, 0x4000, 0x5300} < set(listed)
    assert 0x5400 not in listed
    assert door.send(0x5300, tunnel(0, message(0x4000))) == (INPUT, b"")
    asked = struct.pack("<BBxxQQ", 1, 1, 5, 0)
    assert through(door, 0, 0x5402, asked, target=1) == (SUCCESS, asked)
    assert struct.unpack_from("<16xQQQ", door.send(0x4000)[1]) == (5, 5, 0)
    assert Door(pool.heads[2].management).send(0x4000) == (UNSUPPORTED, b"")  # it has no memory


def test_in_two_machines(make):
    """Each head in a root port of another host: what one does, the other does not see."""
    pool = make(heads=2, logical_devices=[GIB, GIB])
    machines = []
    for number, head in enumerate(pool.heads):
        bridge = HostBridge(f"hb{number}", 1)
        bridge.ports[0].plug(head.function())
        machines.append(HostMachine([bridge]))
    one, other = pool.logical[0], pool.logical[1]
    one.space.write(0, b"one")
    other.space.write(0, b"other")
    machines[0].reset(Reset.COLD)  # the device has power from the other head
    assert (one.space.read(0, 3), other.space.read(0, 5)) == (b"one", b"other")
    assert [
        row[6] for row in struct.iter_unpack("9B", Door(pool.management).send(0x5501, b"\0\2")[1][4:])
    ] == [L0, L0]
    with pytest.raises(ValueError, match="plugged into a machine"):
        pool.allocate({0: 0})
    pool.power_cycle()
    assert (one.space.read(0, 3), other.space.read(0, 5)) == (bytes(3), bytes(5))
