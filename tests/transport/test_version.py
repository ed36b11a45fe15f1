"""What is agreed with the first message, and what is refused."""

from __future__ import annotations

import errno
import os
from struct import pack

import pytest

from softcxl.spec.vfio_user import Command
from softcxl.testing.vfio_client import Client, Gone
from softcxl.transport.vfio_user import Door
from tests.transport.ports import BAR, ScratchPort

BAD_DATA = {
    "no NUL": b"{}",
    "a NUL inside": b"{}\0{}\0",
    "empty": b"\0",
    "no JSON": b"{capabilities}\0",
    "no object": b"[]\0",
    "a number": b"1\0",
    "capabilities no object": b'{"capabilities":[]}\0',
    "not UTF-8": b'{"capabilities":{"\xff":1}}\0',
    "a text for a number": b'{"capabilities":{"max_msg_fds":"8"}}\0',
    "a boolean for a number": b'{"capabilities":{"max_msg_fds":true}}\0',
    "a fraction": b'{"capabilities":{"max_data_xfer_size":1.5}}\0',
    "a negative number": b'{"capabilities":{"max_dma_maps":-1}}\0',
    "no data": b'{"capabilities":{"max_data_xfer_size":0}}\0',
    "no pages of 4 KiB": b'{"capabilities":{"pgsizes":65536}}\0',
    "a number for a boolean": b'{"capabilities":{"write_multiple":1}}\0',
    "a boolean for an object": b'{"capabilities":{"twin_socket":true}}\0',
    "NaN": b'{"capabilities":{"pgsizes":NaN}}\0',
    "a huge number": b'{"capabilities":{"pgsizes":' + b"9" * 10000 + b"}}\0",
    "deep": b"[" * 8000 + b"]" * 8000 + b"\0",
    "long": b'{"x":"' + b"a" * 20000 + b'"}\0',
}


@pytest.mark.parametrize("data", BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data_is_refused_and_ends_the_connection(
    stranger: Client, port: ScratchPort, data: bytes
) -> None:
    with pytest.raises(OSError) as refusal:
        stranger.call(Command.VERSION, pack("<HH", 0, 0) + data)
    assert refusal.value.errno == errno.EINVAL
    assert stranger.is_gone()
    assert port.calls == []


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", pack("<HH", 1, 0), pack("<HH", 0xFFFF, 0)])
def test_bad_versions_are_refused(stranger: Client, payload: bytes) -> None:
    with pytest.raises(OSError) as refusal:
        stranger.call(Command.VERSION, payload)
    assert refusal.value.errno == errno.EINVAL
    assert stranger.is_gone()


def test_a_later_minor_version_is_answered_with_ours(stranger: Client) -> None:
    reply = stranger.call(Command.VERSION, pack("<HH", 0, 9))
    assert reply == pack("<HH", 0, 0)


@pytest.mark.parametrize("command", [command for command in Command if command != Command.VERSION])
def test_nothing_goes_before_the_version(stranger: Client, command: Command) -> None:
    with pytest.raises(OSError) as refusal:
        stranger.call(command, bytes(32))
    assert refusal.value.errno == errno.EINVAL
    assert stranger.is_gone()


def test_a_version_with_a_descriptor_is_refused(stranger: Client) -> None:
    event = os.eventfd(0)
    with pytest.raises(OSError):
        stranger.call(Command.VERSION, pack("<HH", 0, 0), [event])
    os.close(event)


def test_without_capabilities_the_defaults_hold(stranger: Client) -> None:
    assert stranger.negotiate({}) == {}
    events = [os.eventfd(0) for _ in range(2)]
    with pytest.raises(OSError) as refusal:  # one descriptor a message
        stranger.set_irqs(1, 0, 2, events=events)
    assert refusal.value.errno == errno.EINVAL
    stranger.set_irqs(1, 0, 1, events=events[:1])
    for event in events:
        os.close(event)
    assert len(stranger.read(BAR, 0, 0x8000)) == 0x8000


def test_capabilities_are_a_subset_of_those_proposed(stranger: Client) -> None:
    assert stranger.negotiate({"max_dma_maps": 2, "unheard_of": 1}) == {"max_dma_maps": 2}
    stranger.dma_map(0x1000, 0x1000)
    stranger.dma_map(0x2000, 0x1000)
    with pytest.raises(OSError) as refusal:
        stranger.dma_map(0x3000, 0x1000)
    assert refusal.value.errno == errno.ENOSPC


def test_the_smaller_transfer_size_holds(stranger: Client) -> None:
    assert stranger.negotiate({"max_data_xfer_size": 64}) == {"max_data_xfer_size": 64}
    assert len(stranger.read(BAR, 0, 64)) == 64
    with pytest.raises(OSError):
        stranger.read(BAR, 0, 65)
    with pytest.raises(OSError):
        stranger.write(BAR, 0, bytes(65))


def test_a_client_that_takes_no_descriptors_gets_regions_without(stranger: Client) -> None:
    stranger.negotiate({"max_msg_fds": 0})
    described = stranger.region_info(BAR)
    assert (described.fd, described.areas, described.info.flags.mmap) == (None, (), False)


def test_a_port_that_cannot_attach(
    stranger: Client, port: ScratchPort, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    port.attach = lambda bus: 1 // 0  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError) as refusal:
        stranger.negotiate()
    assert refusal.value.errno == errno.EIO
    assert stranger.is_gone()
    assert ("detach",) not in port.calls
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(Gone):
        stranger.receive()
