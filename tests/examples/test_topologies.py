"""Every topology of examples/ works in process: its hosts boot without a problem, and have memory that holds bytes."""

import shutil
from pathlib import Path

import pytest

from softcxl.fabric.build import Fabric

EXAMPLES = Path(__file__).parents[2] / "examples"


POOL = "pool.yaml"
"""Whose memory is no host's: test_pool.py uses it."""


@pytest.mark.parametrize("name", sorted(one.name for one in EXAMPLES.glob("*.yaml") if one.name != POOL))
def test_it_boots_and_its_memory_holds_bytes(name, tmp_path):
    folder = shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("state"))
    with Fabric.load(folder / name) as fabric:
        assert fabric.hosts
        for host in fabric.hosts.values():
            system = host.boot()
            assert system.problems == []
            assert len(system.memdevs) == len(host.routes | host.bound)
            region = next(iter(system.regions.values()), None) or system.create_region()
            region.write(1000, name.encode() * 100)
            assert region.load(1000, len(name) * 100) == name.encode() * 100
