"""Labels: written as drivers/nvdimm/label.c reads them; regions that come back; garbage and torn writes."""

import random
import struct

import pytest

from softcxl.host.labelarea import LabelArea, fletcher64
from softcxl.host.system import System
from tests.host.fake import GIB, MIB, machine

SHARE = 256 * MIB


@pytest.fixture
def pair(made):
    devices = made(2, volatile=SHARE, persistent=2 * SHARE, label_storage=128 << 10)
    return machine(devices, windows=[{"size": 2 * GIB}])


def forgotten(fake):
    """After a power cycle: decoders are empty, labels and persistent bytes are not."""
    for device in fake.devices():
        device.reset()
    fake.bridges[0].component.data[0x1090:0x1100] = bytes(0x70)
    return fake


def linux_reads(area):
    """The active labels of an area, written from __nd_label_validate and nd_label_active: (slot, label bytes)."""

    def checksum(data):
        low = high = 0
        for (value,) in struct.iter_unpack("<I", data):
            low = (low + value) % 2**32
            high = (high + low) % 2**32
        return high << 32 | low

    slots = len(area) // 256
    size = (72 + -(-slots // 8) + 255) // 256 * 256
    slots = (len(area) - 2 * size) // 256
    valid = []
    for number in (0, 1):
        block = area[number * size : (number + 1) * size]
        signature, labelsize, seq, mine, its, other, labels, count, major, minor, total = struct.unpack_from(
            "<16s3xBIQQQQIHHQ", block
        )
        if signature != b"NAMESPACE_INDEX\0" or major * 100 + minor < 102 or labelsize != 1:
            continue
        if checksum(block[:64] + bytes(8) + block[72:]) != total or not seq & 3:
            continue
        if (
            (mine, other, labels) != (number * size, (1 - number) * size, 2 * size)
            or its > size
            or count > slots
        ):
            continue
        valid.append((seq, count, block[72:]))
    if not valid:
        return None
    if len(valid) == 2:
        follows = {1: 2, 2: 3, 3: 1}
        valid = [valid[1] if follows[valid[0][0]] == valid[1][0] else valid[0]]
    _, count, free = valid[0]
    found = []
    for slot in range(count):
        if not free[slot // 8] >> slot % 8 & 1:
            label = area[2 * size + 256 * slot :][:256]
            assert checksum(label[:248] + bytes(8)) == int.from_bytes(label[248:], "little")
            found.append((slot, label))
    return found


def area(device):
    return device.labels._medium.read(0, device.labels.size)


def test_linux_reads_what_is_written(pair):
    system = System(pair)
    system.create_region(["mem0"], type="ram")
    region = system.create_region(["mem1", "mem0"], type="pmem", size=2 * SHARE, granularity=1024)
    assert region.labelled
    for position, device in enumerate(reversed(pair.devices())):
        ((slot, label),) = linux_reads(area(device))
        kind, uuid, flags, count, place, dpa, raw, hpa, own, ig, align = struct.unpack_from(
            "<16s16sIHHQQQIII", label
        )
        assert kind.hex() == "529d7c61da0747c4a93fecdf2c06f444"
        assert region.uuid is not None
        assert uuid == region.uuid.bytes
        assert (flags, count, place, dpa, raw) == (0, 2, position, SHARE, SHARE)
        assert (hpa, own, ig, align) == (region.hpa, slot, 2, 1)


def test_regions_come_back(pair):
    system = System(pair)
    system.create_region(["mem0"], type="pmem", size=SHARE).write(0, b"one")
    region = system.create_region(["mem1"], type="pmem", size=SHARE)
    region.write(5, b"two")
    places = {one.uuid: (one.hpa, one.size, one.ways) for one in system.regions.values()}
    again = System(forgotten(pair))
    assert again.problems == []
    assert {one.uuid: (one.hpa, one.size, one.ways) for one in again.regions.values()} == places
    assert all(one.labelled and one.enabled for one in again.regions.values())
    assert next(one for one in again.regions.values() if one.uuid == region.uuid).read(5, 3) == b"two"
    assert System(forgotten(pair), restore=False).regions == {}


def test_destroyed_regions_stay_away(pair):
    system = System(pair)
    region = system.create_region(type="pmem", size=2 * SHARE)
    system.destroy_region(region)
    assert linux_reads(area(pair.devices()[0])) == []
    assert System(forgotten(pair)).regions == {}


def test_a_region_that_firmware_has_programmed_takes_its_uuid_from_the_labels(pair):
    region = System(pair).create_region(type="pmem", size=2 * SHARE)
    (found,) = System(pair).regions.values()
    assert found.automatic
    assert found.uuid == region.uuid


def test_its_addresses_may_be_taken(pair):
    region = System(pair).create_region(type="pmem", size=2 * SHARE)
    forgotten(pair)
    System(pair, restore=False).create_region(type="ram", size=2 * SHARE)
    again = System(pair)
    found = next(one for one in again.regions.values() if one.type == "pmem")
    assert found.uuid == region.uuid
    assert found.hpa == region.hpa + 2 * SHARE


@pytest.mark.parametrize("missing", [0, 1])
def test_a_device_of_it_is_missing(pair, missing):
    System(pair).create_region(["mem0", "mem1"], type="pmem", size=2 * SHARE)
    forgotten(pair)
    pair.bridges[0].ports[missing].below[0] = None
    system = System(pair)
    assert system.regions == {}
    assert f"of 2 positions {missing} are missing" in system.problems[0]


def test_every_torn_write_leaves_all_or_nothing(pair):
    """Power is lost after any number of Set LSA commands: what comes back is the region or none, and no label lies."""
    outcomes = set()
    for count in range(1, 30):
        for device in pair.devices():
            device.labels.clear()
        forgotten(pair)
        system = System(pair)
        _cut(pair, count)
        region = system.create_region(type="pmem", size=2 * SHARE)
        region.write(0, b"data")
        complete = _uncut(pair)
        again = System(forgotten(pair))
        if again.regions:
            assert next(iter(again.regions.values())).uuid == region.uuid
        outcomes.add((complete, bool(again.regions)))
        # whatever it was, a new one can be made and comes back
        if not again.regions:
            made = again.create_region(type="pmem", size=2 * SHARE)
            assert made.labelled, again.problems
            assert [one.uuid for one in System(forgotten(pair)).regions.values()] == [made.uuid]
    assert outcomes >= {(False, False), (True, True)}


def _cut(fake, writes):
    """From now on only so many writes of labels reach the media, the last of them in part."""
    left = [writes]
    for device in fake.devices():
        medium = device.labels._medium
        medium.original = medium.write

        def write(offset, data, medium=medium):
            left[0] -= 1
            if left[0] > 0:
                medium.original(offset, data)
            elif left[0] == 0:
                medium.original(offset, data[: len(data) // 2])

        medium.write = write
    fake.left = left


def _uncut(fake):
    for device in fake.devices():
        device.labels._medium.write = device.labels._medium.original
    return fake.left[0] > 0


def test_garbage_is_survived(pair):
    rng = random.Random(5)
    System(pair).create_region(type="pmem", size=2 * SHARE)
    good = [area(device) for device in pair.devices()]
    for _ in range(60):
        forgotten(pair)
        for device, data in zip(pair.devices(), good, strict=True):
            spoiled = bytearray(data)
            for _ in range(rng.choice((1, 3, 50))):
                at = rng.choice((rng.randrange(3072), rng.randrange(len(spoiled))))
                spoiled[at] = rng.randrange(256)
            device.labels._medium.write(0, bytes(spoiled))
        system = System(pair)
        for region in system.regions.values():
            assert region.size == 2 * SHARE
    for device in pair.devices():
        device.labels._medium.write(0, rng.randbytes(128 << 10))
    system = System(forgotten(pair))
    assert system.create_region(type="pmem", size=2 * SHARE).labelled


def test_all_slots_in_use(made):
    devices = made(1, volatile=0, persistent=GIB, label_storage=256 * 4, decoders=8)
    fake = machine(devices, windows=[{}])
    system = System(fake)
    # two index blocks leave two slots; an update needs a free one
    assert LabelArea(system.memdevs["mem0"]).slots == 2
    first = system.create_region(["mem0"], size=SHARE)
    second = system.create_region(["mem0"], size=SHARE)
    assert (first.labelled, second.labelled) == (True, False)
    assert "region1 has no labels, and will not come back by itself: mem0: " in system.problems[0]


def test_no_label_storage(made):
    fake = machine(made(1, volatile=0, persistent=GIB), windows=[{}])
    system = System(fake)
    region = system.create_region()
    assert region.type == "pmem"
    assert not region.labelled
    assert "0 bytes has no room for labels" in system.problems[0]
    system.destroy_region(region)


def test_fletcher():
    # nd_fletcher64 of the words 1, 2, 3: sums 1 3 6, and sums of sums 1 4 10
    assert fletcher64(struct.pack("<III", 1, 2, 3)) == 10 << 32 | 6
