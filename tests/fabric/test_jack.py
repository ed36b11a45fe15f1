"""jack, a fabric manager of CXL 2.0's time, at the door of fabric managers: every command that it has.

The requests are what a build of it sent (of April 2024, recorded on the way to this door), without the padding; the
answers are what it printed of them, put into the layouts of the standard by hand.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from softcxl import Fabric
from softcxl.device.clock import ManualClock
from softcxl.fabric.endpoints import endpoints
from softcxl.transport.mctp import Dialect, MctpTcpDoor

TOPOLOGY = """
devices:
  spare: {volatile: 256MiB, serial: 9}
  pool: {type: mld, volatile: 4GiB, logical_devices: [1GiB, 1GiB, 0, 0]}
switches:
  rack:
    serial: 0xABCD
    ports: [spare, pool, null]
    virtual:
      left: {ports: [null, null, null, null]}
      right: {ports: [null, null, null, null]}
hosts: {a: {bridges: {b: {ports: [left]}}}}
"""
PACKET = 68
SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED = 0, 1, 2, 3
TUNNELED = 8


class Jack:
    """One command a connection: 68-byte packets, numbered from 0, between endpoint IDs 0 and 0, tag 0."""

    def __init__(self, address: tuple[str, int], clock: ManualClock) -> None:
        self._address, self._clock = address, clock

    def exchange(self, message: bytes) -> bytes:
        pieces = [message[at : at + 64] for at in range(0, len(message), 64)]
        with socket.create_connection(self._address, 300) as sock:
            for number, piece in enumerate(pieces):
                flags = 0x08 | (number == 0) << 7 | (number == len(pieces) - 1) << 6 | number % 4 << 4
                sock.sendall(bytes([1, 0, 0, flags]) + piece.ljust(64, b"\0"))
            answer = b""
            for number in range(70):
                packet = b""
                while len(packet) < PACKET:
                    more = sock.recv(PACKET - len(packet))
                    assert more, f"the connection ended after {len(packet)} bytes"
                    packet += more
                assert packet[:3] == b"\1\0\0"
                assert packet[3] & 0xBF == (number == 0) << 7 | number % 4 << 4
                answer += packet[4:]
                if packet[3] & 0x40:
                    break
        self._clock.advance(0)
        return answer

    def command(self, request: str) -> tuple[int, bytes]:
        """Send what stands after the type byte; return code and payload, as jack finds them in its header."""
        message = b"\7" + bytes.fromhex(request)
        answer = self.exchange(message)
        kind, category, tag, opcode, low, high, code, _vendor = struct.unpack_from("<BBBxHHBHH", answer)
        assert (kind, category, tag, opcode) == (7, 0x10, message[2], int.from_bytes(message[4:6], "little"))
        length = low | (high >> 3) << 16
        return code, answer[13 : 13 + length]

    def tunnel(self, request: str) -> tuple[int, bytes]:
        """The same of a command to the FM-owned LD in a port: what is in the tunnel's answer."""
        code, payload = self.command(request)
        assert code == SUCCESS
        size, kind = struct.unpack_from("<HxxB", payload)
        assert (size, kind) == (len(payload) - 4, TUNNELED)
        inner = payload[5:]
        category, opcode, length, code = struct.unpack_from("<BxxHHxH", inner)
        assert category == 0x10
        assert opcode == int.from_bytes(bytes.fromhex(request)[17 + 3 : 17 + 5], "little")
        assert len(inner) == 12 + length
        return code, inner[12:]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def fabric(clock: ManualClock) -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY, clock=clock) as fabric:
        yield fabric


@pytest.fixture
def jack(fabric: Fabric, clock: ManualClock) -> Iterator[Jack]:
    with MctpTcpDoor(endpoints(fabric), port=0, dialect=Dialect.CXL2) as door:
        yield Jack(door.address, clock)


def vppbs(*four: bytes) -> bytes:
    """`show vcs -c 0`: one virtual switch, VCS ID 0, Enabled, USP ID 3, 4 vPPBs; of each its status, PPID, LDID."""
    return bytes([1, 0, 0, 0, 0, 1, 3, 4]) + b"".join(four)


SHOW_VCS = "00000000520400000000000000ff0100"
UNBOUND = bytes([0, 0, 0xFF, 0])


def test_show_id_bos_limit(jack: Jack) -> None:
    identity = struct.pack("<HHHHQBB", 0x1E98, 0x0011, 0, 0, 0xABCD, 13, 0)
    assert jack.command("000000010000000000000000") == (SUCCESS, identity)
    assert jack.command("000000020000000000000000") == (SUCCESS, bytes(8))
    assert jack.command("000000030000000000000000") == (SUCCESS, b"\x0d")
    assert jack.command("0000000400010000000000000d") == (SUCCESS, b"\x0d")  # set limit -n 13


