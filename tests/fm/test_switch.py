"""A switch through the library: what goes out, and what is made of what comes back, byte for byte."""

import asyncio
import struct
from uuid import UUID

import pytest

from softcxl.fm.errors import BadAnswer, CommandRefused, FmError, NoAnswer
from softcxl.fm.switch import Switch
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.switch import PortConfigurationState, PortOperation
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption, VcsState
from softcxl.wire import RangeError
from tests.fm.scripted import switch_of


def identity(ports=4, vcss=2, vppbs=6, bound=1):
    # libcxlmi cxlmi_cmd_fmapi_identify_sw_device_rsp
    active = (1 << ports) - 1
    return struct.pack(
        "<BxBB32s32sHHB",
        3,
        ports,
        vcss,
        active.to_bytes(32, "little"),
        ((1 << vcss) - 1).to_bytes(32, "little"),
        vppbs,
        bound,
        8,
    )


def port(number, state=3):
    # QEMU cxl_fmapi_port_state_info_block: DSP, 256B flits, SLD, x16 at 32 GT/s, L0
    return bytes([number, state, 3, 0, 4, 0x0F, 16, 16, 0x1F, 5, 5, 4, 0, 4, 0, 0])


def ports(payload):
    assert payload[0] == len(payload) - 1
    return 0, struct.pack("<B3x", payload[0]) + b"".join(map(port, payload[1:]))


def test_a_switch_says_what_it_is():
    switch, link = switch_of({0x5100: identity()}, Switch)
    found = asyncio.run(switch.identify_switch())
    assert (found.ingress_port, found.port_count, found.vcs_count) == (3, 4, 2)
    assert (found.vppb_count, found.bound_vppb_count, found.hdm_decoder_count) == (6, 1, 8)
    assert link.asked == [(0x5100, b"")]


def test_all_ports():
    switch, link = switch_of({0x5100: identity(), 0x5101: ports}, Switch)
    found = asyncio.run(switch.ports())
    assert [one.port for one in found] == [0, 1, 2, 3]
    assert found[2].configuration.state is PortConfigurationState.DSP
    assert link.inputs(0x5101) == ["0400010203"]


def test_ports_that_are_active_beyond_the_count_are_asked_for_too():
    active = bytearray(identity(ports=2))
    active[4 + 31] = 0x80  # port 255
    switch, link = switch_of({0x5100: bytes(active), 0x5101: ports}, Switch)
    assert [one.port for one in asyncio.run(switch.ports())] == [0, 1, 255]
    assert link.inputs(0x5101) == ["030001ff"]


