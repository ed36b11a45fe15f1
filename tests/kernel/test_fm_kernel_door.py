"""The kernel's own MCTP stack under our door: a guest is the endpoint, and the fabric manager is at its serial line.

The door is Python, and the guest has none: this machine's files are there read-only, its interpreter runs on them.
"""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import softcxl
from softcxl import Fabric, boot
from softcxl.lab.boot import Machine
from softcxl.lab.parts import Kernel, Parts
from tests.transport.mctp.frames import exactly, framed

TOPOLOGY = "devices: {mem0: {volatile: 256MiB}}\nhosts: {alpha: {bridges: {hb0: {ports: [mem0]}}}}"
FM, OWN = 8, 9
"""Endpoint IDs: ours, and the guest's."""
TTY = "/dev/ttyS1"
FM_API, CCI = 7, 8
IDENTIFY, UNKNOWN = 0x0001, 0x5100

DOOR = f"""
import sys
from softcxl.transport.mctp import Endpoint, MctpKernelDoor

class Answer:
    code, vendor_status = 0, 0x1234
    def __init__(self, payload):
        self.payload = payload

class Interface:
    payload_max = 4096
    def execute(self, opcode, payload):
        return Answer(opcode.to_bytes(2, "big") + payload)
    def close(self):
        pass

with MctpKernelDoor({{{OWN}: Endpoint("guest", lambda send: Interface())}}) as door:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """What QEMU's second serial port connects to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path_factory.mktemp("line") / "tty"))
        listener.listen()
        yield listener


@pytest.fixture(scope="module")
def guest(line: socket.socket, parts: Parts, own_kernel: Kernel) -> Iterator[Machine]:
    root = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"
    extra = ["-serial", f"unix:{line.getsockname()}", "-fsdev", root]
    extra += ["-device", "virtio-9p-pci,fsdev=root,bus=pcie.0,mount_tag=root"]
    with (
        Fabric.loads(TOPOLOGY) as fabric,
        boot(fabric, parts=replace(parts, kernel=own_kernel), extra=extra) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def wire(line: socket.socket, guest: Machine) -> Iterator[socket.socket]:
    """Our end of the line, with the guest's door open at the other."""
    guest.output(f"softcxl-mctp attach {TTY} {OWN} {FM}")
    guest.output("mkdir /host && mount -t 9p -o trans=virtio,version=9p2000.L,ro root /host")
    source = Path(softcxl.__file__).parents[1]
    python = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={source} {sys.executable} -S -c {shlex.quote(DOOR)}"
    guest.output(
        f"(tail -f /dev/null | chroot /host /usr/bin/env {python} >/tmp/door 2>&1) & "
        "until grep -q . /tmp/door; do usleep 50000; done; grep -qx open /tmp/door || { cat /tmp/door >&2; exit 1; }",
        timeout=120,
    )
    with line.accept()[0] as wire:
        wire.settimeout(60)
        yield wire


def message(type: int, opcode: int, payload: bytes = b"", *, tag: int = 0) -> bytes:
    """A request as DSP0234 and DSP0281 have it: type, category and tag, reserved, opcode, length, four zeros."""
    head = bytes([type, 0, tag, 0]) + opcode.to_bytes(2, "little") + len(payload).to_bytes(3, "little")
    return head + bytes(4) + payload


def ask(wire: socket.socket, request: bytes, answer: bytes, *, tag: int = 0) -> None:
    """Send a packet with the request, and find the one with the answer."""
    wire.sendall(framed(bytes([1, OWN, FM, 0xC8 | tag]) + request))
    expected = framed(bytes([1, FM, OWN, 0xC0 | tag]) + answer)
    assert exactly(wire, len(expected)).hex() == expected.hex()


def response(type: int, opcode: int, payload: bytes, *, tag: int = 0) -> bytes:
    head = bytes([type, 1, tag, 0]) + opcode.to_bytes(2, "little") + len(payload).to_bytes(3, "little")
    return head + bytes([0, 0, 0x34, 0x12]) + payload


@pytest.mark.parametrize("type", [FM_API, CCI])
def test_a_command_is_answered_through_the_kernel(wire: socket.socket, type: int) -> None:
    ask(wire, message(type, IDENTIFY, b"\x7e\x7d"), response(type, IDENTIFY, b"\x00\x01\x7e\x7d"))


def test_the_request_s_tags_come_back(wire: socket.socket) -> None:
    for tag in range(8):
        given = message(CCI, UNKNOWN, tag=0x40 + tag)
        ask(wire, given, response(CCI, UNKNOWN, b"\x51\x00", tag=0x40 + tag), tag=tag)


def test_long_messages_are_taken_apart_and_put_together_by_the_kernel(wire: socket.socket) -> None:
    payload = bytes(range(100))
    request, answer = message(CCI, UNKNOWN, payload), response(CCI, UNKNOWN, b"\x51\x00" + payload)
    first, rest = request[:64], request[64:]
    wire.sendall(framed(bytes([1, OWN, FM, 0x88]) + first) + framed(bytes([1, OWN, FM, 0x58]) + rest))
    expected = framed(bytes([1, FM, OWN, 0x80]) + answer[:64]) + framed(
        bytes([1, FM, OWN, 0x50]) + answer[64:]
    )
    assert exactly(wire, len(expected)).hex() == expected.hex()


def test_what_is_broken_on_the_way_is_dropped_by_the_kernel(wire: socket.socket) -> None:
    good = framed(bytes([1, OWN, FM, 0xC8]) + message(CCI, IDENTIFY))
    wire.sendall(good[:10] + bytes([good[10] ^ 1]) + good[11:])
    ask(wire, message(CCI, UNKNOWN), response(CCI, UNKNOWN, b"\x51\x00"))
