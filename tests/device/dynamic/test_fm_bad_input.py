"""Random input to the fabric manager's commands: an allowed return code, and nothing has changed unless it is Success.

The codes are those that QEMU's handlers of the same commands return, and Resources Exhausted for what does not fit.
"""

import struct

import hypothesis.strategies as st
from hypothesis import given, settings

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.type3 import Type3
from tests.device.dynamic.dc_host import MIB, DcHost

SUCCESS, INPUT, UNSUPPORTED, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST = 0, 2, 3, 0x0F, 0x16, 0x1D, 0x1E
ASKING = (0x5600, 0x5601, 0x5603, 0x5608)
ALLOWED = {
    0x5600: {SUCCESS, LENGTH},
    0x5601: {SUCCESS, INPUT, LENGTH},
    0x5602: {SUCCESS, INPUT, UNSUPPORTED, LENGTH},
    0x5603: {SUCCESS, INPUT, LENGTH},
    0x5604: {SUCCESS, INPUT, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST},
    0x5605: {SUCCESS, INPUT, ADDRESS, LENGTH, EXHAUSTED, EXTENT_LIST},
    0x5606: {SUCCESS, INPUT, LENGTH},
    0x5607: {SUCCESS, INPUT, LENGTH},
    0x5608: {SUCCESS, INPUT, LENGTH},
}
SHARABLE = 256 * MIB
edges = st.sampled_from(
    [
        0,
        1,
        64,
        MIB,
        2 * MIB,
        4 * MIB,
        8 * MIB,
        62 * MIB,
        64 * MIB,
        SHARABLE,
        SHARABLE + 2 * MIB,
        2**63,
        2**64 - 1,
    ]
)
numbers = edges | st.integers(0, 2**64 - 1)
tags = st.sampled_from([bytes(16), b"a" * 16, b"b" * 16]) | st.binary(min_size=16, max_size=16)
hosts = st.sampled_from([0, 0, 0, 1, 0xFFFF])
small = st.integers(0, 3) | st.integers(0, 255)
extents = st.lists(st.tuples(numbers, numbers, tags, st.integers(0, 3) | st.integers(0, 65535)), max_size=4)


@st.composite
def changes(draw):
    """Initiate Add and Initiate Release, and what is like them."""
    listed = draw(extents)
    count = draw(st.just(len(listed)) | st.integers(0, 2**32 - 1))
    head = struct.pack("<HBBQ16s", draw(hosts), draw(small), draw(small), draw(numbers), draw(tags))
    records = b"".join(struct.pack("<QQ16sH6x", *one) for one in listed)
    return head + draw(st.just(b"") | st.just(struct.pack("<I", count) + records))


settings_ = st.builds(lambda *given: struct.pack("<B3xQB3x", *given), small, numbers, st.integers(0, 255))
questions = st.builds(
    lambda *given: struct.pack("<H2xII", *given), hosts, st.integers(0, 2**32 - 1), st.integers(0, 3)
)
requests = st.tuples(
    st.sampled_from([0x5604, 0x5605]) | st.sampled_from(sorted(ALLOWED)),
    changes() | changes() | settings_ | questions | tags | st.binary(max_size=64),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(requests, min_size=1, max_size=8))
def test_random_requests(sent):
    regions = [DynamicRegion(length=64 * MIB), DynamicRegion(length=64 * MIB, sharable=True)]
    device = Type3("mem0", dynamic=regions, clock=ManualClock())
    try:
        host, door = DcHost(device), device.management(lambda notification: None)
        dynamic = device.dynamic

        def state():
            return (
                host.extent_list(99),
                dynamic.pending,
                dynamic.tags,
                dynamic.regions,
                dynamic.free(0),
                dynamic.free(1),
            )

        dynamic.add(length=8 * MIB)
        assert host.accept((0, 8 * MIB)) == SUCCESS
        dynamic.add(length=4 * MIB)
        for opcode, payload in sent:
            before = state()
            code = door.execute(opcode, payload).code
            assert code in ALLOWED[opcode]
            if code != SUCCESS or opcode in ASKING:
                assert state() == before
    finally:
        device.close()
