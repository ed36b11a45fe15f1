"""The FM-owned LD: its configuration space (MLD DVSEC, CXL 3.1 §8.1.10), generic commands and events; layouts of
struct cxlmi_cmd_identify_rsp, cxlmi_cmd_bg_op_status_rsp, cxlmi_cmd_get_supported_logs_rsp of libcxlmi."""

import struct

import pytest

from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import GeneralMediaEvent
from softcxl.testing.driver import CONFIG, Driver
from softcxl.wire import Reset
from tests.device.mld.conftest import MIB, Door

SUCCESS, INPUT, UNSUPPORTED, HANDLE, LENGTH, LOG = 0x00, 0x02, 0x03, 0x0E, 0x16, 0x17
CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")
COMMANDS = {
    *(0x0001, 0x0002, 0x0003, 0x0004, 0x0005),
    *(0x0100, 0x0101, 0x0104, 0x0105, 0x0300, 0x0301, 0x0400, 0x0401),
    *(0x5300, *range(0x5400, 0x540A)),
}


def mld_dvsec(owned):
    """Where the DVSEC with ID 9 of vendor 1E98h is, by the list of extended capabilities."""
    at = 0x100
    while at:
        header, one, two = struct.unpack("<III", owned.read(CONFIG, at, 12))
        if (header & 0xFFFF, one & 0xFFFF, two & 0xFFFF) == (0x23, 0x1E98, 9):
            assert one >> 20 == 0x10
            return at
        at = header >> 20
    raise LookupError("no MLD DVSEC")


def test_identify(door):
    assert door.send(0x0001) == (SUCCESS, struct.pack("<HHHHQBB", 0x1E98, 1, 0, 0, 0xC0FFEE01, 13, 3))
    assert door.send(0x0002) == (SUCCESS, bytes(8))
    assert door.send(0x0003) == (SUCCESS, b"\x0d")
    assert door.send(0x0004, b"\x0d") == (SUCCESS, b"\x0d")
    assert door.send(0x0004, b"\x0c") == (INPUT, b"")
    assert door.send(0x0005) == (SUCCESS, b"")


def test_command_effects(door):
    code, listed = door.send(0x0400)
    assert (code, listed) == (SUCCESS, struct.pack("<H6x16sI", 1, CEL, 4 * len(COMMANDS)))
    entries = dict(
        struct.iter_unpack("<HH", door.send(0x0401, CEL + struct.pack("<II", 0, 4 * len(COMMANDS)))[1])
    )
    assert set(entries) == COMMANDS
    at_once, data, policy = 1 << 1, 1 << 2, 1 << 3  # nothing waits for a reset
    assert [entries[opcode] for opcode in (0x5402, 0x5404, 0x5407, 0x5409)] == [
        at_once | data,
        policy,
        at_once,
        at_once,
    ]
    assert not any(entries[opcode] for opcode in (0x5300, 0x5400, 0x5401, 0x5403, 0x5405))
    assert door.send(0x0401, CEL + struct.pack("<II", 4, 4))[1][:2] == b"\2\0"
    assert door.send(0x0401, bytes(16) + struct.pack("<II", 0, 4)) == (LOG, b"")
    for offset, length in ((0, 4 * len(COMMANDS) + 1), (4 * len(COMMANDS), 1), (1 << 31, 1 << 31)):
        assert door.send(0x0401, CEL + struct.pack("<II", offset, length)) == (INPUT, b"")


@pytest.mark.parametrize(
    "opcode", [0x0102, 0x0103, 0x0106, 0x0200, 0x4000, 0x4300, 0x4700, 0x5100, 0x5200, 0x5301, 0x5500, 0x5501]
)
def test_what_it_does_not_have(door, opcode):
    assert door.send(opcode) == (UNSUPPORTED, b"")


