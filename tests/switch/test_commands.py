"""What a switch is, and what is done to its ports, byte by byte: struct cxlmi_cmd_fmapi_* of libcxlmi."""

import struct

import pytest

from softcxl.device.type3 import Type3
from softcxl.pci.function import Function
from softcxl.spec.pci.express import LinkSpeed
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.upstream import UpstreamPort
from tests.switch.manager import (
    INVALID_INPUT,
    LENGTH,
    SUCCESS,
    UNSUPPORTED,
    Manager,
    configuration,
)

MIB = 1 << 20
UNBOUND, UNDER_WAY, TO_PORT, TO_LD = 0, 1, 2, 3


# -- what it is -------------------------------------------------------------------------------------------------------


def test_identify(fm):
    assert fm.send(0x0001) == (SUCCESS, struct.pack("<HHHHQBB", 0x1E98, 0x0011, 0, 0, 0x5EED, 13, 0))


def test_identify_switch_device(fm, switch):
    switch.bind(0, 1, 0)
    switch.bind(1, 0, 1, 0)
    switch.ports[2].enabled = False
    active = struct.pack("<BBBB", 0, 0, 5, 2) + b"\x1b".ljust(32, b"\0") + b"\x03".ljust(32, b"\0")
    assert fm.send(0x5100) == (SUCCESS, active + struct.pack("<HHB", 5, 2, 10))


def test_a_hosts_own_door_tells_its_port(switch):
    assert Manager(switch, vcs=1).send(0x5100)[1][0] == 4


def test_response_message_limit(fm):
    assert fm.send(0x0003) == (SUCCESS, b"\x0d")
    for wanted in (13, 14, 20):
        assert fm.send(0x0004, bytes([wanted])) == (SUCCESS, b"\x0d")
    for wanted in (0, 7, 12, 21, 255):
        assert fm.send(0x0004, bytes([wanted]))[0] == INVALID_INPUT


def test_timestamp(fm, clock):
    assert fm.send(0x0301, struct.pack("<Q", 10**18)) == (SUCCESS, b"")
    clock.advance(2)
    assert fm.send(0x0300) == (SUCCESS, struct.pack("<Q", 10**18 + 2 * 10**9))


def test_command_effects_log(fm):
    """Binding and unbinding go on in the background (bit 6), and can be aborted (bit 8)."""
    told = fm.effects()
    assert {*range(1, 6), 0x100, 0x101, 0x104, 0x105, 0x300, 0x301, 0x400, 0x401} <= told.keys()
    assert {one for one in told if one >= 0x5100} == {
        *range(0x5100, 0x5104), 0x5106, 0x5107, *range(0x5200, 0x5204), *range(0x5300, 0x5303)
    }  # fmt: skip
    assert told[0x5201] == told[0x5202] == 0x140
    assert not {0x102, 0x103} & told.keys()
    for opcode in (0x102, 0x103, 0x106, 0x4000, 0x5104, 0x5105, 0x5400, 0x5700, 0xFFFF):
        assert fm.send(opcode)[0] == UNSUPPORTED


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [
        (0x0001, b"\0"), (0x0100, b""), (0x5100, b"\0"), (0x5101, b""), (0x5101, b"\2\0"), (0x5102, b"\0"),
        (0x5103, bytes(7)), (0x5103, bytes(9)), (0x5106, b""), (0x5107, bytes(2)), (0x5200, bytes(2)),
        (0x5200, b"\0\1\3\0\0"), (0x5201, bytes(5)), (0x5201, bytes(7)), (0x5202, bytes(2)), (0x5203, bytes(39)),
        (0x5300, bytes(3)), (0x5301, bytes(11)), (0x5302, bytes(15)), (0x5300, bytes(8193)),
    ],
)  # fmt: skip
def test_payloads_of_another_length(fm, opcode, payload):
    assert fm.send(opcode, payload) == (LENGTH, b"")


# -- physical ports ---------------------------------------------------------------------------------------------------


