"""Persistent capacity: a file in a DAX file system outlives guests, this process, and its sudden death."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softcxl import Fabric, boot
from softcxl.lab.parts import Parts
from tests.kernel.conftest import Linux

MIB = 1 << 20
CONTENT = bytes(range(251)) * 5000
DIGEST = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
REGION = "7a1e6f7c-0d0b-4f60-9b0e-3e1f5a6c7d8e"
# the kernel's names depend on who is found first, so the positions go by serial number
MAKE_REGION = (
    "set -- $(for dev in /sys/bus/cxl/devices/mem*; do echo $(cat $dev/serial):${dev##*/}; done | sort);"
    f" cxl create-region -t pmem -d decoder0.0 -w 2 -g 256 -U {REGION} -m ${{1#*:}} ${{2#*:}} 2>/dev/null"
)
MAKE_FILES = (
    "ndctl create-namespace -m fsdax -M mem -r region0 2>/dev/null"
    " && modprobe ext4 && mkfs.ext4 -q -b 4096 /dev/pmem0"
)
MOUNT = "modprobe ext4; mkdir -p /mnt/pmem && mount -t ext4 -o dax /dev/pmem0 /mnt/pmem"

TOPOLOGY = """
state: state
devices:
  mem0: &pmem {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE01}
  mem1: {<<: *pmem, serial: 0xC0FFEE02}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 1GiB, targets: [hb0], granularity: 256}]
"""
BY_FIRMWARE = TOPOLOGY + "    regions: [{window: 0, devices: [mem0, mem1], granularity: 256, type: pmem}]\n"


@contextmanager
def running(topology: Path, parts: Parts) -> Iterator[Linux]:
    with Fabric.load(topology) as fabric, boot(fabric, parts=parts) as machine:
        yield Linux(machine, fabric)


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    path = tmp_path / "fabric.yaml"
    path.write_text(TOPOLOGY)
    return path


def check(guest: Linux) -> None:
    """Mount the file system and compare the file; DAX is in effect, no page cache in between."""
    guest.sh(MOUNT)
    assert " ext4 rw,relatime,dax=always " in guest.sh("grep pmem0 /proc/mounts")
    assert guest.sh("md5sum /mnt/pmem/file").split()[0] == DIGEST


def test_a_file_outlives_guests_and_this_process(topology: Path, parts: Parts) -> None:
    with running(topology, parts) as guest:
        guest.sh(MAKE_REGION)
        guest.sh(MAKE_FILES)
        guest.machine.output(f"{MOUNT} && cat > /mnt/pmem/file && sync -f /mnt/pmem/file", given=CONTENT)
        check_is_in_python(guest.fabric)
        guest.machine.reboot()
        assert guest.json("cxl list -R") == []
        region = guest.json(MAKE_REGION)
        assert region["size"] == 512 * MIB
        # the namespace is made from its labels, nobody had to say more than where the region is
        [found] = guest.json("ndctl list -RN")["regions"]
        assert [one["blockdev"] for one in found["namespaces"]] == ["pmem0"]
        check(guest)
        guest.sh("umount /mnt/pmem")
    with running(topology, parts) as guest:
        check_is_in_python(guest.fabric)
        guest.sh(MAKE_REGION)
        check(guest)
        guest.sh("umount /mnt/pmem")
    # and where firmware makes the region, the kernel finds all of it by itself
    topology.write_text(BY_FIRMWARE)
    with running(topology, parts) as guest:
        [region] = guest.json("cxl list -R")
        assert (region["type"], region["size"], region["decode_state"]) == ("pmem", 512 * MIB, "commit")
        check(guest)


def check_is_in_python(fabric: Fabric) -> None:
    """The file's content lies in the devices' persistent capacity: put together as the region deals it out."""
    half = 64 * MIB
    parts = [
        memoryview(device.space.read(device.capacity.volatile, half)) for device in fabric.devices.values()
    ]
    whole = b"".join(part[at : at + 256] for at in range(0, half, 256) for part in parts)
    assert whole.find(CONTENT[:4096]) >= 0


def test_what_a_guest_has_synced_outlives_the_sudden_death_of_the_process(
    topology: Path, parts: Parts
) -> None:
    script = (
        f"{MAKE_REGION} >/dev/null && {{ {MAKE_FILES}; }} >/dev/null && {MOUNT}"
        " && cat /usr/bin/cxl > /mnt/pmem/file && sync -f /mnt/pmem/file && md5sum /mnt/pmem/file && tail -f /dev/null"
    )
    command = [sys.executable, "-c", "from softcxl.cli import main; main()", "vm", "run", "-q"]
    command += ["--timeout", "120", str(topology), script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        written = process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it ended by itself before it was killed"
    with running(topology, parts) as guest:
        guest.sh(MAKE_REGION)
        guest.sh(MOUNT)
        assert guest.sh("md5sum /mnt/pmem/file").split()[0] == written.decode().split()[0]
        guest.sh("cmp /mnt/pmem/file /usr/bin/cxl")
