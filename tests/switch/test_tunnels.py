"""Tunnels to what is in a port, and requests to its logical devices, byte by byte: CXL 3.1 §7.6.7.3."""

import struct

import pytest

from softcxl.device.type3 import Type3
from softcxl.switch.upstream import UpstreamPort
from tests.switch.manager import (
    INVALID_INPUT,
    LENGTH,
    RETRY,
    SUCCESS,
    UNSUPPORTED,
    configuration,
    request,
)

MIB = 1 << 20
UNBOUND, UNDER_WAY, TO_PORT, TO_LD = 0, 1, 2, 3


# -- tunnels ----------------------------------------------------------------------------------------------------------


def test_tunnels(fm, switch, memory, pool):
    """To a device itself, to the FM-owned LD of one with several, and through that to one of them."""
    code, identity = fm.tunnel(0, 0x0001)
    assert (code, identity[8:16]) == (SUCCESS, struct.pack("<Q", 0xC0FFEE))
    code, told = fm.tunnel(1, 0x5400)
    assert (code, told) == (SUCCESS, struct.pack("<QHB", 1024 * MIB, 3, told[10]))
    inner = request(0x4000, tag=9)
    code, answer = fm.tunnel(1, 0x5300, struct.pack("<BBH", 1, 0, len(inner)) + inner)
    assert code == SUCCESS
    assert answer[4:6] == bytes([1, 9])
    assert answer[16 + 0x10 : 16 + 0x18] == struct.pack("<Q", 1)  # total capacity, in 256 MiB
    assert fm.tunnel(0, 0x5400) == (UNSUPPORTED, b"")
    assert fm.tunnel(0, 0x4000, b"\0") == (LENGTH, b"")


def test_tunnels_of_older_tools(fm):
    """As of CXL 2.0 the message has its MCTP type in front, and the category in the upper bits."""
    message = b"\x08" + request(0x0001, tag=3)
    code, answer = fm.send(0x5300, struct.pack("<BBH", 0, 0, len(message)) + message)
    assert (code, answer[4:7]) == (SUCCESS, bytes([8, 0x10, 3]))
    assert struct.unpack_from("<H", answer) == (1 + 12 + 18,)


def test_tunnels_to_nothing(fm, switch):
    message = request(0x0001)
    tail = struct.pack("<H", len(message)) + message
    for start in ((2, 0), (3, 0), (5, 0), (255, 0), (0, 1), (0, 15)):
        assert fm.send(0x5300, bytes(start) + tail) == (INVALID_INPUT, b"")
    switch.ports[2].insert(UpstreamPort("below", 2))
    assert fm.send(0x5300, b"\2\0" + tail) == (INVALID_INPUT, b"")
    switch.ports[0].assert_perst()
    assert fm.send(0x5300, b"\0\0" + tail) == (RETRY, b"")


def test_a_tunnel_ends_at_what_is_there_now(fm, switch, clock):
    assert fm.tunnel(0, 0x0001)[1][8:16] == struct.pack("<Q", 0xC0FFEE)
    first = switch.ports[0].remove()
    assert first.doors != []
    other = Type3("other", volatile=256 * MIB, serial=2, clock=clock)
    switch.ports[0].insert(other)
    assert fm.tunnel(0, 0x0001)[1][8:16] == struct.pack("<Q", 2)
    assert first.doors == []
    switch.close()
    assert other.doors == []
    other.close()


@pytest.mark.parametrize(
    ("size", "message", "code"),
    [
        (0, b"", LENGTH),
        (11, bytes(11), LENGTH),
        (13, request(0x0001), LENGTH),  # more than there is
        (12, request(0x0001)[:5] + b"\1\0\0" + bytes(4), LENGTH),  # says that it has a payload
        (13, request(0x0001) + b"\0", LENGTH),
        (12, b"\1" + request(0x0001)[1:], INVALID_INPUT),  # a response
    ],
)
def test_messages_that_are_none(fm, size, message, code):
    assert fm.send(0x5300, struct.pack("<BBH", 0, 0, size) + message) == (code, b"")


def test_a_tunnel_in_a_tunnel(fm):
    """To a logical device by way of the FM-owned one, which is no target itself (CXL 3.1 §7.6.7.3.1)."""
    message = request(0x0001)
    for ld, code in ((0, SUCCESS), (1, SUCCESS), (2, INVALID_INPUT), (0xFF, INVALID_INPUT)):
        assert fm.tunnel(1, 0x5300, struct.pack("<BBH", ld, 0, len(message)) + message)[0] == code


# -- requests to logical devices --------------------------------------------------------------------------------------