def test_an_endpoint_of_small_messages_is_asked_for_few_ports_at_a_time():
    # 2^8 bytes less a header of 12 and 4 of the payload are 15 ports of 16 bytes
    handlers = {0x5100: identity(ports=32), 0x5101: ports, 0x0003: b"\x08"}
    switch, link = switch_of(handlers | {0x0001: struct.pack("<HHHHQBB", 1, 2, 3, 4, 5, 20, 0)}, Switch)
    assert [one.port for one in asyncio.run(switch.ports())] == list(range(32))
    assert [len(one) // 2 - 1 for one in link.inputs(0x5101)] == [15, 15, 2]


def test_a_port_that_nobody_asked_for_is_a_lie():
    switch, _ = switch_of({0x5101: struct.pack("<B3x", 1) + port(9)}, Switch)
    with pytest.raises(
        BadAnswer, match=r"^endpoint: Get Physical Port State \(5101h\): ports 9, which were not asked for$"
    ):
        asyncio.run(switch.ports([1]))


def vcs(number, vppbs, start, limit, state=1):
    """A VCS information block as libcxlmi has it: of vPPB n port n and LD n are told."""
    shown = range(start, min(start + limit, vppbs))
    return bytes([number, state, 10 + number, vppbs]) + b"".join(bytes([3, n, n % 16, 0]) for n in shown)


def switches(sizes):
    def handle(payload):
        start, limit, count, *ids = payload
        assert count == len(ids)
        blocks = [
            vcs(one, sizes[one], start, limit) if one in sizes else bytes([one, 0xFF, 0, 0]) for one in ids
        ]
        return 0, struct.pack("<B3x", count) + b"".join(blocks)

    return handle


def test_all_virtual_switches_with_all_vppbs():
    switch, link = switch_of({0x5100: identity(), 0x5200: switches({0: 2, 1: 4})}, Switch)
    left, right = asyncio.run(switch.virtual_switches())
    assert (left.id, left.state, left.usp) == (0, VcsState.ENABLED, 10)
    assert [(one.status, one.port, one.ld) for one in left.vppbs] == [(3, 0, 0), (3, 1, 1)]
    assert left.vppbs[0].status == BindingStatus.BOUND_LD
    assert (right.id, len(right.vppbs)) == (1, 4)
    # limit 255, as jack asks for; three such switches fit in 4 KiB
    assert link.inputs(0x5200) == ["00ff020001"]


def test_vppbs_come_by_pages():
    # 256 - 12 - 4 bytes hold one switch of 59 vPPBs: 4 + 59 * 4 = 240
    handlers = {
        0x5100: identity(),
        0x5200: switches({0: 130, 1: 1}),
        0x0003: b"\x08",
        0x0001: bytes(16) + b"\x0c\0",
    }
    switch, link = switch_of(handlers, Switch)
    left, right = asyncio.run(switch.virtual_switches())
    assert [one.port for one in left.vppbs] == list(range(130))
    assert len(right.vppbs) == 1
    assert link.inputs(0x5200) == ["003b0100", "3b3b0100", "763b0100", "003b0101"]


def test_what_is_named_twice_is_asked_for_once():
    switch, link = switch_of({0x5200: switches({0: 1}), 0x5101: ports}, Switch)
    assert len(asyncio.run(switch.virtual_switches([0, 0]))) == 1
    assert len(asyncio.run(switch.ports([3, 3, 1]))) == 2
    assert link.inputs(0x5200) == ["00ff0100"]
    assert link.inputs(0x5101) == ["020301"]


def test_a_virtual_switch_that_there_is_not():
    switch, _ = switch_of({0x5200: switches({0: 1})}, Switch)
    (found,) = asyncio.run(switch.virtual_switches([7]))
    assert (found.id, found.state, found.vppbs) == (7, VcsState.INVALID_VCS_ID, [])


def test_an_endpoint_that_tells_of_a_virtual_switch_twice():
    twice = struct.pack("<B3x", 2) + 2 * vcs(0, 1, 0, 255)
    switch, _ = switch_of({0x5200: twice}, Switch)
    for ask in (switch.virtual_switches([0]), switch.vppb(0, 0)):
        with pytest.raises(BadAnswer, match="virtual switch 0, more than once"):
            asyncio.run(ask)


@pytest.mark.parametrize(
    ("blocks", "says"),
    [
        (vcs(0, 3, 0, 255)[:-2], "2 bytes given, at least 4 needed"),
        (vcs(0, 3, 0, 255) + b"\0", "1 bytes after what it says there is"),
        (vcs(5, 3, 0, 255), "virtual switch 5, which was not asked for"),
        (b"", "0 bytes given, at least 4 needed"),
    ],
)
def test_an_endpoint_that_lies_about_its_virtual_switches(blocks, says):
    switch, _ = switch_of({0x5200: struct.pack("<B3x", 1) + blocks}, Switch)
    with pytest.raises(BadAnswer, match=says):
        asyncio.run(switch.virtual_switches([0]))


def background(percent, opcode=0x5201, code=0, running=True):
    # status: bit 0 in progress, bits 7:1 percent
    return struct.pack("<BxHHH", running | percent << 1, opcode, code, 0)


def test_a_bind_that_is_done_at_once():
    switch, link = switch_of({0x5201: b""}, Switch)
    assert asyncio.run(switch.bind(1, 2, 3, 4))
    assert link.inputs(0x5201) == ["010203000400"]
    assert [opcode for opcode, _ in link.asked] == [0x5201]


def test_a_bind_to_a_port_whose_device_is_no_mld_names_no_ld():
    switch, link = switch_of({0x5201: b""}, Switch)
    asyncio.run(switch.bind(1, 2, 3))
    assert link.inputs(0x5201) == ["01020300ffff"]


def test_a_bind_in_the_background_is_waited_for():
    states = [background(0), background(40), background(99), background(100, running=False)]
    switch, _ = switch_of({0x5201: ReturnCode.BACKGROUND_STARTED, 0x0002: states}, Switch)
    seen: list[int] = []
    assert asyncio.run(switch.bind(0, 0, 1, progress=seen.append))
    assert seen == [0, 40, 99, 100]


def test_a_bind_need_not_be_waited_for():
    switch, link = switch_of({0x5201: ReturnCode.BACKGROUND_STARTED}, Switch)
    assert not asyncio.run(switch.bind(0, 0, 1, wait=False))
    assert [opcode for opcode, _ in link.asked] == [0x5201]


def test_a_bind_that_fails_in_the_background():
    states = [background(0), background(60, code=0x05, running=False)]
    switch, _ = switch_of({0x5201: ReturnCode.BACKGROUND_STARTED, 0x0002: states}, Switch)
    with pytest.raises(CommandRefused) as refused:
        asyncio.run(switch.bind(0, 1, 2, 3))
    assert refused.value.code == ReturnCode.RETRY_REQUIRED
    assert str(refused.value) == (
        "endpoint: Bind vPPB (5201h) in the background of vcs 0, vppb 1, port 2, ld 3: Retry Required (0005h)"
    )


def test_a_background_operation_whose_end_nobody_saw():
    switch, _ = switch_of(
        {0x5201: ReturnCode.BACKGROUND_STARTED, 0x0002: background(1, opcode=0x4400)}, Switch
    )
    with pytest.raises(
        NoAnswer, match=r"how Bind vPPB \(5201h\) has ended is not known: Sanitize \(4400h\) has begun"
    ):
        asyncio.run(switch.bind(0, 0, 1))


@pytest.mark.parametrize(
    "ended",
    [background(100, running=False), background(100, code=5, running=False), background(3, opcode=0x5202)],
    ids=["ours", "another bind that failed", "another unbind"],
)
def test_what_counts_is_what_the_vppb_is(ended):
    # the one background operation may be another fabric manager's by the time that we look
    told = struct.pack("<B3x", 1) + bytes([0, 1, 10, 4]) + bytes([3, 2, 1, 0])
    switch, link = switch_of({0x5201: ReturnCode.BACKGROUND_STARTED, 0x0002: ended, 0x5200: told}, Switch)
    assert asyncio.run(switch.bind(0, 3, 2, 1))
    assert link.inputs(0x5200) == ["03010100"]


@pytest.mark.parametrize(
    ("entry", "error", "says"),
    [
        (bytes([0, 0, 0xFF, 0]), NoAnswer, "is not as it was asked to be: somebody has changed it since"),
        (bytes([3, 2, 0, 0]), NoAnswer, "is not as it was asked to be"),
        (bytes([2, 9, 0xFF, 0]), NoAnswer, "is not as it was asked to be"),
    ],
)
def test_a_success_that_does_not_show(entry, error, says):
    told = struct.pack("<B3x", 1) + bytes([0, 1, 10, 4]) + entry
    states = background(100, running=False)
    switch, _ = switch_of({0x5201: ReturnCode.BACKGROUND_STARTED, 0x0002: states, 0x5200: told}, Switch)
    with pytest.raises(error, match=says):
        asyncio.run(switch.bind(0, 3, 2, 1))


def test_an_unbinding_that_the_host_did_not_allow():
    told = struct.pack("<B3x", 1) + bytes([0, 1, 10, 4]) + bytes([3, 2, 1, 0])
    states = background(100, opcode=0x5202, code=0x12, running=False)
    switch, _ = switch_of({0x5202: ReturnCode.BACKGROUND_STARTED, 0x0002: states, 0x5200: told}, Switch)
    with pytest.raises(CommandRefused) as refused:
        asyncio.run(switch.unbind(0, 3))
    assert refused.value.code == ReturnCode.ABORTED


def test_a_vppb():
    switch, _ = switch_of({0x5200: switches({0: 4})}, Switch)
    assert asyncio.run(switch.vppb(0, 2)).port == 2
    for nowhere in ((0, 4), (5, 0)):
        with pytest.raises(FmError, match="there is no vPPB {} of VCS {}".format(*reversed(nowhere))):
            asyncio.run(switch.vppb(*nowhere))


def test_a_bind_that_is_refused():
    switch, _ = switch_of({0x5201: ReturnCode.INVALID_INPUT}, Switch)
    with pytest.raises(CommandRefused) as refused:
        asyncio.run(switch.bind(0, 9, 2, 3))
    assert refused.value.code == ReturnCode.INVALID_INPUT
    assert refused.value.exit_code == 1
    assert str(refused.value) == (
        "endpoint: Bind vPPB (5201h) of vcs 0, vppb 9, port 2, ld 3: Invalid Input (0002h)"
    )


def test_what_fits_no_request_is_not_sent():
    switch, link = switch_of({0x5201: b""}, Switch)
    with pytest.raises(RangeError, match="300 does not fit 8 bits"):
        asyncio.run(switch.bind(0, 0, 300))
    assert link.asked == []


@pytest.mark.parametrize(
    ("option", "sent"), [(None, "010201"), (UnbindOption.WAIT_FOR_LINK_DOWN, "010200"), (2, "010202")]
)
def test_unbinding(option, sent):
    switch, link = switch_of({0x5202: b""}, Switch)
    asyncio.run(switch.unbind(1, 2) if option is None else switch.unbind(1, 2, UnbindOption(option)))
    assert link.inputs(0x5202) == [sent]


def test_an_aer_event():
    switch, link = switch_of({0x5203: b""}, Switch)
    asyncio.run(switch.generate_aer_event(1, 2, 20, uncorrectable=True, header=bytes(range(16))))
    assert link.inputs(0x5203) == ["01020000" + "14000080" + bytes(range(16)).hex() + "00" * 16]


def test_port_control():
    switch, link = switch_of({0x5102: b""}, Switch)
    for operation in PortOperation:
        asyncio.run(switch.control_port(5, operation))
    assert link.inputs(0x5102) == ["0500", "0501", "0502"]


def space(payload):
    """Configuration space whose bytes are their own offsets, modulo 256, as jack's header of a request has it."""
    number, register, enables = payload[0], payload[1] | (payload[2] & 0xF) << 8, payload[2] >> 4
    assert number == 6
    assert register % 4 == 0
    return 0, bytes((register + at) % 256 if enables >> at & 1 else 0xEE for at in range(4))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 4), (0x10, 1), (0x13, 1), (0x102, 8), (0xFFC, 4), (0, 4096)]
)
def test_reading_configuration_space(offset, size):
    switch, _ = switch_of({0x5103: space, 0x5301: space}, Switch)
    wanted = bytes((offset + at) % 256 for at in range(size))
    assert asyncio.run(switch.read_configuration(6, offset, size)) == wanted
    assert asyncio.run(switch.read_configuration(6, offset, size, ld=2)) == wanted


