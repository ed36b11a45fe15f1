"""Examples that no other test boots, listed field by field with regions as their comments propose them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from softcxl import Fabric, boot
from softcxl.lab.parts import Parts
from tests.kernel.conftest import EXAMPLES, MOVABLE, Linux, quick
from tests.kernel.listing import Scene, Wanted, check_listing

SCENES = {
    "one-device": Scene([Wanted(["mem0"])]),
    "two-bridges": Scene([Wanted(["mem0", "mem1"], "decoder0.0")]),
    "dynamic-capacity": Scene(),
    "persistent": Scene([Wanted(["mem1", "mem0"], type="pmem")], [("mem0", 256 << 20)]),
    "pool": Scene(),
    "pooling": Scene([Wanted(["pool.1"])]),
}


@pytest.mark.parametrize("name", SCENES)
def test_the_listing_field_by_field(name: str, parts: Parts, tmp_path: Path) -> None:
    path = shutil.copy(EXAMPLES / f"{name}.yaml", tmp_path)  # state is kept beside it
    with (
        Fabric.load(path) as fabric,
        boot(fabric, next(iter(fabric.hosts)), parts=parts, append=MOVABLE) as machine,
    ):
        check_listing(Linux(quick(machine), fabric), name, SCENES[name])