def port(number, state=3, mode=0, kind=0, width=0, speed=0, ltssm=0, flags=0, lds=16):
    """A port information block: links of x8 at 32 GT/s, in 68-byte flits."""
    return struct.pack(
        "<13BHB", number, state, mode, 0, kind, 2, 8, width, 0x1F, 5, speed, ltssm, 0, flags, lds
    )


UP = {"width": 8, "speed": 5, "ltssm": 4}
PERST, PRESENT, POWER_OFF = 1 << 1, 1 << 2, 1 << 3


def test_port_state(fm, switch, clock):
    assert fm.ports(0, 1, 2, 3, 4) == [
        port(0, mode=2, kind=4, flags=PRESENT, **UP),
        port(1, mode=2, kind=5, flags=PRESENT, **UP),
        port(2),
        port(3, state=4, lds=0),
        port(4, state=4, lds=0),
    ]
    switch.ports[0].remove()
    assert fm.ports(0) == [port(0)]
    switch.ports[2].insert(UpstreamPort("below", 2))
    assert fm.ports(2) == [port(2, mode=2, kind=3, flags=PRESENT, **UP)]
    switch.ports[0].insert(Function(vendor_id=1, device_id=2, class_code=0x020000))
    assert fm.ports(0) == [port(0, kind=1, flags=PRESENT, **UP)]


def test_a_link_is_what_both_ends_can_do(fm, switch, clock):
    """A device of x4 at 16 GT/s: widths are lanes, speeds steps from 1, 2.5 GT/s (PCIe 6.0 §7.5.3.6)."""
    narrow = Type3("narrow", volatile=256 * MIB, clock=clock)
    narrow.express.link_capabilities.max_link_width = 4
    narrow.express.link_capabilities.max_link_speed = LinkSpeed.GT_16
    switch.ports[2].insert(narrow)
    assert fm.ports(2) == [port(2, mode=2, kind=4, flags=PRESENT, width=4, speed=4, ltssm=4)]
    switch.ports[2].remove()
    narrow.close()


def test_ports_that_are_not_there(fm):
    found = fm.ports(*range(255))
    assert [one[0] for one in found] == list(range(255))
    assert [one[1] for one in found] == [3, 3, 3, 4, 4] + [0xF] * 250
    assert set(found[200][2:]) == {0}


def test_why_a_link_is_down(fm, switch):
    """The LTSSM is where the link's registers say, and the power where the slot's do."""
    ppb, there = switch.ports[0].ppb, {"mode": 2, "kind": 4}
    switch.ports[0].enabled = False
    assert fm.ports(0) == [port(0, state=0, ltssm=8, flags=PRESENT, **there)]
    switch.ports[0].enabled = True
    ppb.cut()
    assert fm.ports(0) == [port(0, ltssm=0, flags=PRESENT, **there)]
    ppb.cut(False)
    unmask = ppb.cxl.extensions.base + 0x0C
    ppb.write(7, unmask, b"\3\0")
    link, slot = ppb.express.base + 0x10, ppb.express.base + 0x18
    ppb.write(7, link, b"\x10\0")
    assert fm.ports(0) == [port(0, ltssm=8, flags=PRESENT, **there)]
    ppb.write(7, link, b"\0\0")
    ppb.write(7, 0x3E, b"\x40\0")
    assert fm.ports(0) == [port(0, ltssm=10, flags=PRESENT, **there)]
    ppb.write(7, 0x3E, b"\0\0")
    ppb.write(7, slot, b"\0\4")
    assert fm.ports(0) == [port(0, ltssm=0, flags=PRESENT | POWER_OFF, **there)]
    ppb.write(7, slot, b"\0\0")
    assert fm.ports(0) == [port(0, flags=PRESENT, **there, **UP)]