def test_events(pool, door):
    other = Door(pool.management)
    assert door.send(0x0105, b"\x02\0") == (SUCCESS, b"\x02\0")
    assert door.send(0x0105, b"\x20\0") == (INPUT, b"")
    for _ in range(3):
        assert pool.record_event(EventLog.WARNING, GeneralMediaEvent())
    assert (door.sent, other.sent) == ([b"\x02\0"], [])
    code, payload = door.send(0x0100, b"\1")
    assert (code, payload[20:22], len(payload)) == (SUCCESS, b"\3\0", 32 + 3 * 128)
    handles = [struct.unpack_from("<H", payload, 32 + 128 * number + 20)[0] for number in range(3)]
    assert door.send(0x0101, struct.pack("<BBBxxxH", 1, 0, 1, handles[1])) == (HANDLE, b"")
    assert other.send(0x0101, struct.pack("<BBBxxxHHH", 1, 0, 3, *handles)) == (SUCCESS, b"")
    assert door.send(0x0100, b"\1")[1][20:22] == b"\0\0"
    assert Driver(pool.logical[0]).send(0x0100, b"\1")[1][20:22] == b"\0\0"


def test_timestamp(door, clock):
    assert door.send(0x0301, struct.pack("<Q", 10**9)) == (SUCCESS, b"")
    clock.advance(2)
    assert door.send(0x0300) == (SUCCESS, struct.pack("<Q", 3 * 10**9))


def test_configuration_space(pool):
    owned = pool.pool.fm_owned
    assert struct.unpack("<HH", owned.read(CONFIG, 0, 4)) == (0x1E98, 1)
    at = mld_dvsec(owned)
    assert struct.unpack("<HH", owned.read(CONFIG, at + 0x0A, 4)) == (4, 0)
    assert owned.regions()[0] is None
    assert owned.irqs() == [0] * 5
    capabilities, offset = set(), owned.read(CONFIG, 0x34, 1)[0]
    while offset:
        kind, offset = owned.read(CONFIG, offset, 2)
        capabilities.add(kind)
    assert capabilities == {0x01, 0x10}  # power management and PCI Express: it has no interrupts


def test_an_error_of_the_whole_device(pool):
    """Every logical device has it, and nobody else's error (CXL 3.1 Table 2-2)."""
    pool.error("completion_timeout", protocol="pcie")
    assert [device.aer.uncorrectable_status.completion_timeout for device in pool.logical.values()] == [
        True,
        True,
    ]
    pool.logical[0].inject.error("mem_data_ecc")
    status = [device.ras.registers.uncorrectable_status.mem_data_ecc for device in pool.logical.values()]
    assert status == [True, False]


def test_hot_reset_vector(pool):
    owned = pool.pool.fm_owned
    at = mld_dvsec(owned)
    for device in pool.logical.values():
        Driver(device).commit(0, 1 << 32, 256 * MIB)
    owned.write(CONFIG, at + 0x0C, b"\2\0")
    assert [one.decoders.committed for one in pool.logical.values()] == [True, False]
    assert owned.read(CONFIG, at + 0x0C, 2) == b"\0\0"
    owned.write(CONFIG, at + 0x0C, b"\xff\xff")  # those without memory, and those that are not there
    assert not pool.logical[0].decoders.committed
    owned.reset(Reset.COLD)
    assert owned.read(CONFIG, at + 0x0A, 2) == b"\4\0"


def test_doors_are_closed(pool, door):
    door.send(0x0105, b"\x0f\0")
    door.cci.close()
    pool.record_event(EventLog.WARNING, GeneralMediaEvent())
    assert (door.sent, pool.pool.fm_owned.doors) == ([], [])


def test_two_at_once(pool, door):
    """Each fabric manager has its own policy; what one changes, the other sees."""
    other = Door(pool.management)
    asked = struct.pack("<BBxxQQ", 1, 2, 1, 0)
    assert other.send(0x5402, asked) == (SUCCESS, asked)
    assert door.send(0x5401, b"\2\1")[1] == struct.pack("<BBBBQQ", 4, 0, 2, 1, 1, 0)
    assert door.send(0x5400, bytes(8193)) == (LENGTH, b"")
