"""Messages cut into packets and put together again, in any order and with any packets missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.transport.mctp.errors import PacketError
from softcxl.transport.mctp.packet import Assembler, Fragmenter, Message

SOM, EOM, TO = 0x80, 0x40, 0x08


def packet(
    flags: int, payload: bytes = b"", *, sequence: int = 0, tag: int = 0, eids: bytes = b"\x09\x08"
) -> bytes:
    """As DSP0236 1.3 Figure 4 has it."""
    return b"\x01" + eids + bytes([flags | sequence << 4 | tag]) + payload


def message(size: int, tag: int = 0, *, owner: bool = True) -> Message:
    return Message(9, 8, tag, owner, bytes(n % 253 for n in range(size)))


@pytest.mark.parametrize(("size", "packets"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 3), (4096, 64)])
def test_padded_packets_are_68_bytes_and_their_numbers_go_on(size, packets) -> None:
    fragmenter = Fragmenter(padded=True)
    cut = fragmenter.cut(message(size)) + fragmenter.cut(message(size))
    assert [len(one) for one in cut] == [68] * 2 * packets
    assert [one[3] >> 4 & 3 for one in cut] == [n % 4 for n in range(2 * packets)]
    assert [one[3] & 0xC0 for one in cut[:packets]] == (
        [0xC0] if packets == 1 else [SOM, *[0] * (packets - 2), EOM]
    )
    assert b"".join(one[4:] for one in cut[:packets])[:size] == message(size).body
    assert {one[:3] for one in cut} == {b"\x01\x09\x08"}
    assert {one[3] & 0x0F for one in cut} == {TO}


def test_other_packets_are_as_long_as_they_need_to_be_and_begin_at_0() -> None:
    fragmenter = Fragmenter()
    for _ in range(2):
        cut = fragmenter.cut(message(130, 5, owner=False))
        assert [len(one) for one in cut] == [68, 68, 6]
        assert [one[3] for one in cut] == [SOM | 5, 0x10 | 5, EOM | 0x20 | 5]


def test_messages_that_are_mixed_are_told_apart() -> None:
    assembler = Assembler(10_000)
    cuts = [Fragmenter().cut(message(200 + tag, tag)) for tag in range(8)]
    cuts += [
        Fragmenter().cut(message(300, 0, owner=False)),
        Fragmenter().cut(message(300)._replace(source=10)),
    ]
    got = [assembler.take(one) for round_ in zip(*(cut[:3] for cut in cuts), strict=True) for one in round_]
    assert got == [None] * 30
    assert assembler.under_way == 10
    for cut in cuts:
        done = [assembler.take(one) for one in cut[3:]]
        assert done[-1] is not None
        assert done[-1].body == bytes(n % 253 for n in range(len(done[-1].body)))
    assert (assembler.under_way, assembler.held, assembler.dropped) == (0, 0, 0)


def test_mixed_messages_in_a_running_count() -> None:
    """jack counts packets of the connection; DSP0236 those of the message."""
    fragmenter = Fragmenter(padded=True)
    assembler = Assembler(10_000, running=True)
    first, second = fragmenter.cut(message(180, 1)), fragmenter.cut(message(180, 2))
    order = [first[0], second[0], second[1], first[1], first[2], second[2]]
    renumbered = [one[:3] + bytes([one[3] & 0xCF | n % 4 << 4]) + one[4:] for n, one in enumerate(order)]
    for packets in (renumbered, order):
        done = [one for one in map(assembler.take, packets) if one is not None]
        assert [one.tag for one in done] == [1, 2]
        assert all(one.body[:180] == message(180).body for one in done)


@pytest.mark.parametrize(
    ("packets", "dropped"),
    [
        ([packet(0, b"x")], 1),
        ([packet(EOM, b"x")], 1),
        ([packet(SOM, b"x" * 64), packet(EOM, b"x", sequence=2)], 2),
        ([packet(SOM, b"x" * 64), packet(EOM, b"x", sequence=0)], 2),
        ([packet(SOM, b"x" * 64), packet(EOM, b"x", sequence=1, tag=1)], 1),
        ([packet(SOM, b"x" * 64), packet(EOM, b"x", sequence=1, eids=b"\x09\x0a")], 1),
        ([packet(SOM, b"x" * 64), packet(EOM | TO, b"x", sequence=1)], 1),
        ([packet(SOM, b"x" * 64), packet(0, b"x" * 63, sequence=1)], 2),
        ([packet(SOM, b"x" * 64), packet(EOM, b"x" * 65, sequence=1)], 2),
        ([packet(SOM, b"x" * 64), packet(SOM, b"y" * 64)], 1),
    ],
)
def test_what_is_no_message_is_dropped(packets, dropped) -> None:
    assembler = Assembler(1000)
    assert [assembler.take(one) for one in packets] == [None] * len(packets)
    assert assembler.dropped == dropped
    whole = assembler.take(packet(SOM | EOM, b"z"))
    assert whole == Message(9, 8, 0, False, b"z")


def test_a_message_that_begins_anew_replaces_the_one_before() -> None:
    assembler = Assembler(1000)
    assembler.take(packet(SOM, b"old!"))
    assembler.take(packet(SOM, b"new.", sequence=3))
    done = assembler.take(packet(EOM, b"end", sequence=0))
    assert done is not None
    assert done.body == b"new.end"
    assembler.take(packet(SOM, b"old!"))
    assert assembler.take(packet(SOM | EOM, b"whole")) is not None
    assert (assembler.under_way, assembler.held) == (0, 0)


def test_of_a_message_that_is_too_long_the_beginning_is_kept() -> None:
    assembler = Assembler(130)
    *most, last = Fragmenter().cut(message(1000))
    for one in most:
        assert assembler.take(one) is None
        assert assembler.held <= 192
    done = assembler.take(last)
    assert done is not None
    assert (done.truncated, done.body) == (True, message(64).body)
    assert assembler.held == 0


def test_what_is_under_way_is_bounded() -> None:
    assembler = Assembler(1000, messages=4)
    for source in range(8, 250):
        for one in Fragmenter().cut(message(900)._replace(source=source))[:-1]:
            assembler.take(one)
            assert assembler.under_way <= 4
            assert assembler.held <= 2000
    fresh = [assembler.take(one) for one in Fragmenter().cut(message(900))]
    assert fresh[-1] is not None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes, its header alone has 4"),
        (b"\x01\x08\x09", "3 bytes"),
        (b"\x02\x08\x09\xc0x", "version 2, only 1 is known"),
        (b"GET / HTTP/1.1", "version 7"),
    ],
)
def test_what_is_no_packet_is_refused(data, says) -> None:
    with pytest.raises(PacketError, match=says):
        Assembler(1000).take(data)


def test_reserved_bits_of_the_version_say_nothing() -> None:
    assert Assembler(1000).take(b"\xf1\x08\x09\xc0x") is not None


@given(
    st.lists(
        st.binary(min_size=4, max_size=70).map(lambda one: bytes([one[0] & 0xF0 | 1]) + one[1:]), max_size=60
    )
)
def test_any_packets_leave_no_more_than_is_allowed(packets) -> None:
    assembler = Assembler(200, messages=3, running=True)
    for one in packets:
        done = assembler.take(one)
        assert done is None or len(done.body) <= 200
        assert assembler.under_way <= 3
        assert 0 <= assembler.held <= 400


@given(st.data())
def test_messages_survive_whatever_order_their_packets_are_mixed_in(data) -> None:
    sizes = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=8))
    cuts = [Fragmenter().cut(message(size, tag)) for tag, size in enumerate(sizes)]
    order = data.draw(st.permutations([tag for tag, cut in enumerate(cuts) for _ in cut]))
    assembler = Assembler(1000)
    done = [assembler.take(cuts[tag].pop(0)) for tag in order]
    assert {one.tag: len(one.body) for one in done if one is not None} == dict(enumerate(sizes))
    assert (assembler.under_way, assembler.held, assembler.dropped) == (0, 0, 0)
