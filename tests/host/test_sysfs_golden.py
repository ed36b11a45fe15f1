"""sysfs of a host in this process against what Linux showed for the same topology, attribute by attribute.

tests/kernel/test_sysfs.py keeps what is compared with honest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from softcxl import Fabric
from softcxl.host.sysfs.node import Link
from softcxl.host.system import System
from tests.host.attributes import GOLDEN, TOPOLOGY, comparable


@pytest.fixture
def system() -> Iterator[System]:
    with Fabric.loads(TOPOLOGY) as fabric:
        yield fabric.hosts["alpha"].boot()


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    states = json.loads(GOLDEN.read_text())["states"]
    assert isinstance(states, dict)
    return states


def dumped(system: System) -> dict[str, str]:
    """What the guest's walk prints, of this host."""
    found = {}
    for path, prefix in (
        ("bus/cxl/devices", ""),
        ("bus/dax/devices", ""),
        ("bus/memory/devices", "memory/"),
    ):
        for where, one in system.sysfs.walk(path):
            if isinstance(one, Link):
                found[prefix + where] = f"-> {one.target.rpartition('/')[2]}"
            elif one.show is None:
                found[prefix + where] = f"{one.mode:o}"
            else:
                shown = one.show()
                text = shown.decode("latin-1") if isinstance(shown, bytes) else shown
                found[prefix + where] = f"{one.mode:o} {text.replace(chr(10), '~')}".rstrip(" ")
    return found


def check(system: System, kept: dict[str, str]) -> None:
    assert len(kept) > 300
    assert comparable(dumped(system)) == kept


def test_in_every_state_that_was_kept(system: System, golden: dict[str, Any]) -> None:
    # One after the other, as in the guest: decoders show what they were last used for.
    mem = {one.serial & 0xF: one for one in system.memdevs.values()}
    check(system, golden["found"])
    region = system.create_region([mem[1], mem[3]], type="ram", decoder="decoder0.1", granularity=1024)
    region.online()
    check(system, golden["ram"])
    system.sysfs["devices/system/memory/memory43/state"] = "offline"
    check(system, golden["offline"])
    region.offline()
    region.unplug()
    system.destroy_region(region)
    uuid = UUID("0a0b0c0d-0102-4304-8506-0708090a0b0c")
    system.create_region([mem[1], mem[2]], type="pmem", decoder="decoder0.0", uuid=uuid)
    check(system, golden["pmem"])
