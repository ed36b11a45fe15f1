"""Random input to the four commands: an allowed return code, and nothing has changed unless it is Success.

The codes are those that QEMU's handlers of the same commands return.
"""

import struct

import hypothesis.strategies as st
from hypothesis import given, settings

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from tests.device.dynamic.dc_host import MIB, DcHost

SUCCESS, INVALID_INPUT, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST = 0, 0x02, 0x0F, 0x16, 0x1D, 0x1E
ALLOWED = {
    0x4800: {SUCCESS, INVALID_INPUT, LENGTH},
    0x4801: {SUCCESS, INVALID_INPUT, LENGTH},
    0x4802: {SUCCESS, INVALID_INPUT, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST},
    0x4803: {SUCCESS, INVALID_INPUT, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST},
}
edges = st.sampled_from(
    [0, 1, 64, MIB, 2 * MIB, 4 * MIB, 8 * MIB, 62 * MIB, 64 * MIB, 256 * MIB, 2**63, 2**64 - 1]
)
numbers = edges | st.integers(0, 2**64 - 1)
extents = st.lists(st.tuples(numbers, numbers), max_size=5)


@st.composite
def updates(draw):
    listed = draw(extents)
    count = draw(st.just(len(listed)) | st.integers(0, 2**32 - 1))
    head = struct.pack("<IB", count, draw(st.integers(0, 255))) + draw(st.binary(min_size=3, max_size=3))
    return head + b"".join(
        struct.pack("<QQ", *one) + draw(st.binary(min_size=8, max_size=8)) for one in listed
    )


requests = st.tuples(
    st.sampled_from(sorted(ALLOWED)), updates() | st.binary(max_size=64) | st.binary(min_size=2, max_size=2)
)


@settings(deadline=None, max_examples=150)
@given(st.lists(requests, min_size=1, max_size=8))
def test_random_requests(sent):
    device = Type3("mem0", dynamic=[DynamicRegion(length=64 * MIB)], clock=ManualClock())
    try:
        host = DcHost(device)
        device.dynamic.add(length=8 * MIB)
        assert host.accept((0, 8 * MIB)) == SUCCESS
        device.dynamic.add(length=4 * MIB)
        for opcode, payload in sent:
            before = host.extent_list(99), device.dynamic.pending
            code, _ = host.driver.send(opcode, payload)
            assert code in ALLOWED[opcode]
            after = host.extent_list(99), device.dynamic.pending
            if code != SUCCESS or opcode in (0x4800, 0x4801):
                assert after == before
            assert (after[0][2] != before[0][2]) == (after[0][3] != before[0][3])
    finally:
        device.close()
