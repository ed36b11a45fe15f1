"""A guest's kernel as the fabric manager: by its MCTP stack and a serial port it binds what it then finds."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from softcxl import Fabric, boot
from softcxl.lab.parts import Kernel, Parts
from tests.kernel.conftest import MOVABLE, Linux, quick
from tests.kernel.test_serve import SOFTCXL, softcxl

TOPOLOGY = """
devices:
  spare: {volatile: 256MiB, serial: 7}
  pool: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 0], serial: 0x900}
switches:
  rack: {ports: [spare, pool, null], virtual: {left: {ports: [null, null]}, right: {ports: [null]}}}
hosts:
  alpha: {bridges: {hb0: {ports: [left]}}, windows: [{size: 512MiB, targets: [hb0]}]}
"""
OWN, SWITCH, POOL, LAST = 40, 8, 9, 20
"""Endpoint IDs: the guest's, those of the fabric in the order of its topology, and the last one with a route."""
SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED = 0, 1, 2, 3
EHOSTUNREACH = 113
NO_LD = 0xFFFF
UNBOUND, IN_PROGRESS, BOUND_PORT, BOUND_LD = range(4)


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    with Fabric.loads(TOPOLOGY) as live:
        yield live


@pytest.fixture(scope="module")
def guest(fabric: Fabric, parts: Parts, own_kernel: Kernel) -> Iterator[Linux]:
    parts = replace(parts, kernel=own_kernel)
    with boot(fabric, parts=parts, append=MOVABLE, mctp_serial=True) as running:
        linux = Linux(quick(running), fabric)
        assert linux.sh(f"softcxl-mctp attach /dev/ttyS1 {OWN} {SWITCH} {LAST}") == "mctpserial0\n"
        yield linux