def test_perst(fm, memory):
    memory.space.write(0, b"gone")
    assert fm.send(0x5102, b"\0\0") == (SUCCESS, b"")
    assert fm.send(0x5102, b"\0\0") == (SUCCESS, b"")
    assert fm.ports(0) == [port(0, mode=2, kind=4, flags=PRESENT | PERST)]
    assert memory.read(7, 0, 4) == b"\xff" * 4
    assert fm.send(0x5102, b"\0\1") == (SUCCESS, b"")
    assert fm.send(0x5102, b"\0\1") == (SUCCESS, b"")
    assert fm.ports(0) == [port(0, mode=2, kind=4, flags=PRESENT, **UP)]
    assert memory.read(7, 0, 2) == b"\x98\x1e"
    assert memory.space.read(0, 4) == bytes(4)


def test_reset_ppb(fm, memory, switch):
    memory.dvsec.control.mem_enable = True
    switch.ports[0].ppb.write(7, 0x19, b"\5")
    assert fm.send(0x5102, b"\0\2") == (SUCCESS, b"")
    assert not memory.dvsec.control.mem_enable
    assert switch.ports[0].ppb.read(7, 0x19, 1) == b"\0"


def test_port_control_of_what_is_not_the_managers(fm, switch):
    """A port that is bound whole is the host's (CXL 3.1 §7.6.7.1.3); one with logical devices stays the manager's."""
    for given in (b"\x09\0", b"\3\0", b"\0\3", b"\0\xff"):
        assert fm.send(0x5102, given)[0] == INVALID_INPUT
    switch.bind(0, 0, 0)
    switch.bind(0, 1, 1, 0)
    assert fm.send(0x5102, b"\0\0")[0] == INVALID_INPUT
    assert fm.send(0x5103, bytes(8))[0] == INVALID_INPUT
    assert fm.send(0x5102, b"\1\0")[0] == SUCCESS
    assert fm.ports(1) == [port(1, mode=2, kind=5, flags=PRESENT | PERST)]


def test_ppb_configuration_request(fm, switch):
    assert fm.send(0x5103, configuration(0, 0)) == (SUCCESS, struct.pack("<HH", 0x1E98, 0x0012))
    assert fm.send(0x5103, configuration(0, 0, 0x1)) == (SUCCESS, struct.pack("<HH", 0x1E98, 0x0012))
    assert fm.send(0x5103, configuration(2, 0x100))[1][:2] == switch.ports[2].ppb.read(7, 0x100, 2)
    assert fm.send(0x5103, configuration(0, 0x18, 0b0110, 0xAABBCCDD)) == (SUCCESS, bytes(4))
    assert fm.send(0x5103, configuration(0, 0x18)) == (SUCCESS, b"\0\xcc\xbb\0")
    assert fm.send(0x5103, configuration(0, 0x18, 0, 0xFFFFFFFF)) == (SUCCESS, bytes(4))
    assert fm.send(0x5103, configuration(0, 0x18)) == (SUCCESS, b"\0\xcc\xbb\0")
    for given in (configuration(0, 2), configuration(5, 0), configuration(3, 0)):
        assert fm.send(0x5103, given) == (INVALID_INPUT, b"")


# -- domains ----------------------------------------------------------------------------------------------------------


def test_domain_validation(fm, switch):
    """A host sets its secret once, by its own door; the manager reads it; a reset of the upstream port forgets it."""
    tenant = switch.virtual[1].tenant = Hierarchy("right", 2)
    host, secret = Manager(switch, vcs=1), bytes(range(16))
    assert host.send(0x5104) == fm.send(0x5106, b"\1") == (SUCCESS, b"\0")
    assert fm.send(0x5107, b"\1") == (INVALID_INPUT, b"")
    assert host.send(0x5105, secret) == (SUCCESS, b"")
    assert host.send(0x5105, secret)[0] == INVALID_INPUT
    assert host.send(0x5104) == fm.send(0x5106, b"\1") == (SUCCESS, b"\1")
    assert fm.send(0x5106, b"\0") == (SUCCESS, b"\0")
    assert fm.send(0x5107, b"\1") == (SUCCESS, secret)
    tenant.upstream.reset()
    assert host.send(0x5104) == (SUCCESS, b"\0")
    for opcode in (0x5106, 0x5107):
        assert fm.send(opcode, b"\2")[0] == INVALID_INPUT
    host.door.close()