def test_show_switch(jack: Jack) -> None:
    """5 ports and 2 virtual switches, all of them active, 8 vPPBs, none of them bound, 8 decoders."""
    active = 0b11111.to_bytes(32, "little") + 0b11.to_bytes(32, "little")
    assert jack.command("000000005100000000000000") == (
        SUCCESS,
        bytes([0, 0, 5, 2]) + active + struct.pack("<HHB", 8, 0, 8),
    )


def test_show_port(jack: Jack) -> None:
    """Downstream, CXL 2.0, T3-MLD, "B", x8 of x8, speeds 1 to 5, 5.0 of 5.0, L0, lane 0, P, 16 LDs."""
    one = bytes([1, 3, 2, 0, 5, 2, 8, 8, 0x1F, 5, 5, 4, 0, 4, 0, 16])
    assert jack.command("0000000151020000000000000101") == (SUCCESS, b"\1\0\0\0" + one)
    code, answer = jack.command("0000000151000100000000" + "00" + "ff" + bytes(range(255)).hex())  # -a
    assert (code, answer[:4], len(answer)) == (SUCCESS, b"\xff\0\0\0", 4 + 255 * 16)
    assert answer[4 + 16 : 4 + 32] == one
    assert all(answer[4 + 16 * number : 6 + 16 * number] == bytes([number, 0xF]) for number in range(5, 255))


def test_port_config_and_control(jack: Jack, fabric: Fabric) -> None:
    port = fabric.switches["rack"].ports[0]
    assert jack.command("0000000351080000000000000000f00000000000") == (SUCCESS, bytes.fromhex("981e1200"))
    assert jack.command("0000000351080000000000000004308006000000") == (
        SUCCESS,
        bytes(4),
    )  # -r 4 -f 0x3 -w --data 6
    code, command = jack.command("0000000351080000000000000004300000000000")
    assert (code, command[:2]) == (SUCCESS, b"\6\0")
    assert jack.command("0000000251020000000000000000") == (SUCCESS, b"")  # --assert-perst
    assert not port.link_up
    assert jack.command("0000000251020000000000000001") == (SUCCESS, b"")  # --deassert-perst
    assert port.link_up


def test_show_ld_info_and_allocations(jack: Jack) -> None:
    info = struct.pack("<QHB", 4 << 30, 4, 3)
    assert jack.tunnel("00000000531100000000000001000d0008000000005400000000000000") == (SUCCESS, info)
    two = struct.pack("<8Q", 4, 0, 4, 0, 0, 0, 0, 0)  # range 1 and range 2 of each
    assert jack.tunnel("00000000531300000000000001000f000800000001540200000000000000ff") == (
        SUCCESS,
        bytes([4, 0, 0, 4]) + two,
    )


def test_set_ld_allocations(jack: Jack, fabric: Fabric) -> None:
    """-l 2 --range1 2,0 --range2 0,0"""
    entries = struct.pack("<4Q", 2, 0, 0, 0)
    request = "000000005335000000000000010031000800000002542400000000000002020000" + entries.hex()
    assert jack.tunnel(request) == (SUCCESS, bytes([2, 2, 0, 0]) + entries)
    assert fabric.devices["pool.2"].capacity.volatile == 512 << 20


def test_qos_status_and_control(jack: Jack) -> None:
    get = "00000000531100000000000001000d0008000000035400000000000000"
    assert jack.tunnel("00000000531100000000000001000d0008000000055400000000000000") == (SUCCESS, b"\0")
    assert jack.tunnel(get) == (SUCCESS, struct.pack("<BBBBHB", 0, 10, 25, 8, 0, 64))
    set_ = "000000005318000000000000010014000800000004540700000000000000343f08010080"
    asked = struct.pack("<BBBBHB", 0, 52, 63, 8, 1, 128)  # -m 52 -s 63 -k 8 -q 1 -i 128
    assert jack.tunnel(set_) == (SUCCESS, asked)
    assert jack.tunnel(get) == (SUCCESS, asked)