def ask(guest: Linux, eid: int, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
    """Give a command; its return code and answer."""
    words = guest.sh(f"softcxl-mctp ask {eid} {opcode:#x} {payload.hex()}").split()
    return int(words[0]), bytes.fromhex(words[1]) if len(words) > 1 else b""


def vppb(guest: Linux, number: int) -> bytes:
    """What Get Virtual CXL Switch Info says of a vPPB of the first virtual switch: status, port, LD."""
    code, answer = ask(guest, SWITCH, 0x5200, bytes([number, 1, 1, 0]))
    assert code == SUCCESS
    return answer[8:11]


def bound(guest: Linux, number: int, port: int, ld: int) -> None:
    """Bind, and wait for the end of it in the guest, as a program there would."""
    assert ask(guest, SWITCH, 0x5201, struct.pack("<BBBxH", 0, number, port, ld)) == (STARTED, b"")
    guest.sh("until softcxl-mctp ask 8 2 | grep -q ' c800'; do usleep 10000; done", timeout=180)
    assert ask(guest, SWITCH, 0x0002)[1] == struct.pack("<BBHHH", 200, 0, 0x5201, 0, 0)


def test_identify(guest: Linux, fabric: Fabric) -> None:
    """Of a switch, struct cxlmi_cmd_fmapi_identify_sw_device_rsp; and of all, struct cxlmi_cmd_identify_rsp."""
    code, answer = ask(guest, SWITCH, 0x5100)
    assert (code, len(answer), answer[2:4]) == (SUCCESS, 0x49, bytes([5, 2]))
    for eid, serial, kind in (
        (SWITCH, fabric.switches["rack"].serial, 0),
        (POOL, 0x900, 3),
        (POOL + 1, 7, 3),
    ):
        code, answer = ask(guest, eid, 0x0001)
        assert (code, answer[8:16], answer[17]) == (SUCCESS, serial.to_bytes(8, "little"), kind)


def test_the_kernel_has_the_interface(guest: Linux) -> None:
    assert guest.sh("cat /sys/class/net/mctpserial0/type").strip() == "290"  # ARPHRD_MCTP
    assert guest.sh("cat /sys/class/net/mctpserial0/mtu").strip() == "68"


def test_long_answers_and_requests(guest: Linux) -> None:
    """Of many packets each way, with every byte that a line escapes."""
    code, answer = ask(guest, SWITCH, 0x5101, b"\xff" + bytes(range(255)))
    assert (code, len(answer)) == (SUCCESS, 4 + 255 * 16)
    assert [answer[4 + 16 * port] for port in range(255)] == list(range(255))


def test_a_logical_device_that_is_bound_arrives(guest: Linux, fabric: Fabric) -> None:
    assert guest.json("cxl list -M -i") == []
    assert vppb(guest, 0) == bytes([UNBOUND, 0, 0xFF])
    bound(guest, 0, port=1, ld=0)
    assert vppb(guest, 0) == bytes([BOUND_LD, 1, 0])
    guest.sh("until cxl list -M | grep -q memdev; do usleep 20000; done", timeout=180)
    (found,) = guest.json("cxl list -M")
    assert found["ram_size"] == 256 << 20
    guest.create_region(["pool.0"])
    (mapping,) = fabric.devices["pool.0"].decoders.mappings
    assert mapping.size == 256 << 20
    guest.sh("cxl disable-region -f all; for each in 1 2 3; do cxl destroy-region -f all && break; done")
    assert fabric.devices["pool.0"].decoders.mappings == []


def test_what_is_unbound_goes(guest: Linux, fabric: Fabric) -> None:
    assert ask(guest, SWITCH, 0x5202, bytes([0, 0, 1])) == (STARTED, b"")  # managed
    guest.sh("until softcxl-mctp ask 8 2 | grep -q ' c800025200000000'; do usleep 20000; done", timeout=180)
    assert vppb(guest, 0) == bytes([UNBOUND, 0, 0xFF])
    guest.sh("until ! cxl list -M -i | grep -q memdev; do usleep 20000; done", timeout=180)
    assert fabric.virtual["left"].vppbs[0].function is None


def test_refusals(guest: Linux) -> None:
    assert ask(guest, SWITCH, 0x5201, struct.pack("<BBBxH", 9, 0, 0, NO_LD)) == (INVALID_INPUT, b"")
    assert ask(guest, SWITCH, 0x5201, struct.pack("<BBBxH", 0, 0, 1, NO_LD)) == (INVALID_INPUT, b"")
    assert ask(guest, SWITCH, 0xC000) == (UNSUPPORTED, b"")
    result = guest.run(f"softcxl-mctp ask {LAST + 1} 1")
    assert (result.status, result.text) == (1, f"-{EHOSTUNREACH}\n")


def test_on_the_command_line_with_a_server(own_kernel: Kernel, tmp_path: Path) -> None:
    """The line of a guest of another program goes to the server's fabric."""
    topology, address = tmp_path / "rack.yaml", f"unix:{tmp_path}/control"
    topology.write_text(TOPOLOGY)
    with subprocess.Popen(
        [*SOFTCXL, "serve", str(topology), "--socket", address], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().endswith(f"{address}\n")
            line = f"softcxl-mctp attach /dev/ttyS1 {OWN} {SWITCH} {LAST} && softcxl-mctp ask {SWITCH} 1"
            result = softcxl(
                "vm", "run", address, "-q", "--mctp-serial", "--kernel", str(own_kernel.image), "--", line
            )
            assert (result.returncode, result.stderr) == (0, "")
            interface, answer = result.stdout.splitlines()
            assert interface == "mctpserial0"
            assert answer.startswith("0 981e1100")
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("attach /dev/ttyS1 7 8", "endpoint IDs are 8 to 254"),
        ("attach /dev/ttyS1 9 8 20", "OWN is none of theirs"),
        ("attach /dev/ttyS9 40 8", "the line cannot be opened"),
        ("ask 8", "usage: attach TTY OWN FIRST"),
        ("ask 8 1 7", "not of whole bytes"),
        ("ask x 1", "not a number"),
    ],
)
def test_wrong_usage(guest: Linux, words: str, said: str) -> None:
    result = guest.run(f"softcxl-mctp {words}")
    assert result.status == 2
    assert said in result.stderr.decode()
