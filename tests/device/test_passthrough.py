"""Security Send and Receive: the protocol of information, which QEMU's NVMe controller answers likewise
(hw/nvme/ctrl.c, with one protocol more), and nothing else."""

import struct

import pytest

from softcxl.spec.command.passthrough import SECURITY_RECEIVE, SECURITY_SEND

SUCCESS, INPUT, LENGTH = 0, 2, 0x16


def request(protocol, specific):
    return struct.pack("<BH5x", protocol, specific)


def test_the_protocols_there_are(send):
    assert send(SECURITY_RECEIVE, request(0, 0)) == (SUCCESS, bytes.fromhex("000000000000 0001 00"))
    assert send(SECURITY_RECEIVE, request(0, 1)) == (SUCCESS, bytes(4))
    assert send(SECURITY_RECEIVE, request(0, 2)) == (SUCCESS, bytes(4))


@pytest.mark.parametrize(
    ("protocol", "specific"), [(0, 3), (0, 0x100), (0, 0xFFFF), (1, 0), (0xE8, 1), (0xFF, 0)]
)
def test_others_are_refused(send, protocol, specific):
    assert send(SECURITY_RECEIVE, request(protocol, specific)) == (INPUT, b"")
    assert send(SECURITY_SEND, request(protocol, specific) + b"data") == (INPUT, b"")


def test_nothing_is_sent_to_the_protocol_of_information(send):
    assert send(SECURITY_SEND, request(0, 0)) == (INPUT, b"")
    assert send(SECURITY_SEND, b"") == send(SECURITY_RECEIVE, bytes(9)) == (LENGTH, b"")
