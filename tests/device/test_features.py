"""Features: list, values and their selections, transfers in parts, resets; as drivers/cxl/core/features.c uses them.

Layouts are those of include/cxl/features.h; what the standard leaves open is as in QEMU (cxl-mailbox-utils.c).
"""

import struct
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcxl.device.feature import AFTER_COLD_RESET, AFTER_RESET, AT_ONCE, VendorFeature
from softcxl.spec.command.features import GET_FEATURE, GET_SUPPORTED_FEATURES, SET_FEATURE
from softcxl.testing.driver import Driver
from softcxl.wire import Reset

INVALID_INPUT, UNSUPPORTED, LENGTH = 0x02, 0x03, 0x16
VERSION, SELECTION, IN_PROGRESS, OUT_OF_ORDER = 0x19, 0x1A, 0x1B, 0x1C
FULL, INITIATE, CONTINUE, FINISH, ABORT, SAVE = 0, 1, 2, 3, 4, 8
CURRENT, DEFAULT, SAVED = 0, 1, 2

SCRUB = UUID("96dad7d6-fde8-482b-a733-75774e06db8a")
ECS = UUID("e5b13f22-2328-4a14-b8ba-b9691e893386")
STANDARD = {  # what Linux asks the sizes of: struct sizes of drivers/cxl/core/edac.c; versions as in QEMU
    SCRUB: (4, 2, 1),
    ECS: (9, 5, 1),  # of two media FRUs
    UUID("892ba475-fad8-474e-9d3e-692c917568bb"): (20, 3, 3),
    UUID("80ea4521-786f-4127-afb1-ec7459fb0e24"): (20, 3, 3),
    UUID("96c33386-91dd-44c7-9ecb-fdaf6503bac4"): (19, 2, 1),
    UUID("450ebf67-b135-4f97-a498-c2d57f279bed"): (19, 2, 1),
    UUID("78b79636-90ac-4b64-a4ef-faac5d18a863"): (19, 2, 1),
    UUID("34dbaff5-0552-4281-8f76-da0b5e7a76a7"): (19, 2, 1),
}
OURS = UUID("11112222-3333-4444-5555-666677778888")
ENTRY = "<16sHHHIBBH18x"


def vendor(size=8, *, identifier=OURS, default=None, mask=None, version=3, effects=AT_ONCE):
    return VendorFeature(
        identifier, default or bytes(size), mask=mask or b"\xff" * size, version=version, effects=effects
    )


def entries(send, start=0, count=4096):
    code, payload = send(GET_SUPPORTED_FEATURES, struct.pack("<IHxx", count, start))
    assert code == 0
    told, total = struct.unpack_from("<HH4x", payload)
    assert len(payload) == 8 + 48 * told
    return total, list(struct.iter_unpack(ENTRY, payload[8:]))


def get(send, identifier=OURS, offset=0, count=64, selection=CURRENT):
    return send(GET_FEATURE, struct.pack("<16sHHB", identifier.bytes, offset, count, selection))


def put(send, data, step=FULL, *, identifier=OURS, offset=0, version=3):
    head = struct.pack("<16sIHB9x", identifier.bytes, step, offset, version)
    return send(SET_FEATURE, head + data)[0]


class Ours:
    """Sends commands to its device."""

    def __init__(self, device):
        self.device, self.driver = device, Driver(device)

    def __call__(self, command, payload=b""):
        return self.driver.send(command.opcode, payload)


@pytest.fixture
def ours(make):
    """Sends to a device with a vendor's feature of eight bytes."""
    return Ours(make(features=[vendor()]))


def test_the_standard_s_features(send):
    total, found = entries(send)
    assert total == len(found) == 8
    assert {UUID(bytes=one[0]): (one[2], one[3], one[5]) for one in found} == STANDARD
    assert [one[1] for one in found] == list(range(8))
    assert {one[5] == one[6] for one in found} == {True}
    # changeable, lives through cold resets, and firmware updates; default and saved values can be read
    assert {one[4] for one in found} == {1 | 4 << 1 | 1 << 4 | 1 << 5 | 1 << 6}
    assert {one[7] for one in found} == {1 << 1 | 1 << 9}  # immediate configuration change


def test_the_list_in_parts(send):
    _, every = entries(send)
    assert entries(send, count=8) == (8, [])  # cxl_get_supported_features_count
    assert entries(send, start=2, count=8 + 48 * 3) == (8, every[2:5])
    assert entries(send, start=2, count=8 + 48 * 3 + 47) == (8, every[2:5])
    assert entries(send, start=7, count=0xFFFFFFFF) == (8, every[7:])
    for count, start in ((7, 0), (0, 0), (4096, 8), (4096, 0xFFFF)):
        assert send(GET_SUPPORTED_FEATURES, struct.pack("<IHxx", count, start)) == (INVALID_INPUT, b"")


