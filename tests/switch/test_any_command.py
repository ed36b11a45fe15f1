"""Whatever a fabric manager sends: an answer of the standard's, never a failure, and nothing bound by half."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm import mld_port, switch, vcs
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.physical import PhysicalSwitch
from tests.switch.manager import INTERNAL, Manager, request

MIB = 1 << 20

opcodes = st.sampled_from(
    [
        *(one.opcode for module in (switch, vcs, mld_port) for one in module.COMMANDS),
        *(0x0001, 0x0002, 0x0003, 0x0004, 0x0005, 0x0100, 0x0101, 0x0104, 0x0105, 0x0300, 0x0301),
        *(0x0400, 0x0401, 0x0402, 0x0405),
    ]
)
small = st.integers(0, 5) | st.just(0xFF)
few = st.lists(small, max_size=48).map(bytes)  # IDs that there are, mostly
likely = st.builds(
    lambda vcs, vppb, port, ld: struct.pack("<BBBxH", vcs, vppb, port, ld),
    *(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)),
    st.sampled_from([0, 1, 2, 0xFFFF]),
)
tunnelled = st.builds(
    lambda port, opcode, payload: (
        struct.pack("<BBH", port, 0, len(request(opcode, payload))) + request(opcode, payload)
    ),
    *(small, st.integers(0, 0xFFFF) | opcodes, few),
)
commands = st.lists(
    st.tuples(opcodes, few | st.binary(max_size=64))
    | st.tuples(st.just(0x5201), likely)
    | st.tuples(st.just(0x5300), tunnelled)
    | st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=16)),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(commands=commands)
def test_any_commands(commands):
    clock = ManualClock()
    memory = Type3("mem0", volatile=256 * MIB, clock=clock)
    pool = MultiLogicalDevice(
        "pool", volatile=1024 * MIB, logical_devices=[256 * MIB, 256 * MIB, 0], clock=clock
    )
    rack = PhysicalSwitch("rack", ports=3, virtual=[("left", 3), ("right", 2)], clock=clock)
    rack.ports[0].insert(memory)
    rack.ports[1].insert(pool)
    rack.virtual[1].tenant = Hierarchy("right", 2)
    fm = Manager(rack, vcs=1)
    known = set(ReturnCode)
    for opcode, payload in commands:
        code, answer = fm.send(opcode, payload)
        assert code in known
        assert code != INTERNAL, (f"{opcode:04X}h", payload.hex())
        assert code in (ReturnCode.SUCCESS, ReturnCode.BACKGROUND_STARTED) or answer == b""
        assert len(answer) <= fm.door.payload_max
        clock.advance(0)
        consistent(rack, pool)
    fm.door.close()
    rack.close()
    for virtual in rack.virtual.values():
        for vppb in virtual.vppbs:
            vppb.pull()
    pool.close()
    memory.close()


def consistent(rack, pool):
    """Each binding has two ends, and what a logical device knows of its own is one of them."""
    bound = {}
    for number, port in rack.ports.items():
        for ld, vppb in port.bindings.items():
            assert (vppb.port, vppb.ld, vppb.operation) == (port, ld, None)
            bound[vppb.name] = number, ld
    for virtual in rack.virtual.values():
        for vppb in virtual.vppbs:
            assert (vppb.port is not None) == (vppb.name in bound)
            assert vppb.function is None or vppb.name in bound
    for ld, device in pool.logical.items():
        assert device.holder is None or bound[device.holder] == (1, ld)
