"""Bytes that leave windows: home, as the device goes to another host, or for good, as the device is no more."""

from __future__ import annotations

import pytest

from softcxl.memory.dpa import DpaSpace
from softcxl.memory.errors import AddressError, ResidencyError
from softcxl.memory.interleave import Interleave
from softcxl.memory.media import Medium
from softcxl.memory.window import Window

MIB = 1 << 20
SIZE = 512 * MIB


@pytest.fixture
def bench(tmp_path):
    """Two devices of 256 MiB, dealt out by turns of 256 bytes in one window with a file."""
    media = [Medium.open(tmp_path / f"mem{number}", SIZE // 2) for number in range(2)]
    window_medium = Medium.open(tmp_path / "window", SIZE)
    window = Window(1 << 32, SIZE, window_medium)
    spaces = [DpaSpace(medium, SIZE // 2, f"mem{number}") for number, medium in enumerate(media)]
    for position, space in enumerate(spaces):
        space.commit(window, 1 << 32, SIZE, Interleave(2, 256), position, 0)
        space.write(0, bytes([position + 1]) * 1024)
    yield window, spaces
    for medium in (*media, window_medium):
        medium.close()


def test_home(bench):
    window, (one, other) = bench
    one.release()
    one.go_home()
    assert window.medium.read(0, 1024) == (bytes(256) + b"\2" * 256) * 2
    assert {resident.device for resident in window.residents} == {"mem1"}
    assert one.home.read(0, 1024) == one.read(0, 1024) == b"\1" * 1024
    assert other.read(0, 1024) == b"\2" * 1024
    one.commit(window, 1 << 32, SIZE, Interleave(2, 256), 0, 0)
    assert window.medium.read(0, 512) == b"\1" * 256 + b"\2" * 256


def test_gone(bench, tmp_path):
    window, (one, other) = bench
    one.abandon()
    assert window.medium.read(0, 1024) == (bytes(256) + b"\2" * 256) * 2
    assert (one.windows, one.commitments) == ((), ())
    assert one.read(0, 1024) == bytes(1024)
    assert other.read(0, 1024) == b"\2" * 1024
    assert window.space("mem0") is None
    with Medium.memfd("new", SIZE) as medium:
        new = DpaSpace(medium, SIZE, "mem0")  # of another size, by the same name
        new.attach(window)
        assert window.space("mem0") is new
        with pytest.raises(ResidencyError, match="two devices are named mem0"):
            one.attach(window)
    again = Window(1 << 32, SIZE, window.medium)
    assert {resident.device for resident in again.residents} == {"mem1"}


def test_one_window_is_left_and_the_others_are_not(bench, tmp_path):
    """The device goes to another host, whose window has its bytes next; the first one's has nothing to do with it."""
    window, (one, other) = bench
    with pytest.raises(AddressError, match="mem0: a decoder is committed in"):
        one.detach(window)
    one.release()
    with Medium.open(tmp_path / "next", SIZE) as medium:
        after = Window(1 << 32, SIZE, medium)
        one.commit(after, 1 << 32, SIZE // 2, Interleave(1, 256), 0, 0)
        one.detach(window)
        one.detach(window)  # that is all
        assert one.windows == (after,)
        assert window.space("mem0") is None
        assert window.medium.read(0, 1024) == (bytes(256) + b"\2" * 256) * 2
        assert medium.read(0, 1024) == one.read(0, 1024) == b"\1" * 1024
    assert other.read(0, 1024) == b"\2" * 1024
