"""Get LD Info, Get and Set LD Allocations: layouts of struct cxlmi_cmd_fmapi_get_ld_info_rsp,
cxlmi_cmd_fmapi_get_ld_allocations_rsp and cxlmi_cmd_fmapi_set_ld_allocations_req of libcxlmi."""

import struct

import pytest

from tests.device.mld.conftest import GIB, MIB, Door

SUCCESS, INVALID_INPUT, UNSUPPORTED, LENGTH = 0x00, 0x02, 0x03, 0x16


def allocations(door, start=0, limit=16):
    code, payload = door.send(0x5401, bytes([start, limit]))
    assert code == SUCCESS
    enabled, granularity, first, count = payload[:4]
    assert (first, len(payload)) == (start, 4 + 16 * count)
    return enabled, granularity, list(struct.iter_unpack("<QQ", payload[4:]))


def setting(start, *pairs):
    return struct.pack("<BBxx", len(pairs), start) + b"".join(struct.pack("<QQ", *one) for one in pairs)


def test_info(door):
    assert door.send(0x5400) == (SUCCESS, struct.pack("<QHB", 6 * GIB, 4, 3))
    assert door.send(0x5400, b"\0") == (LENGTH, b"")


def test_get(door):
    assert allocations(door) == (4, 0, [(4, 0), (2, 1), (0, 0), (0, 0)])
    assert allocations(door, start=1, limit=1) == (4, 0, [(2, 1)])
    assert allocations(door, start=4) == allocations(door, start=255) == (4, 0, [])
    assert door.send(0x5401, b"\0\0") == (INVALID_INPUT, b"")
    assert door.send(0x5401, b"\0") == (LENGTH, b"")


@pytest.mark.parametrize(("granularity", "code"), [(256 * MIB, 0), (512 * MIB, 1), (GIB, 2)])
def test_granularity(make, granularity, code):
    door = Door(make(granularity=granularity, logical_devices=[GIB, 2 * GIB, 0]).management)
    unit = GIB // granularity
    assert allocations(door) == (3, code, [(unit, 0), (2 * unit, 0), (0, 0)])


def test_set_answers_with_what_then_is(door, pool):
    asked = setting(1, (0, 0), (3, 2))
    assert door.send(0x5402, asked) == (SUCCESS, asked)
    assert allocations(door) == (4, 0, [(4, 0), (0, 0), (3, 2), (0, 0)])
    assert sorted(pool.logical) == [0, 2]
    device = pool.logical[2]
    assert (device.name, device.capacity.volatile, device.capacity.persistent) == (
        "pool.2",
        768 * MIB,
        512 * MIB,
    )


def test_what_cannot_be_changes_nothing(door, pool):
    pool.logical[1].bind("rack.left.0")
    before, devices = allocations(door), dict(pool.logical)
    for asked in (
        setting(0, (17, 0)),  # more than there is
        setting(0, (4, 0), (2, 1), (11, 0)),
        setting(2, (0, 8)),
        setting(0, (1 << 63, 0)),
        setting(0, (0, 0), (0, 0)),  # the second one is bound
        setting(3, (1, 0), (1, 0)),  # there is no fifth
        setting(4, (1, 0)),
        setting(0),
    ):
        assert door.send(0x5402, asked) == (INVALID_INPUT, b"")
        assert (allocations(door), pool.logical) == (before, devices)
    assert door.send(0x5402, setting(0, (4, 0))[:-1]) == (LENGTH, b"")
    assert door.send(0x5402, b"") == (LENGTH, b"")
    assert (allocations(door), pool.logical) == (before, devices)
    same = setting(0, (4, 0), (2, 1))  # what they have, bound or not
    assert door.send(0x5402, same) == (SUCCESS, same)
    assert pool.logical == devices
