"""Interleave arithmetic against dealing chunks out one by one, and against values from outside.

The numbers of the XOR sample sets are those the kernel's own translation test is fed with
(ndctl, test/cxl-translate.sh, from the CXL memory device software guide).
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.memory import (
    GRANULARITIES,
    WAYS,
    AddressError,
    GeometryError,
    Interleave,
    decode_granularity,
    decode_ways,
    encode_granularity,
    encode_ways,
    maps_for,
)

GUIDE_MAPS = (0x2020900, 0x4041200, 0x1010400, 0x800)
MOCK_MAPS = (0x404100, 0x808200)  # cxl_test's own CXIMS, for a granularity of 256


def deal(ways, granularity, rounds):
    """[(position, DPA offset)] of every chunk of a region, by giving each device the next chunk in turn."""
    given_so_far = [0] * ways
    chunks = []
    for _ in range(rounds):
        for device in range(ways):
            chunks.append((device, given_so_far[device]))
            given_so_far[device] += granularity
    return chunks


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("ways", WAYS)
def test_every_geometry_deals_chunks_in_turn(ways, granularity):
    interleave = Interleave(ways, granularity)
    chunks = deal(ways, granularity, 5)
    for index, (device, start) in enumerate(chunks):
        for low in (0, 1, granularity - 1):
            offset = index * granularity + low
            assert interleave.locate(offset) == (device, start + low)
            assert interleave.offset(device, start + low) == offset
    edges = np.arange(len(chunks) * 2, dtype=np.uint64) * np.uint64(granularity // 2)
    positions, dpas = interleave.locate_many(edges)
    assert positions.tolist() == [chunk[0] for chunk in chunks for _ in range(2)]
    assert dpas.tolist() == [chunk[1] + half * granularity // 2 for chunk in chunks for half in range(2)]
    assert interleave.offsets_of(positions, dpas).tolist() == edges.tolist()


def bit_parity(value):
    return f"{value:b}".count("1") % 2


def xor_reference(maps, address):
    """The address with each map's lowest bit replaced by the parity of what the map selects."""
    bits = list(f"{address:064b}")
    for xor_map in maps:
        lowest = len(f"{xor_map:b}") - f"{xor_map:b}".rindex("1") - 1
        bits[63 - lowest] = str(bit_parity(address & xor_map))
    return int("".join(bits), 2)


# (DPA, position, ways, host bridge ways, HPA)
XOR_SAMPLES = [
    *[(0, position, 4, 4, position * 256) for position in range(4)],
    *[(2048, position, 4, 4, 8192 + position * 256) for position in range(4)],
    (544, 1, 4, 4, 2080),
    (544, 0, 4, 4, 2336),
    (544, 3, 4, 4, 2592),
    (1568, 3, 4, 4, 6176),
    (98328, 2, 4, 4, 393496),
    (443953523, 0, 4, 4, 1775813747),
    (800, 3, 8, 4, 6176),
    (16400, 1, 8, 4, 131088),
    (244690459, 5, 8, 4, 1957525275),
    (30721158, 4, 8, 4, 245769350),
    (529382429, 5, 8, 4, 4235060509),
    (18589081, 1, 8, 4, 148712089),
    (344295715, 7, 8, 4, 2754367011),
    (0, 8, 12, 12, 2304),
    (0, 9, 12, 12, 2048),
    (0, 10, 12, 12, 2816),
    (512, 0, 12, 12, 6912),
    (512, 7, 12, 12, 7168),
    (512, 8, 12, 12, 8192),
    (32, 11, 12, 12, 2592),
    (288, 0, 12, 12, 3360),
    (329210435, 0, 12, 12, 3950524995),
    (145169214, 2, 12, 12, 1742030654),
    (214995572, 8, 12, 12, 2579948404),
    (40424079, 7, 12, 12, 485088911),
]


@pytest.mark.parametrize(("dpa", "position", "ways", "bridge_ways", "hpa"), XOR_SAMPLES)
def test_the_software_guides_xor_tables(dpa, position, ways, bridge_ways, hpa):
    interleave = Interleave(ways, 256, maps_for(bridge_ways, GUIDE_MAPS))
    assert interleave.offset(position, dpa) == hpa
    assert interleave.locate(hpa) == (position, dpa)
    assert interleave.offsets_of(position, [dpa]).tolist() == [hpa]
    assert [array.tolist() for array in interleave.locate_many([hpa])] == [[position], [dpa]]


