"""Guests for the tests of this folder: a real Linux, booted once for a module, over a fabric in this process.

A module names its fabric as `TOPOLOGY` (a file of examples/, or YAML text); its tests take `guest` and `fabric`. Its
guest runs the distribution's kernel, or, where it says `KERNEL = "own"`, the one of `softcxl lab kernel build`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softcxl import Fabric, boot
from softcxl.device.type3 import Type3
from softcxl.lab.boot import Machine
from softcxl.lab.guest import Result
from softcxl.lab.kernel import build
from softcxl.lab.parts import Kernel, Parts
from softcxl.lab.setup import setup
from softcxl.wire import Reset

EXAMPLES = Path(__file__).parents[2] / "examples"
MOVABLE = ["memhp_default_state=online_movable"]
"""New memory is onlined so that it can be taken back."""

STEP = np.uint64(0x9E3779B97F4A7C15)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.guest)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def parts() -> Parts:
    """QEMU, kernel and tools; fetched where they are missing."""
    return setup().parts()


@pytest.fixture(scope="session")
def own_kernel() -> Kernel:
    """A kernel with all of CXL, raw commands too; built where it is missing."""
    return build()


@pytest.fixture(scope="module")
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    """The module's fabric, live."""
    given = request.module.TOPOLOGY
    with Fabric.loads(given) if "\n" in given else Fabric.load(EXAMPLES / given) as live:
        yield live


@pytest.fixture(scope="module")
def guest(request: pytest.FixtureRequest, fabric: Fabric, parts: Parts) -> Iterator[Linux]:
    """The module's guest, running."""
    if getattr(request.module, "KERNEL", "") == "own":
        parts = replace(parts, kernel=request.getfixturevalue("own_kernel"))
    with boot(fabric, parts=parts, append=MOVABLE) as running:
        yield Linux(quick(running), fabric)


def quick(machine: Machine) -> Machine:
    """`machine`, whose cxl does not read all of the kernel's symbols once for each device whose poison it lists: that
    is 6 s a device without KVM, for names of functions that no trace of CXL has."""
    machine.output("mount -o bind /dev/null /proc/kallsyms")
    return machine


@pytest.fixture
def tidy(guest: Linux) -> Iterator[None]:
    """Regions that a test has left behind, because it failed, are not in the way of the next one."""
    yield
    if any(device.decoders.mappings for device in guest.fabric.devices.values()):
        guest.run(
            "for each in /sys/bus/dax/drivers/device_dax/dax*.*; do daxctl disable-device ${each##*/}; done;"
            # a region goes only when no later one is left on its devices
            " for each in 1 2 3 4; do cxl destroy-region -f all && break; done"
        )


def pattern(length: int, seed: int) -> np.ndarray:
    """The words that `softcxl-memory fill` stores in `length` bytes (see src/softcxl/lab/inside/memory.c)."""
    with np.errstate(over="ignore"):
        return np.arange(length // 8, dtype=np.uint64) * STEP + np.uint64(seed)


def dealt(words: np.ndarray, ways: int, granularity: int, position: int) -> np.ndarray:
    """The words that the device at `position` holds: dealt out like cards, a granule to each in turn."""
    granules = words.reshape(-1, ways, granularity // 8)
    return granules[:, position].reshape(-1)


@dataclass
class Linux:
    """A guest with the words of these tests."""

    machine: Machine
    fabric: Fabric

    def run(self, command: str, timeout: float = 300.0) -> Result:
        return self.machine.run(command, timeout)

    def sh(self, command: str, timeout: float = 300.0) -> str:
        """The output of a command that must succeed."""
        return self.machine.output(command, timeout)

    def json(self, command: str) -> Any:
        return json.loads(self.sh(command))

    def memdev(self, device: str | Type3) -> str:
        """What the guest calls one of our devices."""
        serial = self.fabric.devices[device].serial if isinstance(device, str) else device.serial
        return str(next(one["memdev"] for one in self.json("cxl list -M -i") if one["serial"] == serial))

    def power_cycle(self, device: Type3) -> None:
        """Take the device away from the kernel, its power off and on, and let the kernel find it again."""
        slot = self.sh(f"basename $(readlink -f /sys/bus/cxl/devices/{self.memdev(device)}/..)").strip()
        self.sh(f"echo 1 > /sys/bus/pci/devices/{slot}/remove")
        device.reset(Reset.COLD)
        self.sh("echo 1 > /sys/bus/pci/rescan")
        # without media the kernel knows the device, and has no driver for its memory
        idle = "-i" if device.media_disabled else ""
        self.sh(
            f"until cxl list -M {idle} 2>&1 | grep -q :{device.serial},; do usleep 10000; done", timeout=180
        )
        if device.capacity.persistent and not device.media_disabled:
            self.sh("until [ -e /sys/bus/nd/devices/nmem* ]; do usleep 10000; done", timeout=180)

    def create_region(
        self,
        devices: list[str],
        *,
        granularity: int | None = None,
        decoder: str = "decoder0.0",
        type: str = "ram",
        more: str = "",
    ) -> dict[str, Any]:
        """`cxl create-region` over the named devices, in that order of positions; returns what it printed."""
        names = " ".join(map(self.memdev, devices))
        fine = f"-g {granularity}" if granularity else ""
        made = self.json(
            f"cxl create-region -t {type} -d {decoder} -w {len(devices)} {fine} {more} -m {names}"
        )
        assert isinstance(made, dict)
        return made

    def devdax(self) -> str:
        """Make the newest volatile region's memory a character device that programs map; returns its path."""
        name = self.json("daxctl list")[-1]["chardev"]
        return self.sh(f"softcxl-devdax {name}").strip()
