"""Label areas that do not hold: torn at every slot, garbage, index blocks that contradict each other, labels that lie.

What comes back is the region or none, never another; and a sentence says why. Offsets are those of the kernel's structs
(drivers/nvdimm/label.h, UEFI and CXL 3.1 §9.13.2), and so is which of two index blocks counts.
"""

import random
import struct

import pytest

from softcxl.host.errors import LabelError
from softcxl.host.labelarea import LabelArea
from softcxl.host.system import System
from tests.host.fake import GIB, MIB, machine
from tests.host.test_labels import SHARE, area, forgotten, linux_reads

INDEX, SLOTS = 256, 512  # an index block of a 128 KiB area is 256 bytes, and slots follow the two


@pytest.fixture
def pair(made):
    devices = made(2, volatile=SHARE, persistent=2 * SHARE, label_storage=128 << 10)
    return machine(devices, windows=[{"size": 2 * GIB}])


@pytest.fixture
def stored(pair):
    """(machine, UUID of the region that is stored, its areas)."""
    region = System(pair).create_region(type="pmem", size=2 * SHARE)
    region.write(0, b"kept" * 100)
    return pair, region.uuid, [area(device) for device in pair.devices()]


def write(fake, areas):
    forgotten(fake)
    for device, data in zip(fake.devices(), areas, strict=True):
        device.labels._medium.write(0, bytes(data))


def summed(block, at):
    """A block with the checksum at `at` made right."""
    data = bytearray(block)
    data[at : at + 8] = bytes(8)
    low = high = 0
    for (value,) in struct.iter_unpack("<I", bytes(data)):
        low = (low + value) % 2**32
        high = (high + low) % 2**32
    data[at : at + 8] = struct.pack("<Q", high << 32 | low)
    return bytes(data)


def usable_again(fake):
    """Whatever the areas hold, a region can be made, and comes back."""
    made = System(fake).create_region(type="pmem", size=2 * SHARE)
    assert made.labelled
    assert [one.uuid for one in System(forgotten(fake)).regions.values()] == [made.uuid]


def test_torn_at_every_slot_boundary(stored):
    fake, uuid, good = stored
    (slot, _), *_ = linux_reads(good[0])
    assert slot < 8
    for boundary in range(0, SLOTS + 256 * 8, 256):
        for rest in (b"\0", b"\xff"):
            torn = good[0][:boundary] + rest * (len(good[0]) - boundary)
            write(fake, [torn, good[1]])
            system = System(fake)
            whole = boundary >= SLOTS + 256 * (slot + 1)
            assert [one.uuid for one in system.regions.values()] == ([uuid] if whole else []), boundary
            if whole:
                assert next(iter(system.regions.values())).read(0, 400) == b"kept" * 100
            else:
                assert (
                    f"the region with UUID {uuid} does not come back: of 2 positions 0 are missing"
                    in system.problems
                )
    write(fake, [bytes(len(good[0])), good[1]])
    usable_again(fake)


@pytest.mark.parametrize("seed", range(8))
def test_garbage_is_said_to_be_garbage(stored, seed):
    fake, uuid, good = stored
    write(fake, [random.Random(seed).randbytes(len(good[0])), good[1]])
    system = System(fake)
    assert system.regions == {}
    assert system.problems == [
        "labels of mem0: index block 0 does not hold: it has no signature",
        "labels of mem0: index block 1 does not hold: it has no signature",
        f"the region with UUID {uuid} does not come back: of 2 positions 0 are missing",
    ]
    usable_again(fake)


@pytest.mark.parametrize("broken", [(0,), (1,), (0, 1)])
def test_index_blocks_with_wrong_checksums(stored, broken):
    """One is enough, if it is the later; the earlier of the two is from before the last change."""
    fake, uuid, good = stored
    spoiled = bytearray(good[0])
    for number in broken:
        spoiled[INDEX * number + 100] ^= 0xFF
    expected = linux_reads(bytes(spoiled))
    write(fake, [spoiled, good[1]])
    system = System(fake)
    for number in broken:
        assert f"labels of mem0: index block {number} does not hold: its checksum is wrong" in system.problems
    assert LabelArea(system.memdevs["mem0"]).usable == (expected is not None)
    assert [one.uuid for one in system.regions.values()] in ([], [uuid])
    if expected is None:
        assert system.regions == {}
        usable_again(fake)