def test_a_small_mailbox_gives_what_fits(make):
    driver = Driver(make(payload=256))

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    assert len(entries(send)[1]) == (256 - 8) // 48
    assert len(entries(send, start=5)[1]) == 3


def test_get_by_parts(ours):
    assert put(ours, bytes(range(8))) == 0
    assert get(ours) == (0, bytes(range(8)))
    assert get(ours, offset=2, count=3) == (0, b"\2\3\4")
    assert get(ours, offset=7, count=3) == (0, b"\7")
    assert get(ours, offset=8, count=1) == (INVALID_INPUT, b"")
    assert get(ours, count=4097) == (INVALID_INPUT, b"")
    assert get(ours, selection=3) == (SELECTION, b"")
    assert get(ours, identifier=UUID(int=7)) == (UNSUPPORTED, b"")


def test_selections_over_resets(ours):
    device = ours.device
    assert put(ours, b"temporar") == 0
    assert [get(ours, selection=one)[1] for one in (CURRENT, DEFAULT, SAVED)] == [
        b"temporar",
        bytes(8),
        bytes(8),
    ]
    for kind in (Reset.FLR, Reset.CXL):
        device.reset(kind)
        assert get(ours)[1] == b"temporar"
    device.reset(Reset.HOT)
    assert get(ours)[1] == bytes(8)
    assert put(ours, b"for good", FULL | SAVE) == 0
    assert put(ours, b"temporar") == 0
    assert [get(ours, selection=one)[1] for one in (CURRENT, DEFAULT, SAVED)] == [
        b"temporar",
        bytes(8),
        b"for good",
    ]
    device.reset(Reset.COLD)
    assert get(ours)[1] == b"for good"


def test_saved_values_outlive_the_process(make, tmp_path):
    state = tmp_path / "state"
    device = make(features=[vendor()], state=state)
    head = struct.pack("<16sIHB9x", OURS.bytes, FULL | SAVE, 0, 3)
    assert Driver(device).send(0x0502, head + b"for good")[0] == 0
    again = make(features=[vendor()], state=state)
    assert again.features[OURS].value == b"for good"
    shorter = make(features=[vendor(4)], state=state)  # another feature by now
    assert shorter.features[OURS].value == bytes(4)
    assert make(state=state).features.features.keys() == STANDARD.keys()


def test_set_in_parts(ours):
    assert put(ours, b"abc", INITIATE) == 0
    assert get(ours) == (IN_PROGRESS, b"")
    assert get(ours, identifier=SCRUB, count=4)[0] == 0
    assert put(ours, b"\2\1", identifier=SCRUB, version=1) == IN_PROGRESS
    assert put(ours, b"d", CONTINUE, offset=3) == 0
    assert put(ours, b"efgh", FINISH, offset=4) == 0
    assert get(ours)[1] == b"abcdefgh"
    assert put(ours, b"XY", offset=3) == 0  # a part of the value, the rest of which stays
    assert get(ours)[1] == b"abcXYfgh"


def test_nothing_counts_before_the_end(ours):
    assert put(ours, b"abcd", INITIATE | SAVE) == 0
    assert put(ours, b"", ABORT) == 0
    assert get(ours)[1] == bytes(8)
    assert put(ours, b"abcd", INITIATE) == 0
    ours.device.reset(Reset.HOT)
    assert put(ours, b"efgh", FINISH, offset=4) == OUT_OF_ORDER
    assert get(ours)[1] == bytes(8)
    assert put(ours, b"", ABORT) == OUT_OF_ORDER


@pytest.mark.parametrize("step", [CONTINUE, FINISH])
def test_out_of_order_ends_the_transfer(ours, step):
    assert put(ours, b"abcd", step) == OUT_OF_ORDER
    for offset in (0, 3, 5):
        assert put(ours, b"abcd", INITIATE) == 0
        assert put(ours, b"e", step, offset=offset) == OUT_OF_ORDER
        assert put(ours, b"e", step, offset=4) == OUT_OF_ORDER
        assert get(ours) == (0, bytes(8))
    assert put(ours, b"abcd", INITIATE) == 0
    assert put(ours, b"12345678", INITIATE) == 0  # begins anew
    assert put(ours, b"12345678", FULL) == OUT_OF_ORDER
    assert get(ours) == (0, bytes(8))


def test_wrong_sets_change_nothing(ours):
    assert put(ours, bytes(8), version=2) == VERSION
    assert put(ours, b"") == LENGTH
    assert put(ours, b"123456789") == LENGTH
    assert put(ours, b"12", offset=7) == LENGTH
    assert put(ours, b"12", 5) == INVALID_INPUT
    assert put(ours, b"12", identifier=UUID(int=1)) == UNSUPPORTED
    assert put(ours, b"abcd", INITIATE) == 0
    assert put(ours, b"12345", CONTINUE, offset=4) == LENGTH
    assert put(ours, b"1234", FINISH, offset=4) == 0  # the transfer went on
    assert get(ours)[1] == b"abcd1234"