def test_writing_configuration_space():
    switch, link = switch_of({0x5103: b"", 0x5301: bytes(4)}, Switch)
    asyncio.run(switch.write_configuration(6, 0x106, b"abc"))
    # two bytes of the dword at 104h, one of that at 108h; bit 7 of the third byte says write
    assert link.inputs(0x5103) == ["06" + "04c180" + "00006162", "06" + "081180" + "63000000"]
    asyncio.run(switch.write_configuration(6, 4, b"\1\2\3\4", ld=0x102))
    assert link.inputs(0x5301) == ["06" + "04f080" + "0201" + "0000" + "01020304"]


@pytest.mark.parametrize(("offset", "size"), [(-1, 4), (0, 0), (4096, 1), (4093, 4)])
def test_beyond_configuration_space(offset, size):
    switch, link = switch_of({}, Switch)
    with pytest.raises(ValueError, match="configuration space has 4096 bytes"):
        asyncio.run(switch.read_configuration(6, offset, size))
    assert link.asked == []


class Memory:
    """A logical device's memory behind Send LD CXL.io Memory Request, with jack's header."""

    def __init__(self):
        self.data = bytearray(range(256)) * 64

    def __call__(self, payload):
        port, _, enables, write, ld, length, address = struct.unpack_from("<BBBBHHQ", payload)
        assert (port, ld) == (3, 1)
        assert length <= 4096
        first, last = enables >> 4, write & 0xF
        self.enables = first, last
        if write & 0x80:
            assert len(payload) == 16 + length
            self.data[address : address + length] = payload[16:]
            return 0, struct.pack("<HH", length, 0)
        return 0, struct.pack("<HH", length, 0) + self.data[address : address + length]


