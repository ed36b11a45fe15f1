"""Every command and its reply, byte for byte, written out from the protocol's tables (not by our own
records)."""

from __future__ import annotations

import errno
import json
import os
from struct import Struct, pack

import pytest

from softcxl.spec import vfio_user as spec
from softcxl.testing.vfio_client import Client
from softcxl.transport.vfio_user import Door, session
from softcxl.transport.vfio_user.framing import ERROR, HEADER, NO_REPLY, REPLY, TYPE
from tests.transport.ports import BAR, CONFIG, READ_ONLY, WRITE_ONLY, ScratchPort

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS = range(1, 9)
REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET, DIRTY_PAGES, WRITE_MULTI = range(9, 16)


def header(ident: int, command: int, size: int, flags: int = 0, error: int = 0) -> bytes:
    return pack("<HHIII", ident, command, size, flags, error)


def exchange(client: Client, command: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> bytes:
    """The whole reply to a command whose message id is 0xBEEF."""
    client.send_bytes(header(0xBEEF, command, 16 + len(payload)) + payload, fds)
    message = client.receive()
    for fd in message.fds:
        os.close(fd)
    return message.header.pack() + message.payload


def ok(command: int, payload: bytes = b"") -> bytes:
    return header(0xBEEF, command, 16 + len(payload), 1) + payload


def refused(command: int, error: int) -> bytes:
    return header(0xBEEF, command, 16, 0x21, error)


def test_the_hot_paths_structures_are_the_records() -> None:
    assert HEADER.size == spec.Header.__layout__.size
    sample = HEADER.pack(1, 2, 3, 0x31, 5)
    unpacked = spec.Header.unpack(sample)
    assert (unpacked.ident, unpacked.command, unpacked.size, unpacked.error) == (1, 2, 3, 5)
    assert unpacked.flags.no_reply
    assert unpacked.flags.error
    assert unpacked.pack() == sample
    assert (TYPE, REPLY, NO_REPLY, ERROR) == (0xF, 1, 0x10, 0x20)
    access = session.ACCESS.pack(1, 2, 3)
    assert spec.RegionAccess.unpack(access) == spec.RegionAccess(offset=1, region=2, count=3)
    assert Struct("<QII8s").size == spec.RegionWrite.__layout__.size


def test_version(stranger: Client) -> None:
    proposed = b'{"capabilities":{"max_msg_fds":16,"pgsizes":4096,"twin_socket":{"supported":true}}}\0'
    answered = b'{"capabilities":{"max_msg_fds":16,"pgsizes":4096}}\0'
    assert exchange(stranger, VERSION, pack("<HH", 0, 0) + proposed) == ok(
        VERSION, pack("<HH", 0, 0) + answered
    )


def test_device_info(client: Client) -> None:
    assert exchange(client, GET_INFO, pack("<IIII", 16, 0, 0, 0)) == ok(GET_INFO, pack("<IIII", 16, 3, 9, 5))


def test_region_info_with_sparse_areas_takes_two_steps(client: Client) -> None:
    full = pack("<IIIIQQ", 80, 0xF, BAR, 32, 0x10000, 0)
    areas = pack("<HHIIIQQQQ", 1, 1, 0, 2, 0, 0x4000, 0x4000, 0xC000, 0x1000)
    client.send_bytes(header(1, REGION_INFO, 48) + pack("<IIIIQQ", 32, 0, BAR, 0, 0, 0))
    short = client.receive()
    assert (short.payload, short.fds) == (full, [])
    client.send_bytes(header(2, REGION_INFO, 48) + pack("<IIIIQQ", 80, 0, BAR, 0, 0, 0))
    long = client.receive()
    assert long.payload == full + areas
    assert len(long.fds) == 1
    os.close(long.fds[0])


@pytest.mark.parametrize(
    ("index", "flags", "size"),
    [(READ_ONLY, 0b101, 0x1000), (WRITE_ONLY, 0b10, 0x1000), (CONFIG, 0b11, 0x1000), (1, 0, 0), (8, 0, 0)],
)
def test_region_info(client: Client, index: int, flags: int, size: int) -> None:
    asked = pack("<IIIIQQ", 32, 0, index, 0, 0, 0)
    assert exchange(client, REGION_INFO, asked) == ok(
        REGION_INFO, pack("<IIIIQQ", 32, flags, index, 0, size, 0)
    )


@pytest.mark.parametrize(
    ("index", "flags", "count"), [(0, 0b111, 1), (1, 0b11, 4), (2, 0b11, 32), (3, 1, 0), (4, 1, 1)]
)
def test_irq_info(client: Client, index: int, flags: int, count: int) -> None:
    asked = pack("<IIII", 16, 0, index, 0)
    assert exchange(client, IRQ_INFO, asked) == ok(IRQ_INFO, pack("<IIII", 16, flags, index, count))


def test_region_read_and_write(client: Client, port: ScratchPort) -> None:
    place = pack("<QII", 0x120, BAR, 4)
    assert exchange(client, REGION_WRITE, place + b"\x01\x02\x03\x04") == ok(REGION_WRITE, place)
    assert exchange(client, REGION_READ, place) == ok(REGION_READ, place + b"\x01\x02\x03\x04")
    vendor = pack("<QII", 0, CONFIG, 4)
    assert exchange(client, REGION_READ, vendor) == ok(REGION_READ, vendor + b"\x00\x01\x02\x03")
    assert port.calls[1:] == [
        ("write", BAR, 0x120, b"\x01\x02\x03\x04"),
        ("read", BAR, 0x120, 4),
        ("read", CONFIG, 0, 4),
    ]


def test_a_posted_write_is_done_before_the_next_reply_and_gets_none(
    client: Client, port: ScratchPort
) -> None:
    place = pack("<QII", 0x10, BAR, 2)
    client.send_bytes(header(1, REGION_WRITE, 34, 0x10) + place + b"ab")
    assert exchange(client, REGION_READ, place) == ok(REGION_READ, place + b"ab")


def test_a_refused_posted_write_gets_no_reply_either(client: Client, door: Door) -> None:
    client.send_bytes(header(1, REGION_WRITE, 34, 0x10) + pack("<QII", 0x10000, BAR, 2) + b"ab")
    assert exchange(client, RESET) == ok(RESET)
    assert door.traffic.refused == 1


def test_region_write_multi(client: Client, port: ScratchPort, door: Door) -> None:
    writes = pack("<QQII8sQII8s", 2, 0, BAR, 4, b"abcdXXXX", 8, CONFIG, 8, b"12345678")
    assert exchange(client, WRITE_MULTI, writes) == ok(WRITE_MULTI, pack("<Q", 2))
    assert port.calls[1:] == [("write", BAR, 0, b"abcd"), ("write", CONFIG, 8, b"12345678")]
    assert door.traffic.writes == 2


def test_region_write_multi_says_how_far_it_came(client: Client) -> None:
    writes = pack("<QQII8sQII8s", 2, 0, BAR, 4, b"abcd", BAR_END, BAR, 4, b"abcd")
    assert exchange(client, WRITE_MULTI, writes) == ok(WRITE_MULTI, pack("<Q", 1))
    assert exchange(client, WRITE_MULTI, pack("<QQII8s", 1, BAR_END, BAR, 4, b"")) == refused(
        WRITE_MULTI, errno.EINVAL
    )


BAR_END = 0x10000


def test_region_write_multi_must_have_been_agreed(stranger: Client) -> None:
    stranger.negotiate({"write_multiple": False})
    assert exchange(stranger, WRITE_MULTI, pack("<Q", 0)) == refused(WRITE_MULTI, errno.ENOTSUP)


def test_dma_map_and_unmap(client: Client) -> None:
    fd = os.memfd_create("guest")
    mapped = pack("<IIQQQ", 32, 3, 0, 0x100000, 0x2000)
    assert exchange(client, DMA_MAP, mapped, (fd,)) == ok(DMA_MAP)
    os.close(fd)
    assert exchange(client, DMA_MAP, mapped) == refused(DMA_MAP, errno.EEXIST)
    unmapped = pack("<IIQQ", 24, 0, 0x100000, 0x2000)
    assert exchange(client, DMA_UNMAP, unmapped) == ok(DMA_UNMAP, unmapped)
    assert exchange(client, DMA_UNMAP, unmapped) == refused(DMA_UNMAP, errno.ENOENT)


def test_set_irqs(client: Client) -> None:
    event = os.eventfd(0)
    assert exchange(client, SET_IRQS, pack("<IIIII", 20, 0x24, 1, 0, 1), (event,)) == ok(SET_IRQS)
    assert exchange(client, SET_IRQS, pack("<IIIII", 20, 0x21, 1, 0, 1)) == ok(SET_IRQS)
    assert os.eventfd_read(event) == 1
    os.close(event)


def test_reset(client: Client, port: ScratchPort) -> None:
    assert exchange(client, RESET) == ok(RESET)
    assert port.calls[-1] == ("reset",)


@pytest.mark.parametrize("command", [IO_FDS, DIRTY_PAGES, 16, 17, 18])
def test_what_is_optional_is_not_supported(client: Client, command: int) -> None:
    assert exchange(client, command, pack("<IIII", 16, 0, 0, 0)) == refused(command, errno.ENOTSUP)


@pytest.mark.parametrize("command", [0, 19, 0x7FFF, 0xFFFF])
def test_unknown_commands(client: Client, command: int) -> None:
    assert exchange(client, command) == refused(command, errno.ENOSYS)


@pytest.mark.parametrize("command", [VERSION, DMA_READ, DMA_WRITE])
def test_commands_out_of_place(client: Client, command: int) -> None:
    assert exchange(client, command, bytes(16)) == refused(command, errno.EINVAL)


def test_message_ids_are_echoed_and_need_not_be_unique(client: Client) -> None:
    place = pack("<QII", 0, CONFIG, 1)
    client.send_bytes(b"".join(header(ident, REGION_READ, 32) + place for ident in (7, 7, 0xFFFF, 0)))
    assert [client.receive().header.ident for _ in range(4)] == [7, 7, 0xFFFF, 0]


def test_a_version_reply_fits_the_room_qemu_keeps_for_it(stranger: Client) -> None:
    # QEMU's own command, as it prints it.
    text = (
        '{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "max_msg_fds": 16, '
        '"max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}'
    )
    request = pack("<HH", 0, 0) + text.encode() + b"\0"
    reply = exchange(stranger, VERSION, request)
    assert len(reply) <= 16 + len(request)
    assert json.loads(reply[20:-1])["capabilities"] == {
        "max_msg_fds": 16,
        "max_data_xfer_size": 1 << 20,
        "pgsizes": 4096,
        "max_dma_maps": 65535,
        "write_multiple": True,
    }
