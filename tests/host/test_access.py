"""Copies at memory speed against routed loads, poison, and what is refused."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softcxl.device.type3 import Type3
from softcxl.host.errors import AccessError
from softcxl.host.system import System
from tests.host.fake import GIB, MIB, PoisonError, machine, switch


@pytest.fixture
def region(made):
    a, b, c, d = made(4)
    fake = machine([switch(a, b)], [switch(c, d)], windows=[{"targets": (0, 1)}])
    return System(fake).create_region()


def test_read_write_view(region):
    data = random.Random(1).randbytes(1 << 16)
    region.write(1000, data)
    assert region.read(1000, len(data)) == data
    assert region.load(1000, 3000) == data[:3000]
    view = region.view(1000, len(data))
    assert view.tobytes() == data
    view[5] = 0xEE
    assert region.load(1005, 1) == b"\xee"
    region.write(0, np.arange(100, dtype=np.uint32))
    assert region.read(396, 4) == b"\x63\0\0\0"
    out = np.zeros(16, np.uint8)
    assert region.read_into(out, 1005)[0] == 0xEE
    assert region.read(region.size, 0) == b""
    region.write(0, b"")


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (GIB, 1), (0, GIB + 1), (GIB - 1, 2), (5, -1)])
def test_outside(region, offset, size):
    with pytest.raises(AccessError, match=r"not within its 0x40000000 bytes"):
        region.read(offset, size)


def test_without_a_map_every_access_is_routed(region):
    plain = type(region.machine)
    view, poisoned = plain.view, plain.poisoned
    try:
        del plain.view, plain.poisoned
        region.write(5000, b"abc" * 2000)
        assert region.read(5000, 6000) == b"abc" * 2000
        with pytest.raises(AccessError, match=r"cannot be mapped"):
            region.view()
    finally:
        plain.view, plain.poisoned = view, poisoned


def test_poison(region):
    region.write(0, bytes(range(256)) * 8)
    device = region.machine.devices()[2]  # position 1
    device.inject_poison(64)
    line = region.hpa + 256 + 64
    assert region.machine.poisoned(region.hpa, 4096) == [line]
    assert len(region.read(0, 256 + 64)) == 320
    for access in (region.read, region.view, region.load):
        with pytest.raises(PoisonError, match=hex(line)):
            access(0, 4096)
    region.write(256 + 64 + 8, b"part of the line")
    with pytest.raises(PoisonError):
        region.read(0, 4096)
    region.write(256, b"w" * 256)
    assert region.read(256, 256) == b"w" * 256


@settings(max_examples=40)
@given(st.data())
def test_three_models_agree(data):
    """Routed access, the window's file, and arithmetic by hand, on trees and regions that hypothesis draws."""
    bridges = data.draw(st.sampled_from([1, 2, 3, 4]))
    roots = data.draw(st.sampled_from([1, 2]))
    below = data.draw(st.sampled_from([0, 1, 2]))
    granularity = data.draw(st.sampled_from([256, 512, 4096]))
    xor = bridges in (2, 4) and data.draw(st.booleans())
    base = 4 * GIB + data.draw(st.integers(0, 2)) * 256 * MIB  # so that a division by three starts anywhere
    count = bridges * roots * max(below, 1)
    if count > 12:
        below, count = 0, bridges * roots
    devices = [Type3(f"d{n}", volatile=512 * MIB, serial=n + 1) for n in range(count)]
    try:
        items = iter(devices)
        trees = [
            [switch(*(next(items) for _ in range(below))) if below else next(items) for _ in range(roots)]
            for _ in range(bridges)
        ]
        shift = granularity.bit_length() - 9
        window: dict[str, Any] = {
            "base": base,
            "targets": tuple(range(bridges)),
            "size": 12 * GIB,
            "granularity": granularity,
            "xor": xor,
        }
        if xor:
            window["maps"] = tuple(one << shift for one in (0x404100, 0x808200))[: bridges // 2]
        fake = machine(*trees, windows=[window])
        system = System(fake)
        region = system.create_region(granularity=granularity, size=count * 256 * MIB)
        offset = data.draw(st.integers(0, region.size - 70000))
        region.write(offset, payload := random.Random(offset).randbytes(60000))
        assert region.read(offset, 60000) == payload
        for _ in range(20):
            at = data.draw(st.integers(offset, offset + 59999))
            assert region.load(at, 1) == payload[at - offset : at - offset + 1]
            device, dpa = _by_hand(fake, region, devices, bridges, roots, below, xor, at)
            assert bytes(device.space.read(dpa, 1)) == payload[at - offset : at - offset + 1]
    finally:
        for device in devices:
            device.close()


def _by_hand(fake, region, devices, bridges, roots, below, xor, offset):
    """(device, DPA), a bit at a time, for trees that are the same below every bridge."""
    hpa = region.hpa + offset
    block = hpa // region.granularity
    if xor:
        bridge = sum(
            ((hpa & one).bit_count() & 1) << number for number, one in enumerate(fake.windows[0].maps)
        )
    else:
        bridge = block % bridges
    rest = block >> {1: 0, 2: 1, 3: 0, 4: 2}[bridges]
    root, rest = rest % roots, rest // roots
    leaf = rest % below if below else 0
    device = devices[(bridge * roots + root) * max(below, 1) + leaf]
    turn = offset // region.granularity // region.ways
    return device, turn * region.granularity + offset % region.granularity
