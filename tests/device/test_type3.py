"""A device's life: what it holds while it lives, and that nothing is left."""

import gc
import threading
from pathlib import Path

import pytest

from softcxl.device.type3 import Type3
from softcxl.memory.media import Medium
from softcxl.testing.driver import Driver
from tests.device.conftest import MIB


def holdings():
    """Open files, threads and mapped memory files of this process."""
    gc.collect()  # what earlier tests have let go of is not ours
    files = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            files.append(str(entry.readlink()))
        except FileNotFoundError:
            pass  # the listing's own descriptor
    maps = Path("/proc/self/maps").read_text()
    return sorted(files), threading.active_count(), maps.count("/memfd:")


def test_nothing_is_left_of_a_closed_device():
    before = holdings()
    device = Type3("mem0", volatile=256 * MIB, persistent=256 * MIB, label_storage=4096)
    driver = Driver(device)
    driver.send(0x4400)  # starts the clock's thread
    assert holdings() != before
    device.close()
    device.close()
    assert holdings() == before


@pytest.mark.parametrize("wrong", [{"payload": 100}, {"event_log_depth": 0}])
def test_nothing_is_left_of_a_device_that_cannot_be(wrong):
    before = holdings()
    with pytest.raises(ValueError, match=r"payload|depth"):
        Type3("mem0", volatile=256 * MIB, label_storage=4096, **wrong)
    assert holdings() == before


def test_media_of_others_stay_open(clock):
    medium, labels = Medium.memfd("m", 256 * MIB), Medium.memfd("l", 4096)
    device = Type3(
        "mem0", persistent=256 * MIB, medium=medium, label_medium=labels, label_storage=4096, clock=clock
    )
    Driver(device).send(0x4103, bytes(8) + b"label")
    device.space.write(64, b"data")
    device.close()
    assert labels.read(0, 5) == b"label"
    assert medium.read(64, 4) == b"data"
    medium.close()
    labels.close()


def test_persistent_capacity_on_a_file_outlives_the_device(tmp_path, clock):
    path = tmp_path / "mem0.mem"
    for expected in (bytes(4), b"data"):
        medium = Medium.open(path, 512 * MIB)
        device = Type3("mem0", volatile=256 * MIB, persistent=256 * MIB, medium=medium, clock=clock)
        assert device.space.persistent_from == 256 * MIB
        assert device.space.read(300 * MIB, 4) == expected
        device.space.write(300 * MIB, b"data")
        device.close()
        medium.close()
    assert path.stat().st_blocks * 512 < 1 * MIB  # it is sparse


def test_ids_are_the_class_s_or_those_given(make):
    class Mine(Type3):
        vendor_id, device_id = 0x1234, 0x5678

    device = Mine("mine", volatile=256 * MIB)
    assert device.read(7, 0, 4) == bytes.fromhex("34127856")
    device.close()
    assert make(vendor_id=0xABCD, device_id=0x0102).read(7, 0, 4) == bytes.fromhex("cdab0201")
