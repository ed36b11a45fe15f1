"""Every command that changes nothing, given raw in a guest: the answer that comes through Linux is the device's."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from softcxl import Fabric
from softcxl.device.type3 import Type3
from tests.device.effects import DEBUG, QUESTIONS
from tests.kernel.conftest import Linux

TOPOLOGY = "dynamic-capacity.yaml"
KERNEL = "own"

EPERM = -1
ALLOW_ALL = "/sys/kernel/debug/cxl/mbox/raw_allow_all"
GET_TIMESTAMP = 0x0300
ASKED = {
    **{opcode: given for opcode, given in QUESTIONS.items() if opcode != GET_TIMESTAMP},
    0x0403: DEBUG,  # a log with nothing in it
    0x4303: struct.pack("<QQ", 0, 1),
    0x4402: struct.pack("<BB2xIHH", 0, 0, 0, 0, 9),  # discovery
}
KEPT = {0x4300, 0x4305, 0x4402, 0x4500, 0x4601}
"""What Linux lets no program give raw, unless it is told to allow all (cxl_mem_raw_command_allowed in
drivers/cxl/core/mbox.c): poison, scans, and all of erasure and security. Features it keeps since 7.3."""


def raw(guest: Linux, opcode: int, payload: bytes) -> tuple[int, bytes]:
    """Give a command; its return code, or the kernel's error as a negative number, and its answer."""
    words = guest.run(f"softcxl-mailbox /dev/cxl/mem0 {opcode:#x} '{payload.hex()}'").stdout.split()
    return int(words[0]), bytes.fromhex(words[1].decode()) if len(words) > 1 else b""


@pytest.fixture
def all_allowed(guest: Linux) -> Iterator[None]:
    """Linux lets programs give every command."""
    guest.sh(f"echo Y > {ALLOW_ALL}")
    yield
    guest.sh(f"echo N > {ALLOW_ALL}")


def device_of(fabric: Fabric) -> Type3:
    (device,) = fabric.devices.values()
    return device


@pytest.mark.usefixtures("all_allowed")
@pytest.mark.parametrize("opcode", ASKED, ids="{:04X}".format)
def test_the_answer_is_the_device_s(guest: Linux, fabric: Fabric, opcode: int) -> None:
    device, payload = device_of(fabric), ASKED[opcode]
    if opcode not in device.cci.handlers:
        pytest.fail(f"the device of {TOPOLOGY} has no {opcode:04X}h")
    code, answer = raw(guest, opcode, payload)
    with device.lock:
        reply = device.cci.execute(opcode, payload)
    assert (code, answer) == (reply.code, reply.payload)


@pytest.mark.parametrize("opcode", sorted(KEPT), ids="{:04X}".format)
def test_what_linux_keeps_to_itself(guest: Linux, opcode: int) -> None:
    assert raw(guest, opcode, ASKED[opcode]) == (EPERM, b"")
