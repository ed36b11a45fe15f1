"""What outlives a device's process: allocations, what logical devices remember, and their persistent bytes; after a
kill at any instant of an allocation, too."""

import json
import struct
from pathlib import Path
from unittest import mock

import pytest

from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.persist import StateDamaged, StatePage
from softcxl.memory.errors import MediumUnfit
from softcxl.memory.media import Medium
from softcxl.testing.driver import Driver
from tests.device.mld.conftest import GIB, MIB, Door

SUCCESS = 0
UNIT = 256 * MIB


@pytest.fixture
def kept(make, tmp_path):
    def build(**options):
        return make(state=tmp_path / "pool.state", folder=tmp_path, **options)

    return build


def dirty_shutdowns(device):
    return struct.unpack_from("<I", Driver(device).send(0x4200)[1], 6)[0]


def test_a_restart(kept, tmp_path):
    first = kept()
    first.allocate({0: 0, 2: (UNIT, UNIT)})
    one, two = first.logical[1], first.logical[2]
    for device, text in ((one, b"one"), (two, b"two")):
        device.space.write(0, text)
        device.space.write(device.capacity.volatile, text)
        Driver(device).send(0x4103, struct.pack("<II", 0, 0) + text)
    Driver(two).send(0x4204, b"\1")  # the shutdown state is dirty
    assert {path.name for path in tmp_path.iterdir()} >= {"pool.1.mem", "pool.1.mem.labels", "pool.2.mem"}
    for device in first.logical.values():
        device.medium.close()  # the process was killed
        device.labels._medium.close()
    again = kept(logical_devices=[GIB, 0, 0, 0])
    assert sorted(again.logical) == [1, 2]
    for ld, text in ((1, b"one"), (2, b"two")):
        device = again.logical[ld]
        assert device.space.read(device.capacity.volatile, 3) == text
        assert device.space.read(0, 3) == bytes(3)
        assert Driver(device).send(0x4102, struct.pack("<II", 0, 3)) == (SUCCESS, text)
    assert [dirty_shutdowns(again.logical[ld]) for ld in (1, 2)] == [0, 1]
    Driver(again.logical[2]).send(0x4204, b"\1")
    again.allocate({2: 0})
    assert not (tmp_path / "pool.2.mem").exists()
    assert again.page.sections["ld2"] == {}  # the old one has nothing to say any more
    again.allocate({2: (UNIT, UNIT)})
    assert again.logical[2].space.read(UNIT, 3) == bytes(3)
    assert dirty_shutdowns(again.logical[2]) == 0


def test_without_persistent_memory_there_are_no_files(kept, tmp_path):
    kept(logical_devices=[GIB, 0])
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".mem"] == []


@pytest.mark.parametrize(
    "section",
    [
        {"each": [[GIB, 0]] * 3, "fresh": []},
        {"each": [[5 * GIB, 0], [0, 0], [0, 0], [0, 0]], "fresh": []},
        {"each": [[1, 0], [0, 0], [0, 0], [0, 0]], "fresh": []},
        {"each": "all", "fresh": []},
        {"each": [[0, 0]] * 4},
        {"each": [[0]] * 4, "fresh": []},
    ],
    ids=str,
)
def test_state_of_another_device(make, tmp_path, section):
    page = tmp_path / "pool.state"
    page.write_text(json.dumps({"format": 1, "sections": {"allocations": section}}))
    with pytest.raises(StateDamaged, match="allocations cannot have been"):
        make(state=page)


@pytest.mark.parametrize(
    "section",
    [
        {"allocated": [0] * 3, "limits": [255] * 4},
        {"allocated": [256, 0, 0, 0], "limits": [255] * 4},
        {"allocated": [100, 100, 100, 0], "limits": [255] * 4},
        {"allocated": [0] * 4},
    ],
    ids=str,
)
def test_fractions_of_another_device(make, tmp_path, section):
    page = tmp_path / "pool.state"
    page.write_text(json.dumps({"format": 1, "sections": {"qos": section}}))
    with pytest.raises(StateDamaged, match="qos cannot have been"):
        make(state=page)


class Full(StatePage):
    """A page on a disk that is full."""

    def _keep(self, section, content):
        raise OSError(28, "No space left on device")


def test_what_cannot_be_kept_has_not_happened(make):
    pool = make(state=Full())
    device = pool.logical[0]
    device.space.write(0, b"bytes")
    door = Door(pool.management)
    code, _ = door.send(0x5402, struct.pack("<BBxxQQ", 1, 0, 0, 0))
    assert (code, pool.logical[0], device.space.read(0, 5)) == (0x04, device, b"bytes")
    assert door.send(0x5407, b"\1\0\1") == (0x04, b"")
    assert door.send(0x5406, b"\1\0") == (SUCCESS, b"\1\0\0")


class FullOnce(StatePage):
    """A page whose disk is full for some writes, by their numbers from 1."""

    def __init__(self, path, *full):
        super().__init__(path)
        self.full, self.writes = full, 0

    def _keep(self, section, content):
        self.writes += 1
        if self.writes in self.full:
            raise OSError(28, "No space left on device")
        super()._keep(section, content)