def test_memory_of_a_logical_device():
    memory = Memory()
    switch, link = switch_of({0x5302: memory}, Switch)
    assert asyncio.run(switch.read_memory(3, 1, 5, 10000)) == bytes((5 + at) % 256 for at in range(10000))
    # messages of 4 KiB: less two headers 4032 bytes, in whole lines
    assert len(link.inputs(0x5302)) == 3
    asyncio.run(switch.write_memory(3, 1, 0x801, b"x" * 5000))
    assert memory.data[0x800 : 0x801 + 5001] == b"\0" + b"x" * 5000 + bytes([(0x801 + 5000) % 256])


@pytest.mark.parametrize(
    ("address", "size", "enables"),
    [
        (0, 4, (0xF, 0)),
        (1, 2, (0b0110, 0)),
        (0, 8, (0xF, 0xF)),
        (3, 2, (0b1000, 0b0001)),
        (2, 5, (0b1100, 0b0111)),
    ],
)
def test_byte_enables_of_memory(address, size, enables):
    memory = Memory()
    switch, _ = switch_of({0x5302: memory}, Switch)
    asyncio.run(switch.read_memory(3, 1, address, size))
    assert memory.enables == enables


def test_memory_that_is_cut_short():
    switch, _ = switch_of({0x5302: struct.pack("<HH", 8, 0) + b"1234"}, Switch)
    with pytest.raises(BadAnswer, match="4 bytes, 8 were asked for"):
        asyncio.run(switch.read_memory(3, 1, 0, 8))


def test_domain_validation():
    secret = UUID("00112233-4455-6677-8899-aabbccddeeff")
    switch, link = switch_of({0x5104: b"\1", 0x5105: b"", 0x5106: b"\0", 0x5107: secret.bytes}, Switch)

    async def ask():
        await switch.set_domain_validation(secret)
        return (
            await switch.has_domain_validation(),
            await switch.has_domain_validation(3),
            await switch.domain_validation(3),
        )

    assert asyncio.run(ask()) == (True, False, secret)
    assert link.inputs(0x5105) == ["00112233445566778899aabbccddeeff"]
    assert link.inputs(0x5106) == link.inputs(0x5107) == ["03"]