def test_qos_allocated_and_limit(jack: Jack) -> None:
    tunnel = "00000000531300000000000001000f0008000000{:02x}5402000000000000{}"
    for get in (0x06, 0x08):
        assert jack.tunnel(tunnel.format(get, "ff00")) == (SUCCESS, b"\4\0" + bytes(4))  # all
        assert jack.tunnel(tunnel.format(get, "0103")) == (SUCCESS, b"\1\3\0")  # -l 3 -n 1
    set_ = "0000000053170000000000000100130008000000{:02x}54060000000000000400{}"
    assert jack.tunnel(set_.format(0x07, "10200000")) == (SUCCESS, b"\4\0\x10\x20\0\0")
    assert jack.tunnel(set_.format(0x09, "80400000")) == (SUCCESS, b"\4\0\x80\x40\0\0")


def test_ld_config_and_memory(jack: Jack) -> None:
    config = "00000001530c000000000000{}"
    assert jack.command(config.format("0100f0000000000000000000")) == (SUCCESS, bytes.fromhex("981e0100"))
    assert jack.command(config.format("0110f0800000000000000080")) == (SUCCESS, bytes(4))  # BAR 0 at 2 GiB
    assert jack.command(config.format("010410800000000002000000")) == (
        SUCCESS,
        bytes(4),
    )  # memory space enabled
    array = bytes.fromhex("01001102")  # the component registers' capability array, CXL.cache and CXL.mem
    read = "0000000253140000000000000100f000000004000010008000000000{}"
    assert jack.command(read.format("00000000")) == (SUCCESS, struct.pack("<HH", 4, 0) + array)
    longer = "0000000253500000000000000100f00f000040000010008000000000" + bytes(64).hex()
    code, answer = jack.command(longer)
    assert (code, answer[:8], len(answer)) == (SUCCESS, struct.pack("<HH", 64, 0) + array, 68)
    write = "0000000253140000000000000100f08000000400001000800000000044332211"
    assert jack.command(write) == (SUCCESS, struct.pack("<HH", 4, 0))
    assert jack.command(read.format("00000000"))[1][4:] == array  # it is read-only


def test_bind_and_unbind(jack: Jack, fabric: Fabric) -> None:
    assert jack.command(SHOW_VCS) == (SUCCESS, vppbs(UNBOUND, UNBOUND, UNBOUND, UNBOUND))
    assert jack.command("000000015206000000000000000001000000") == (STARTED, b"")  # -p 1 -l 0 -c 0 -b 0
    bound = bytes([3, 1, 0, 0])
    assert jack.command(SHOW_VCS) == (SUCCESS, vppbs(bound, UNBOUND, UNBOUND, UNBOUND))
    assert jack.command("000000015206000000000000000101000000") == (INVALID_INPUT, b"")  # -b 1: it is bound
    assert jack.command("000000025203000000000000000002") == (STARTED, b"")  # surprise, if nothing is said
    assert jack.command("00000001520600000000000000010000ffff") == (STARTED, b"")  # -p 0 -c 0 -b 1
    port = bytes([2, 0, 0xFF, 0])
    assert jack.command(SHOW_VCS) == (SUCCESS, vppbs(UNBOUND, port, UNBOUND, UNBOUND))
    assert jack.command("000000025203000000000000000101") == (STARTED, b"")  # -m
    assert jack.command("000000025203000000000000000100") == (INVALID_INPUT, b"")  # -w: it is unbound
    done = struct.pack("<BBHHH", 100 << 1, 0, 0x5202, 0, 0)
    assert jack.command("000000020000000000000000") == (SUCCESS, done)
    assert all(one.port is None for one in fabric.switches["rack"].virtual[0].vppbs)


def test_aer_where_no_host_is(jack: Jack) -> None:
    log = bytes(range(16)).hex()
    assert jack.command("0000000352280000000000000000000000000040" + 2 * log) == (UNSUPPORTED, b"")


def test_mctp(jack: Jack) -> None:
    def control(request: str) -> bytes:
        return jack.exchange(bytes.fromhex(request))

    assert control("008002")[:5] == bytes.fromhex("00000200" + "08")  # --get-eid
    assert control("008005")[:7] == bytes.fromhex("00000500" + "02" + "0708")  # --get-type
    assert control("00800407")[:9] == bytes.fromhex("00000400" + "01" + "f1f0f000")  # --get-ver 7: 1.0.0
    four = "f1f0ff00" + "f1f1f000" + "f1f2f000" + "f1f3f100"  # 1.0, 1.1.0, 1.2.0, 1.3.1
    assert control("008004ff")[:21] == bytes.fromhex("00000400" + "04" + four)
    uuid = control("008003")
    assert uuid[:4] == bytes.fromhex("00000300")
    assert uuid[4:20] == control("008003")[4:20] != bytes(16)
    assert control("0080010020")[:6] == bytes.fromhex("00000100" + "00" + "20")  # --set-eid 32
    assert control("008002")[4] == 32
