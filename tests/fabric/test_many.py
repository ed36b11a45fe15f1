"""Fabrics of many devices: what they take of the process grows with their number and no faster."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from softcxl.fabric import keys
from softcxl.fabric.build import Fabric

MIB = 1 << 20


def tree(count):
    """So many devices behind three levels of switches, eight to a switch."""
    devices = {f"m{at}": keys.Type3(volatile=256 * MIB) for at in range(count)}
    names = list(devices)
    switches: dict[str, keys.Switch] = {}
    for level in "cba":
        groups = [names[at : at + 8] for at in range(0, len(names), 8)]
        names = [f"{level}{at}" for at in range(len(groups))]
        switches |= {name: keys.Switch(ports=list(group)) for name, group in zip(names, groups, strict=True)}
    bridges = {f"hb{at}": keys.Bridge(ports=[name]) for at, name in enumerate(names)}
    host = keys.Host(bridges=bridges, windows=[keys.Window(size=1024 * MIB, targets=["hb0"])])
    return keys.Topology(devices=devices, switches=switches, hosts={"a": host})


def calls(count):
    """Python calls to build, boot and list a fabric of so many devices."""
    made = 0

    def called(frame, event, argument):
        nonlocal made
        made += event == "call"

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        with Fabric(tree(count)) as fabric:
            system = fabric.hosts["a"].boot()
            system.listing(verbose=2)
            found = len(system.memdevs)
    finally:
        sys.setprofile(before)
    assert found == count
    return made


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What is made once in a process is made before anything is counted."""
    with Fabric(tree(2)) as fabric:
        fabric.hosts["a"].boot().listing(verbose=2)


def test_work_grows_with_the_number_of_devices():
    small, large = calls(32), calls(128)
    # Four times the devices. The switches above and the host are shared by more, so it is less than that;
    # a search among all devices for each of them would be far more.
    assert large < 4 * small


def test_devices_that_nobody_maps_have_no_file_descriptor():
    def descriptors():
        gc.collect()  # what earlier tests have let go of is not ours
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = descriptors()
    with Fabric(tree(64)) as fabric:
        system = fabric.hosts["a"].boot()
        assert len(system.memdevs) == 64
        assert descriptors() - before < 8
    assert descriptors() == before


PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
sys.path.insert(0, {folder!r})
from test_many import tree
from softcxl.fabric.build import Fabric
with Fabric(tree(150)) as fabric:
    system = fabric.hosts["a"].boot()
    region = system.create_region(["mem0", "mem1"], type="ram")
    region.write(0, b"few files")
    print(len(system.memdevs), len(system.listing(verbose=2)) > 0, bytes(region.read(0, 9)))
"""


def test_a_fabric_of_more_devices_than_the_process_may_have_files():
    folder = os.fspath(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(folder=folder)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "150 True b'few files'\n"
