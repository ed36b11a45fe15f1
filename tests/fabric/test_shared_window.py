"""Windows of a device's dynamic capacity: what the topology may say of them, and whose memory they are."""

from __future__ import annotations

import logging
import os

import pytest

from softcxl import Fabric
from softcxl.device.decoder import CommitError
from softcxl.fabric.topology import TopologyError, loads
from softcxl.fabric.tree import tree

MIB = 1 << 20
REGIONS = "dynamic: [{length: 300MiB, flags: [sharable]}]"
POOL = f"{{type: mld, volatile: 512MiB, logical_devices: [256MiB, 256MiB], {REGIONS}}}"
PLAIN = "{volatile: 256MiB, dynamic: [{length: 512MiB}]}"


def text(window: str, *, device: str = POOL) -> str:
    windows = f"windows: [{{size: 256MiB, targets: [b]}}, {window}]"
    host = f"{{bridges: {{b: {{ports: [null]}}, c: {{ports: [null]}}}}, {windows}}}"
    return f"devices: {{pool: {device}}}\nhosts: {{a: {host}, z: {host}}}"


SHARED = "{size: 512MiB, targets: [b], shared: pool}"


def test_all_windows_of_it_are_one_file() -> None:
    with Fabric.loads(text(SHARED)) as fabric:
        one, other = (fabric.hosts[name].memory.windows for name in "az")
        pool = fabric.mlds["pool"].dynamic
        assert pool is not None
        files = [os.fstat(window.medium.fd).st_ino for window in (*one, *other)]
        assert files[1] == files[3] == os.fstat(pool.medium.fd).st_ino
        assert len({*files}) == 3
        assert one[1].window.size == pool.medium.size == 512 * MIB
        assert one[1].base == other[1].base == 5 << 30


def test_a_device_shows_its_dynamic_capacity_there_and_nowhere_else(
    fabric: Fabric, caplog: pytest.LogCaptureFixture
) -> None:
    device, memory = fabric.devices["pool.1"], fabric.hosts["z"].memory
    for one in memory.windows:
        device.space.attach(one.window)
    memory.plug(device)
    program = device.decoders.program
    with caplog.at_level(logging.WARNING), pytest.raises(CommitError, match="is not of the memory that"):
        program(0, hpa=5 << 30, size=256 * MIB, ways=1, granularity=256)
    program(0, hpa=4 << 30, size=256 * MIB, ways=1, granularity=256)
    with caplog.at_level(logging.WARNING), pytest.raises(CommitError, match="each byte at its place"):
        program(1, hpa=(5 << 30) + 256 * MIB, size=256 * MIB, ways=1, granularity=256, skip=256 * MIB)
    program(1, hpa=5 << 30, size=512 * MIB, ways=1, granularity=256, skip=256 * MIB)
    device.space.write(512 * MIB + 5, b"seen")
    assert fabric.hosts["a"].memory.windows[1].medium.read(5, 4) == b"seen"
    assert [one.levelname for one in caplog.records] == ["WARNING", "WARNING"]
    device.decoders.reset()
    assert device.space.commitments == ()
    assert device.space.read(512 * MIB + 5, 4) == b"seen"


@pytest.fixture
def fabric():
    with Fabric.loads(text(SHARED)) as fabric:
        yield fabric


def test_the_tree_says_whose_it_is() -> None:
    assert "window 1: 512MiB over b, volatile and persistent, the dynamic capacity of pool" in str(
        tree(loads(text(SHARED)))
    )


@pytest.mark.parametrize(
    ("given", "path", "says"),
    [
        (
            text("{size: 512MiB, targets: [b], shared: pol}"),
            "windows[1].shared",
            "'pol' is no device of type `mld`",
        ),
        (text(SHARED, device=PLAIN), "windows[1].shared", "'pool' is no device of type `mld` with `dynamic`"),
        (
            text(SHARED, device="{type: mld, volatile: 256MiB, logical_devices: [256MiB]}"),
            "windows[1].shared",
            "'pool' is no device of type `mld` with `dynamic`",
        ),
        (
            text("{size: 256MiB, targets: [b], shared: pool}"),
            "windows[1].size",
            "256MiB; the regions of pool take 512MiB",
        ),
        (text("{size: 512MiB, targets: [b, c], shared: pool}"), "windows[1].targets", "give one target"),
    ],
)
def test_what_cannot_be(given: str, path: str, says: str) -> None:
    with pytest.raises(TopologyError) as raised:
        loads(given)
    found = [one for one in raised.value.problems if one.path == f"hosts.a.{path}"]
    assert len(found) == 1
    assert says in found[0].message


def test_firmware_makes_no_region_in_it() -> None:
    given = (
        "devices: {pool: " + POOL + ", mem0: {volatile: 256MiB}}\n"
        "hosts: {a: {bridges: {b: {ports: [mem0]}}, windows: ["
        + SHARED
        + "], regions: [{window: 0, devices: [mem0]}]}}"
    )
    with pytest.raises(TopologyError, match="window 0 is the dynamic capacity of pool, and of nothing else"):
        loads(given)