def test_ld_configuration_request(fm, pool):
    assert fm.send(0x5301, configuration(1, 0, ld=1)) == (SUCCESS, pool.logical[1].read(7, 0, 4))
    assert fm.send(0x5301, configuration(1, 4, 0b0001, 0xFFFF_FF06, ld=1)) == (SUCCESS, bytes(4))
    assert pool.logical[1].read(7, 4, 2) == b"\6\0"
    assert pool.logical[0].read(7, 4, 2) == b"\0\0"
    assert fm.send(0x5301, configuration(1, 0, ld=0xFFFF)) == (SUCCESS, pool.fm_owned.read(7, 0, 4))
    for number, ld in ((1, 2), (1, 3), (1, 255), (0, 0), (2, 0), (3, 0), (5, 0)):
        assert fm.send(0x5301, configuration(number, 0, ld=ld)) == (INVALID_INPUT, b"")
    assert fm.send(0x5301, configuration(1, 1, ld=1))[0] == INVALID_INPUT


def test_no_requests_to_what_a_host_has(fm, switch, pool):
    """CXL 3.1 §7.6.7.3.2, §7.6.7.3.3: the logical device must be unbound."""
    switch.bind(0, 0, port=1, ld=1)
    assert fm.send(0x5301, configuration(1, 0, ld=1)) == (INVALID_INPUT, b"")
    assert fm.send(0x5302, access(BAR, 4, ld=1)) == (INVALID_INPUT, b"")
    assert fm.send(0x5301, configuration(1, 0, ld=0))[0] == SUCCESS
    switch.unbind(0, 0)
    assert fm.send(0x5301, configuration(1, 0, ld=1))[0] == SUCCESS


def access(address, length, first=0xF, last=0xF, data=b"", ld=0, number=1):
    bits = first << 12 | last << 16 | bool(data) << 23
    return bytes([number]) + bits.to_bytes(3, "little") + struct.pack("<HHQ", ld, length, address) + data


BAR = 0x8000_0000


@pytest.fixture
def mapped(pool):
    """LD 0 with its component registers at BAR."""
    device = pool.logical[0]
    device.write(7, 0x10, struct.pack("<Q", BAR))
    device.write(7, 0x04, b"\2\0")
    return device


@pytest.fixture
def base(mapped):
    """Where the HDM decoder 0 has its base, low: bits 31:28; then high, size low and size high."""
    return BAR + mapped.decoders.decoders[0].registers.base


def test_ld_memory_request(fm, mapped, base):
    """Writes by the enabled bytes alone; registers keep to their laws."""
    high = base + 4
    assert fm.send(0x5302, access(high, 4, last=0, data=b"\x11\x22\x33\x44")) == (SUCCESS, b"\4\0\0\0")
    assert fm.send(0x5302, access(high, 4, last=0)) == (SUCCESS, b"\4\0\0\0\x11\x22\x33\x44")
    assert fm.send(0x5302, access(high, 4)) == (SUCCESS, b"\4\0\0\0\x11\x22\x33\x44")  # as one tool sends it
    assert fm.send(0x5302, access(high, 4, first=0b0110, last=0, data=b"\xaa\xbb\xcc\xdd"))[0] == SUCCESS
    assert fm.send(0x5302, access(high, 4, last=0))[1][4:] == b"\x11\xbb\xcc\x44"
    assert fm.send(0x5302, access(high, 4, first=0b1001, last=0))[1][4:] == b"\x11\0\0\x44"
    padded = access(high, 4, last=0) + bytes(4)  # as another one does
    assert fm.send(0x5302, padded) == (SUCCESS, b"\4\0\0\0\x11\xbb\xcc\x44")
    assert fm.send(0x5302, padded + b"\0") == (LENGTH, b"")
    assert fm.send(0x5302, access(high + 1, 2))[1][4:] == b"\xbb\xcc"
    # Size high is 8 bytes on: of three dwords the first one's upper half, all between, the last one's lowest byte.
    whole = bytes(range(1, 13))
    assert fm.send(0x5302, access(high, 12, first=0b1100, last=0b0001, data=whole))[0] == SUCCESS
    assert fm.send(0x5302, access(high, 12))[1][4:] == b"\x11\xbb\x03\x04" + bytes(3) + b"\0" + b"\x09\0\0\0"


def test_ld_memory_requests_that_cannot_be(fm, mapped, base):
    end = BAR + 0x10000
    for given in (access(BAR - 4, 4), access(end, 4), access(end - 4, 8), access(BAR, 0), access(BAR, 4097)):
        assert fm.send(0x5302, given) == (INVALID_INPUT, b"")
    for given in (
        access(BAR, 4, ld=1),
        access(BAR, 4, ld=9),
        access(BAR, 4, number=0),
        access(BAR, 4, number=3),
    ):
        assert fm.send(0x5302, given) == (INVALID_INPUT, b"")
    assert fm.send(0x5302, access(base, 8, data=bytes(4)))[0] == LENGTH
    assert fm.send(0x5302, access(base, 4, data=bytes(8)))[0] == LENGTH
    code, whole = fm.send(0x5302, access(BAR, 4096))
    assert (code, len(whole)) == (SUCCESS, 4100)