def test_an_allocation_that_is_kept_but_for_its_last_write(make, tmp_path):
    """It is done. Contents would not be kept yet, so that nobody can have it before they are."""
    pool = make(state=FullOnce(tmp_path / "pool.state", 2, 3), logical_devices=[0, 0, 0, 0])
    pool.allocate({1: UNIT})
    with pytest.raises(ValueError, match=r"pool\.1: its allocation cannot be kept: .*No space left"):
        pool.logical[1].bind("somebody")
    assert pool.logical[1].holder is None
    pool.logical[1].bind("somebody")
    pool.close()
    kept = json.loads((tmp_path / "pool.state").read_text())["sections"]["allocations"]
    assert (kept["each"][1], kept["fresh"]) == ([UNIT, 0], [])


def test_extents_of_a_logical_device_that_starts_anew_are_free(make, tmp_path):
    """Killed as soon as the allocation is kept, before anybody has let go of anything."""
    regions = [DynamicRegion(length=UNIT, non_volatile=True, sanitize_on_release=True)]
    options = {"state": tmp_path / "pool.state", "folder": tmp_path, "dynamic": regions}
    pool = make(logical_devices=[UNIT, UNIT, 0, 0], **options)
    dynamic = pool.dynamic
    for ld in (0, 1):
        dynamic.add(length=MIB * 2, host=ld)
        extent = dynamic.pending if not ld else tuple(dynamic.hosts[1].pending)
        dynamic.hosts[ld].set(extent)
        dynamic.medium.write(extent[0].start - dynamic.start, b"secret")
    taken = [dynamic.hosts[ld].accepted[0].range for ld in (0, 1)]
    pool.page.put("allocations", each=[[0, 0], [UNIT, 0], [UNIT, 0], [0, 0]], fresh=[0, 2])
    pool.close()
    pool = make(logical_devices=[UNIT, UNIT, 0, 0], **options)
    assert [one.range for one in pool.dynamic.hosts[1].accepted] == taken[1:]
    assert pool.dynamic.medium.read(taken[0][0] - pool.dynamic.start, 6) == bytes(6)
    assert pool.dynamic.medium.read(taken[1][0] - pool.dynamic.start, 6) == b"secret"
    assert pool.dynamic.free()[0][0] == taken[0][0]
    pool.allocate({0: UNIT})
    assert pool.dynamic.hosts[0].accepted == ()


def test_a_medium_that_cannot_be_made(kept, tmp_path):
    """That logical device has no memory then; the others have what was asked for, and another start finds the same."""
    pool = kept(logical_devices=[0, 0, 0, 0])
    opened = Medium.open

    def fails(path, size, reserve=False):
        if Path(path).name.startswith("pool.1"):
            raise MediumUnfit("no room")
        return opened(path, size, reserve)

    with mock.patch.object(Medium, "open", fails), pytest.raises(MediumUnfit):
        pool.allocate({0: UNIT, 1: (0, UNIT), 2: (0, UNIT)})
    assert sorted(pool.logical) == [0, 2]
    assert pool.allocations.free.persistent == 2 * GIB - UNIT
    pool.allocate({1: (0, UNIT)})
    assert sorted(pool.logical) == [0, 1, 2]


class Killed(BaseException):
    """The process is no more."""


def test_a_kill_at_any_instant(make, tmp_path):
    """Every write to the page, and every file that is made or deleted, may be the last thing that happens."""

    def attempt(folder, last):
        """Allocations, bytes and labels as they are after a restart, and whether the process came through."""
        folder.mkdir()
        options = {
            "state": folder / "pool.state",
            "folder": folder,
            "logical_devices": [(0, UNIT), (UNIT, UNIT), 0, 0],
        }
        pool = make(**options)
        for ld, device in pool.logical.items():
            device.space.write(device.capacity.volatile, b"secret%d" % ld)
        done = 0

        def counted(real):
            def call(*given, **named):
                nonlocal done
                done += 1
                if done > last:
                    raise Killed
                return real(*given, **named)

            return call

        through = True
        before = list(pool.logical.values())
        with (
            mock.patch.object(StatePage, "_keep", counted(StatePage._keep)),
            mock.patch.object(Path, "unlink", counted(Path.unlink)),
            mock.patch.object(Medium, "open", counted(Medium.open)),
        ):
            try:
                pool.allocate({1: (2 * UNIT, UNIT), 2: (0, UNIT), 3: UNIT})
            except Killed:
                through = False
        for device in {*before, *pool.logical.values()}:
            device.medium.close()
            if device.labels.size:
                device.labels._medium.close()
        again = make(**options)
        found = {
            ld: (device.capacity.volatile, device.space.read(device.capacity.volatile, 7))
            for ld, device in again.logical.items()
            if device.capacity.persistent
        }
        assert not again.page.sections.get("allocations", {}).get("fresh")
        assert found.pop(0) == (0, b"secret0")
        return found, through

    old, new = {1: (UNIT, b"secret1")}, {1: (2 * UNIT, bytes(7)), 2: (0, bytes(7))}
    outcomes, through, last = [], False, 0
    while not through:
        found, through = attempt(tmp_path / str(last), last)
        outcomes.append(found)
        last += 1
    assert outcomes == [old] + [new] * (len(outcomes) - 1)
    assert len(outcomes) > 5


def test_a_page_of_ones_own(make):
    page = StatePage()
    pool = make(state=page)
    pool.allocate({3: GIB})
    assert page.sections["allocations"]["each"][3] == [GIB, 0]
    assert isinstance(pool, MultiLogicalDevice)