def test_bits_that_cannot_change_stay(make):
    driver = Driver(
        make(
            features=[
                vendor(2, default=b"\xf0\x0f", mask=b"\x0f\x00"),
                vendor(1, mask=b"\0", identifier=UUID(int=9)),
            ]
        )
    )

    def send(command, payload=b""):
        return driver.send(command.opcode, payload)

    assert put(send, b"\x35\x35") == 0
    assert get(send)[1] == b"\xf5\x0f"
    total, found = entries(send)
    assert total == 10
    assert [(one[3], one[4] & 1, one[7]) for one in found[8:]] == [(2, 1, 0x202), (0, 0, 0)]
    assert put(send, b"\1", identifier=UUID(int=9)) == UNSUPPORTED
    assert get(send, UUID(int=9), selection=SAVED)[0] == SELECTION


@pytest.mark.parametrize(
    ("effects", "bits", "waits_for"),
    [
        (AFTER_RESET, 1 << 9 | 1 << 10, (Reset.HOT, Reset.COLD)),
        (AFTER_COLD_RESET, 1 << 9 | 1 << 0, (Reset.COLD,)),
    ],
)
def test_effects_are_as_declared(make, effects, bits, waits_for):
    """The list, and the effects log, say after which reset a change counts: then it does, and not before."""
    for kind in waits_for:
        device = make(features=[vendor(effects=effects)])
        driver = Driver(device)

        def send(command, payload=b"", driver=driver):
            return driver.send(command.opcode, payload)

        assert entries(send, start=8)[1][0][7] == bits
        log = driver.send(
            0x0401, UUID("0da9c0b5-bf41-4b78-8f79-96b1623b3f17").bytes + struct.pack("<II", 0, 160)
        )[1]
        assert dict(struct.iter_unpack("<HH", log))[0x0502] == 1 << 1 | bits
        assert put(send, b"12345678", FULL | SAVE) == 0
        for other in set(Reset) - set(waits_for):
            assert get(send)[1] == bytes(8)
            device.reset(other)
        assert get(send)[1] == bytes(8)
        assert get(send, selection=SAVED)[1] == b"12345678"
        device.reset(kind)
        assert get(send)[1] == b"12345678"


def test_patrol_scrub_s_values(send):
    """A scrub in 12 hours, of which 1 is the least, and on."""
    assert get(send, SCRUB) == (0, b"\3\x0c\1\1")
    assert put(send, b"\x18\0", FULL | SAVE, identifier=SCRUB, version=1) == 0
    assert get(send, SCRUB) == (0, b"\3\x18\1\0")
    assert get(send, SCRUB, selection=DEFAULT) == (0, b"\3\x0c\1\1")
    assert put(send, b"\0\1", identifier=SCRUB, version=1) == INVALID_INPUT
    assert put(send, b"\x18\xff", identifier=SCRUB, version=1) == 0
    assert get(send, SCRUB) == (0, b"\3\x18\1\1")


def test_ecs_values(send):
    usual = struct.pack("<B", 1) + struct.pack("<BHB", 1, 3, 0) * 2
    assert get(send, ECS) == (0, usual)
    assert put(send, b"\0" + struct.pack("<HH", 5 | 8 | 16, 4), identifier=ECS, version=1) == 0
    changed = b"\0" + struct.pack("<BHB", 1, 5 | 8, 0) + struct.pack("<BHB", 1, 4, 0)
    assert get(send, ECS) == (0, changed)  # the reset is done, and not kept
    for wrong in (b"\2" + struct.pack("<HH", 3, 3), b"\0" + struct.pack("<HH", 3, 6)):
        assert put(send, wrong, identifier=ECS, version=1) == INVALID_INPUT
    assert get(send, ECS) == (0, changed)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*STANDARD, OURS]),
            st.sampled_from([FULL, INITIATE, CONTINUE, FINISH, ABORT, FULL | SAVE, 7]),
            st.integers(0, 9),
            st.sampled_from([1, 3]),
            st.binary(max_size=9),
        ),
        max_size=8,
    )
)
def test_any_set_is_answered(ours, caplog, steps):
    codes = {0, INVALID_INPUT, LENGTH, VERSION, IN_PROGRESS, OUT_OF_ORDER}
    for identifier, step, offset, version, data in steps:
        before = [one.value for one in ours.device.features.features.values()]
        code = put(ours, data, step, identifier=identifier, offset=offset, version=version)
        assert code in codes
        if code or step not in (FULL, FINISH, FULL | SAVE):
            assert [one.value for one in ours.device.features.features.values()] == before
    ours.device.features.transfer = None
    for identifier, (size, _, _) in STANDARD.items():
        assert len(get(ours, identifier)[1]) == size
    assert caplog.records == []