@pytest.mark.parametrize(
    ("sequences", "counts"),
    [
        ((1, 2), 1),
        ((2, 1), 0),
        ((2, 3), 1),
        ((3, 1), 1),
        ((1, 3), 0),
        ((2, 2), 1),
        ((0, 2), 1),
        ((1, 0), 0),
        ((0, 0), None),
    ],
)
def test_which_of_two_index_blocks_counts(stored, sequences, counts):
    """Linux best_seq() of all pairs. The one that counts has no slot free, the other one says that all are."""
    fake, _, good = stored
    spoiled = bytearray(good[0])
    for number, sequence in enumerate(sequences):
        block = bytearray(spoiled[INDEX * number : INDEX * (number + 1)])
        struct.pack_into("<I", block, 20, sequence)
        count = struct.unpack_from("<I", block, 56)[0]
        block[72 : 72 + -(-count // 8)] = (b"\0" if number == counts else b"\xff") * -(-count // 8)
        spoiled[INDEX * number : INDEX * (number + 1)] = summed(block, 64)
    write(fake, [spoiled, good[1]])
    system = System(fake)
    found = LabelArea(system.memdevs["mem0"])
    assert found.usable == (counts is not None)
    if counts is None:
        found.prepare()
    else:
        with pytest.raises(LabelError, match="slots of its label storage area are in use"):
            found.prepare()
    said = " ".join(system.problems)
    assert ("both index blocks have sequence number" in said) == (sequences == (2, 2))
    assert said.count("its sequence number is 0, which no block has") == sequences.count(0)


LIES = {
    "unaligned": ("hpa", 4 * GIB + MIB, "0x100100000 is no multiple of 256 MiB|says hpa"),
    "another address": ("hpa", 5 * GIB, "says hpa"),
    "nothing": ("raw_size", 0, "says raw_size"),
    "too much": ("raw_size", 1 << 50, "says raw_size"),
    "no ways": ("label_count", 0, "says label_count"),
    "position that is not there": ("position", 7, "of 2 positions 0 are missing"),
    "position of another": (
        "position",
        1,
        "mem1 and mem0 both have position 1|mem0 and mem1 both have position 1",
    ),
    "granularity": ("interleave_granularity", 9, "says interleave_granularity"),
    "elsewhere on the device": ("dpa", SHARE + SHARE, "its part begins at DPA 0x20000000"),
    "another slot": ("slot", 77, "is in use, and its label says that it is in slot 77"),
    "being written": ("flags", 8, "a label that was being written"),
}
PLACES = {
    "flags": ("<I", 32),
    "label_count": ("<H", 36),
    "position": ("<H", 38),
    "dpa": ("<Q", 40),
    "raw_size": ("<Q", 48),
    "hpa": ("<Q", 56),
    "slot": ("<I", 64),
    "interleave_granularity": ("<I", 68),
}


@pytest.mark.parametrize("name", LIES)
def test_labels_that_hold_and_lie(stored, name):
    field, value, why = LIES[name]
    fake, uuid, good = stored
    spoiled = lie(good[0], field, value)
    write(fake, [spoiled, good[1]])
    system = System(fake)
    assert system.regions == {}
    assert any(one in " ".join(system.problems) for one in why.split("|")), system.problems
    assert not any(device.decoders.committed for device in fake.devices())
    assert str(uuid) in system.problems[-1]


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("raw_size", 0, "size 0x0 is not a multiple"),
        ("raw_size", 1 << 50, "are needed|the largest free range"),
        ("raw_size", SHARE + 4096, "is not a multiple of"),
        ("label_count", 3, "of 3 positions 2 are missing"),
        ("label_count", 0, "of 0 positions too many are missing"),
        ("interleave_granularity", 9, "interleave granularity encoding 9"),
    ],
)
def test_labels_that_lie_alike(stored, field, value, why):
    """Both say the same, and it cannot be."""
    fake, uuid, good = stored
    write(fake, [lie(one, field, value) for one in good])
    system = System(fake)
    assert system.regions == {}
    (problem,) = system.problems
    assert problem.startswith(f"the region with UUID {uuid} does not come back: ")
    assert any(one in problem for one in why.split("|")), problem


def test_an_address_at_which_no_region_can_begin_is_not_kept(stored):
    fake, uuid, good = stored
    write(fake, [lie(one, "hpa", 4 * GIB + MIB) for one in good])
    (region,) = System(fake).regions.values()
    assert (region.uuid, region.hpa % SHARE) == (uuid, 0)
    assert region.read(0, 400) == b"kept" * 100


def lie(data, field, value):
    form, offset = PLACES[field]
    ((slot, label),) = linux_reads(data)
    changed = bytearray(label)
    struct.pack_into(form, changed, offset, value)
    start = SLOTS + 256 * slot
    return data[:start] + summed(changed, 248) + data[start + 256 :]