def test_known_xormaps_of_the_kernels_mock_topology():
    interleave = Interleave(4, 256, MOCK_MAPS)
    # Bit 14 flips position bit 0, bit 15 bit 1, bits 22 and 23 flip them back.
    assert [interleave.locate(address)[0] for address in (0, 1 << 14, 1 << 15, 3 << 14)] == [0, 1, 2, 3]
    assert [interleave.locate(address)[0] for address in (1 << 22, 1 << 23, 1 << 22 | 1 << 14)] == [1, 2, 0]
    assert interleave.locate(0x300 | 1 << 14)[0] == 2


@st.composite
def xor_interleaves(draw):
    ways = draw(st.sampled_from([2, 4, 8, 16, 6, 12]))
    granularity = draw(st.sampled_from(GRANULARITIES))
    low = granularity.bit_length() - 1
    bits = (ways & -ways).bit_length() - 1
    high = st.integers(low + bits, 51).map(lambda bit: 1 << bit)
    maps = [
        1 << (low + bit) | sum(draw(st.sets(high, max_size=5))) for bit in range(draw(st.integers(1, bits)))
    ]
    base = draw(st.integers(0, 1 << 20)) * 16 * granularity
    return Interleave(ways, granularity, tuple(maps), base), maps, base


@given(xor_interleaves(), st.lists(st.integers(0, (1 << 40) - 1), min_size=1, max_size=30))
def test_xor_is_bit_parity_then_dealing(built, offsets):
    interleave, maps, base = built
    ways, granularity = interleave.ways, interleave.granularity
    expected = []
    for offset in offsets:
        plain = xor_reference(maps, base + offset) - base
        chunk = plain // granularity
        expected.append((chunk % ways, chunk // ways * granularity + offset % granularity))
        assert interleave.locate(offset) == expected[-1]
        assert interleave.offset(*expected[-1]) == offset
    positions, dpas = interleave.locate_many(offsets)
    assert list(zip(positions.tolist(), dpas.tolist(), strict=True)) == expected
    assert interleave.offsets_of(positions, dpas).tolist() == offsets


@given(
    st.sampled_from(WAYS),
    st.sampled_from(GRANULARITIES),
    st.lists(st.integers(0, (1 << 52) - 1), max_size=40),
)
def test_vectors_are_many_scalars(ways, granularity, offsets):
    interleave = Interleave(ways, granularity)
    positions, dpas = interleave.locate_many(np.array(offsets, np.uint64))
    assert list(zip(positions.tolist(), dpas.tolist(), strict=True)) == [
        interleave.locate(one) for one in offsets
    ]
    assert interleave.offsets_of(positions, dpas).tolist() == offsets


@pytest.mark.parametrize("maps", [(), GUIDE_MAPS[:2]])
@pytest.mark.parametrize("ways", [4, 12])
def test_arrays_longer_than_a_block_and_of_any_shape(ways, maps):
    interleave = Interleave(ways, 256, maps)
    offsets = (np.arange(3 * 20000, dtype=np.uint64) * np.uint64(977)).reshape(3, 20000)
    positions, dpas = interleave.locate_many(offsets)
    assert positions.shape == dpas.shape == offsets.shape
    for index in [(0, 0), (0, 16383), (0, 16384), (2, 19999)]:
        assert (positions[index], dpas[index]) == interleave.locate(int(offsets[index]))
    assert np.array_equal(interleave.offsets_of(positions, dpas), offsets)
    assert np.array_equal(interleave.locate_many(offsets[:, ::2])[1], dpas[:, ::2])


def test_buffers_are_used_and_may_be_the_input():
    interleave = Interleave(8, 256)
    offsets = np.arange(0, 1 << 16, 128, dtype=np.uint64)
    expected = interleave.locate_many(offsets)
    positions = np.empty(offsets.size, np.uint8)
    answer = interleave.locate_many(offsets, positions, offsets)
    assert answer[0] is positions
    assert answer[1] is offsets
    assert np.array_equal(positions, expected[0])
    assert np.array_equal(offsets, expected[1])
    assert interleave.offsets_of(3, offsets, offsets) is offsets


def test_scalar_and_empty_arrays():
    positions, dpas = Interleave(2, 256).locate_many(np.array(300, np.uint64))
    assert (positions.shape, int(positions), int(dpas)) == ((), 1, 44)
    assert Interleave(3, 256).locate_many([])[1].size == 0
    assert Interleave(3, 256).offsets_of(0, []).size == 0


def test_encodings_are_those_of_the_decoder_control_register():
    assert [encode_ways(ways) for ways in (1, 2, 4, 8, 16, 3, 6, 12)] == [0, 1, 2, 3, 4, 8, 9, 10]
    assert [decode_ways(code) for code in (0, 1, 2, 3, 4, 8, 9, 10)] == [1, 2, 4, 8, 16, 3, 6, 12]
    assert [decode_granularity(code) for code in range(7)] == [256, 512, 1024, 2048, 4096, 8192, 16384]
    assert [encode_granularity(size) for size in (256, 16384)] == [0, 6]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Interleave(5, 256), "5 ways: allowed are 1, 2, 3, 4, 6, 8, 12, 16"),
        (lambda: Interleave(2, 300), "granularity 300: allowed are 256"),
        (lambda: Interleave(2, 32768), "granularity 32768"),
        (lambda: decode_ways(5), "encoding 5: allowed are 0, 1, 2, 3, 4, 8, 9, 10"),
        (lambda: decode_granularity(7), "encoding 7: allowed are 0 to 6"),
        (lambda: Interleave(4, 256).offset(4, 0), "position 4: 4 ways have positions 0 to 3"),
        (lambda: Interleave(4, 256).offset(-1, 0), "position -1"),
        (lambda: Interleave(4, 256).offsets_of(np.array([1, 4], np.uint8), [0, 0]), "position 4"),
        (lambda: Interleave(4, 256).offsets_of(np.array([1], np.uint8), [0, 0]), "shape"),
        (lambda: Interleave(4, 256).locate_many([0.5]), "must be integers, not float64"),
        (lambda: Interleave(4, 256).locate_many([1, 2], np.empty(3, np.uint8)), "it must be contiguous"),
        (lambda: Interleave(2, 256, (0x200,)), "starts at bit 9; position bits are bits 8 to 8"),
        (lambda: Interleave(3, 256, (0x100,)), "no bit: these ways have none"),
        (lambda: Interleave(4, 256, (0x4100, 0x8100)), "both give position bit 8"),
        (lambda: Interleave(4, 256, (0x4300, 0x8200)), "looks at bit 9, which map 0x8200 changes"),
        (lambda: Interleave(4, 256, (1 << 64,)), "not a 64-bit number"),
        (lambda: Interleave(4, 256, (0x4100,), 256), "a multiple of 0x400"),
        (lambda: maps_for(5, GUIDE_MAPS), "5 ways"),
        (lambda: maps_for(8, MOCK_MAPS), "8 ways need 3 XOR maps, 2 given"),
    ],
)
def test_geometries_that_cannot_be_are_refused_with_what_is_allowed(build, words):
    with pytest.raises(GeometryError, match=words):
        build()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Interleave(2, 256).locate(-1),
        lambda: Interleave(2, 256).locate(1 << 52),
        lambda: Interleave(2, 256).offset(0, 1 << 51),
        lambda: Interleave(2, 256).locate_many([-1]),
    ],
)
def test_addresses_outside_are_refused(ask):
    with pytest.raises(AddressError) as caught:
        ask()
    assert isinstance(caught.value, ValueError)


def test_geometries_that_decode_alike_are_equal():
    assert Interleave(4, 256, base=0x1000) == Interleave(4, 256)
    assert Interleave(4, 256, (0x100, 0, 0x200), 0x1000) == Interleave(4, 256)
    assert Interleave(4, 256, MOCK_MAPS, 0x1000) != Interleave(4, 256, MOCK_MAPS)
    assert [len(maps_for(ways, GUIDE_MAPS)) for ways in (1, 2, 3, 4, 6, 8, 12, 16)] == [
        0,
        1,
        0,
        2,
        1,
        3,
        2,
        4,
    ]
