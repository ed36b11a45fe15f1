"""From a topology to live devices: what they are, where their bytes appear for a host, and what survives."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.decoder import CommitError
from softcxl.fabric import topology
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.spec.command.label import GetLsaRequest, SetLsaRequest
from softcxl.wire import Reset

MIB = 1 << 20
SHARE = 256 * MIB
BASE = 0x1_0000_0000  # 4 GiB: q35 puts device memory there beside 1 GiB of RAM
PAIR = """
devices:
  mem0: {volatile: 256MiB, serial: 1}
  mem1: {volatile: 256MiB, serial: 2}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""


def build(text: str, folder: Path = Path()) -> Fabric:
    return Fabric(topology.loads(text, folder=folder), folder=folder, clock=ManualClock())


def numbered(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def dealt(shares: list[bytes], granularity: int) -> bytes:
    """The shares, a granule of each in turn."""
    cards = zip(*(np.frombuffer(share, np.uint8).reshape(-1, granularity) for share in shares), strict=True)
    return b"".join(card.tobytes() for turn in cards for card in turn)


def test_devices_are_what_the_topology_says():
    text = "devices: {mem0: {volatile: 256MiB, persistent: 512MiB, serial: 0xAB, decoders: 8, event_log_depth: 3}}"
    with build(text) as fabric:
        device = fabric.devices["mem0"]
        assert (device.capacity.volatile, device.capacity.persistent) == (256 * MIB, 512 * MIB)
        assert device.serial == 0xAB
        assert len(device.decoders.decoders) == 8
        assert device.labels.size == 128 << 10
        assert device.capacity_commands.identify().warning_event_log_size == 3


@pytest.mark.parametrize("granularity", [256, 1024, 16384])
@pytest.mark.parametrize("order", [["mem0", "mem1"], ["mem1", "mem0"]])
def test_a_region_is_dealt_to_devices_in_the_order_in_which_they_commit(order, granularity):
    with build(PAIR) as fabric:
        memory = fabric.hosts["alpha"].memory
        shares = [numbered(64 << 10, seed) for seed in range(2)]
        for name, share in zip(order, shares, strict=True):
            fabric.devices[name].space.write(0, share)
            fabric.devices[name].decoders.program(
                0, hpa=BASE, size=2 * SHARE, ways=2, granularity=granularity
            )
        assert memory.windows[0].medium.read(0, 128 << 10) == dealt(shares, granularity)
        assert memory.members(BASE + 5) == [fabric.devices[name] for name in order]
        memory.windows[0].medium.write(0, dealt(shares[::-1], granularity))
        assert [fabric.devices[name].space.read(0, 64 << 10) for name in order] == shares[::-1]


def test_a_position_is_free_again_after_its_device_has_left():
    with build(PAIR) as fabric:
        memory, devices = fabric.hosts["alpha"].memory, fabric.devices
        for name in ("mem0", "mem1"):
            devices[name].decoders.program(0, hpa=BASE, size=2 * SHARE, ways=2, granularity=256)
        devices["mem0"].reset(Reset.HOT)
        assert memory.members(BASE) == [devices["mem1"]]
        devices["mem0"].decoders.program(0, hpa=BASE, size=2 * SHARE, ways=2, granularity=256)
        assert memory.members(BASE) == [devices["mem0"], devices["mem1"]]


def test_commits_that_the_host_refuses_say_why_and_change_nothing():
    text = PAIR.replace("ports: [mem0, mem1]", "ports: [mem0, mem1, mem2]").replace(
        "hosts:", "  mem2: {volatile: 256MiB, serial: 3}\nhosts:"
    )
    with build(text) as fabric:
        devices = fabric.devices
        for name in ("mem0", "mem1"):
            devices[name].decoders.program(0, hpa=BASE, size=2 * SHARE, ways=2, granularity=256)
        with pytest.raises(CommitError, match="all 2 positions of the interleave set are taken"):
            devices["mem2"].decoders.program(0, hpa=BASE, size=2 * SHARE, ways=2, granularity=256)
        assert not devices["mem2"].decoders.committed
    with build(PAIR) as fabric:
        with pytest.raises(CommitError, match="no window holds host addresses 0x80000000 to 0x90000000"):
            fabric.devices["mem0"].decoders.program(0, hpa=0x8000_0000, size=SHARE, ways=1, granularity=256)
        assert fabric.devices["mem0"].decoders.decoders[0].registers.control.error_not_committed


FIRMWARE = PAIR + "    regions: [{window: 0, devices: [mem1, mem0], granularity: 4096}]\n"


def test_firmware_programs_its_regions_at_power_on_and_after_every_reset():
    with build(FIRMWARE) as fabric:
        memory, devices = fabric.hosts["alpha"].memory, fabric.devices
        for _ in range(2):
            assert memory.members(BASE) == [devices["mem1"], devices["mem0"]]
            for device in devices.values():
                (mapping,) = device.decoders.mappings
                assert (mapping.hpa, mapping.size, mapping.ways, mapping.granularity) == (
                    BASE,
                    2 * SHARE,
                    2,
                    4096,
                )
                assert device.dvsec.control.mem_enable
            # whichever device resets first, positions are the topology's
            for name in ("mem0", "mem1"):
                devices[name].reset(Reset.HOT)


def test_firmware_regions_of_one_device_follow_one_another_and_skip_what_is_volatile():
    text = """
devices: {mem0: {volatile: 512MiB, persistent: 256MiB}}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0]}]
    regions:
      - {window: 0, devices: [mem0], size: 256MiB}
      - {window: 0, devices: [mem0], type: pmem}
"""
    with build(text) as fabric:
        mappings = fabric.devices["mem0"].decoders.mappings
        assert [(one.hpa - BASE, one.size, one.dpa, one.skip) for one in mappings] == [
            (0, SHARE, 0, 0),
            (SHARE, SHARE, 512 * MIB, SHARE),
        ]


STATEFUL = """
state: kept
devices: {mem0: {volatile: 256MiB, persistent: 256MiB}}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""


def test_persistent_capacity_and_labels_survive_and_volatile_capacity_does_not(tmp_path):
    with build(STATEFUL, tmp_path) as fabric:
        device = fabric.devices["mem0"]
        device.space.write(0, b"volatile")
        device.space.write(SHARE, b"persistent")
        device.labels.set_lsa(SetLsaRequest(offset=4096, data=b"labels"))
    with build(STATEFUL, tmp_path) as fabric:
        device = fabric.devices["mem0"]
        assert device.space.read(0, 8) == bytes(8)
        assert device.space.read(SHARE, 10) == b"persistent"
        assert device.labels.get_lsa(GetLsaRequest(offset=4096, length=6)).data == b"labels"


@pytest.mark.parametrize(
    "later",
    [
        STATEFUL,
        STATEFUL.replace("    windows: [{size: 1GiB, targets: [hb0]}]\n", ""),
        STATEFUL.split("hosts:")[0],
    ],
    ids=["the same", "without its window", "without its host"],
)
def test_what_rests_in_a_window_is_found_again_whatever_became_of_the_window(tmp_path, later):
    with build(STATEFUL, tmp_path) as fabric:
        device = fabric.devices["mem0"]
        device.decoders.program(0, hpa=BASE, size=SHARE, ways=1, granularity=256, skip=SHARE)
        fabric.hosts["alpha"].memory.windows[0].medium.write(0, b"stored by a guest")
    with build(later, tmp_path) as fabric:
        assert fabric.devices["mem0"].space.read(SHARE, 17) == b"stored by a guest"


def test_state_in_use_by_another_process_is_refused(tmp_path):
    with (
        build(STATEFUL, tmp_path),
        pytest.raises(BuildError, match=rf"kept is in use .*process {os.getpid()}"),
    ):
        build(STATEFUL, tmp_path)
    build(STATEFUL, tmp_path).close()


def test_a_file_of_another_size_is_refused(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mem0.mem").write_bytes(b"x" * 5000)
    with pytest.raises(BuildError, match=r"mem0\.mem"):
        build(STATEFUL, tmp_path)
    assert (tmp_path / "kept" / "mem0.mem").read_bytes() == b"x" * 5000


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(BuildError, match="kept"):
        build(STATEFUL, tmp_path)


@pytest.mark.parametrize(
    ("source", "named", "why"),
    [
        (None, "absent_module:Device", "No module named 'absent_module'"),
        ("x = 1", "own_device:Device", "has no attribute 'Device'"),
        ("def", "own_device:Device", "SyntaxError"),
        ("1 / 0", "own_device:Device", "ZeroDivisionError: division by zero"),
        ("class Device: pass", "own_device:Device", "is no subclass of softcxl.Type3"),
    ],
)
def test_a_device_class_that_cannot_be_had_is_refused(tmp_path, monkeypatch, source, named, why):
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_device", raising=False)
    if source:
        (tmp_path / "own_device.py").write_text(source)
    text = f'devices: {{mem0: {{volatile: 256MiB, class: "{named}"}}}}'
    with pytest.raises(BuildError, match=rf"devices\.mem0\.class: {named} .*{why}"):
        build(text, tmp_path)


def test_a_fabric_that_fails_to_build_leaves_nothing_open(tmp_path):
    gc.collect()  # what earlier tests have let go of is not ours
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    text = STATEFUL.replace("{mem0:", '{bad: {volatile: 256MiB, class: "absent_module:Device"}, mem0:')
    with pytest.raises(BuildError):
        build(text, tmp_path)
    with build(STATEFUL, tmp_path):
        pass
    assert len(list(descriptors.iterdir())) == before
